"""Several processes train the same run: gloo, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runs import only_run

TWO_RANKS = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]


@pytest.mark.parametrize("loss", ["cross_entropy", "square"])
def test_two_ranks_equal_one(run_tiny: Callable[..., int], loss: str) -> None:
    common = [f"loss={loss}", "trainer.max_steps=6", "data.val_batch_size=5"]
    assert run_tiny(*common, "name=one") == 0
    assert run_tiny(*common, *TWO_RANKS, "trainer.accumulate_grad_batches=2", "name=two") == 0
    _, one = only_run(Path("outputs/one"))
    _, two = only_run(Path("outputs/two"))
    assert one.identity == two.identity
    assert two.hardware["ranks"] == 2
    assert one.hashes == two.hashes
    assert two.yardsticks["final"] == pytest.approx(one.yardsticks["final"], rel=1e-5)


def test_bad_input_on_ranks_is_told_before_they_start(run_tiny: Callable[..., int]) -> None:
    assert run_tiny(*TWO_RANKS, "data.batch_size=3") == 2
