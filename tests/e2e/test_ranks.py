"""Several processes train the same run: gloo, on the CPU."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import rank_weights
import torch
from stopped_runs import make_run
from torch import Tensor

from losslab.config.check import bind_components, check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.config.paths import conf_dir
from losslab.locks import is_locked
from losslab.records import find_runs, read
from losslab.sweeps.resume import resume
from losslab.training.run import execute
from runs import TINY, losslab, only_run, stopping_after

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


LOSSES = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))
FIVE_STEPS = [
    "trainer.max_steps=5",
    "trainer.val_check_interval=5",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "model.context=30",  # 143 windows of val, of which one rank has one more
    "data.val_batch_size=71",  # and so one batch more
    "trainer.enable_progress_bar=false",
]


def test_every_loss_trains_on_two_ranks_as_on_one(workplace: Path) -> None:
    def make(name: str, *options: str) -> Path:
        path = f"data.path={workplace / 'book.txt'}"
        config = bind_components(check_run(compose_plain([*TINY, path, *options, *FIVE_STEPS])))
        make_run(workplace / name, resolve_split(resolve_budget(config)))
        return workplace / name

    two = {
        (loss, strategy): make(f"two/{loss}-{strategy}", f"loss={loss}", f"trainer={strategy}")
        for loss, strategy in product(LOSSES, ("ddp", "fsdp"))
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, rank_weights.__file__, str(workplace / "two")],
        capture_output=True,
        text=True,
        timeout=rank_weights.SECONDS + 60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for loss in LOSSES:
        one = make(f"one/{loss}", f"loss={loss}")
        execute(one)
        expected = torch.load(one / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for strategy in ("ddp", "fsdp"):
            run = two[loss, strategy]
            (first, sharded), (second, _) = (torch.load(run / f"{rank}.pt", weights_only=True) for rank in (0, 1))
            assert len(sharded) == (len(first) if strategy == "fsdp" else 0)
            assert all(torch.equal(first[name], second[name]) for name in first)
            assert distance(first, expected) < 1e-6, (loss, strategy)
            kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
            assert kept.keys() == expected.keys()
            assert all(torch.equal(kept[f"network.{name}"], first[name]) for name in first)
            found, whole = read(run).yardsticks["final"], read(one).yardsticks["final"]
            assert found.keys() == whole.keys()
            for name in ("val/nll", "test/nll", "val/nll_scaled", "test/nll_scaled", "val/objective"):
                if whole[name] is None:  # a prediction of exactly 0 has no finite nll
                    assert loss == "entmax" and found[name] is None
                else:
                    assert found[name] == pytest.approx(whole[name], rel=1e-6), (loss, strategy, name)


def distance(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative, over all parameters."""
    pairs = [
        (value.flatten().double(), expected[f"network.{name}"].flatten().double()) for name, value in weights.items()
    ]
    found, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_nan_on_one_rank_ends_both_as_diverged(run_tiny: Callable[..., int], strategy: str) -> None:
    own = ["loss=kl_divergence", "loss._target_=rank_weights.NanOnOneRank", "~loss.label_smoothing"]
    two = [f"trainer={strategy}", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    assert run_tiny(*own, *two, "trainer.max_steps=9") == 0
    run, record = only_run(Path("outputs/runs"))
    assert (record.status, record.step) == ("diverged", 4)
    assert "NanOnOneRank is nan" in str(record.error) and "at step 7" in str(record.error)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in state.values())


def test_a_failure_of_one_rank_is_told_and_recorded_in_its_own_words(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["loss=kl_divergence", "loss._target_=rank_weights.RaisesOnOneRank", "~loss.label_smoothing"]
    assert run_tiny(*own, *TWO_RANKS) == 1
    _, record = only_run(Path("outputs/runs"))
    assert (record.status, record.error) == ("failed", "rank 1: ArithmeticError: no luck here")
    told = capsys.readouterr().err
    assert told.count("no luck here") == 1 and "Traceback" not in told


def test_ranks_whose_parent_was_killed_save_and_end(workplace: Path) -> None:
    long = ["trainer.max_steps=100000", "trainer.val_check_interval=1000", "checkpoints.every_n_steps=5"]
    process = losslab("train", *TINY, *TWO_RANKS, *long, cwd=workplace)
    while not (found := find_runs(workplace / "outputs/runs")) or read(found[0]).step < 5:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.kill()
    deadline = time.monotonic() + 60
    while is_locked(found[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    record = read(found[0])
    assert record.status == "interrupted"
    assert f"after step {record.step}" in str(record.error)


def test_a_bad_text_is_told_once_before_the_ranks_start(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*TWO_RANKS, "model.context=8000") == 2
    assert capsys.readouterr().err.count("too short") == 1


def test_a_run_of_one_process_continues_sharded(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("name=whole", "model.tie_embeddings=false") == 0
    _, whole = only_run(Path("outputs/whole"))
    with stopping_after():
        assert run_tiny("model.tie_embeddings=false") == 1
    (run,) = find_runs(Path("outputs/runs"))
    assert resume(run, [], ["trainer.strategy=fsdp", "trainer.devices=2"]) == 0
    record = read(run)
    assert (record.status, record.hardware["ranks"], record.hardware["strategy"]) == ("completed", 2, "fsdp")
    assert record.yardsticks["final"] == pytest.approx(whole.yardsticks["final"], rel=1e-5)


def test_bad_input_on_ranks_is_told_before_they_start(run_tiny: Callable[..., int]) -> None:
    assert run_tiny(*TWO_RANKS, "data.batch_size=3") == 2
