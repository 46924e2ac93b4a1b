"""What a training step costs under each loss, measured in turns, and the file that `losslab compare` reads."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest

from losslab.comparison.costs import FILE, describe, read_costs
from losslab.config.schema import register
from losslab.conformance import costs
from losslab.conformance.bench import _configs
from losslab.conformance.costs import Step, measure_costs, time_steps
from losslab.conformance.measure import Shape

SMALL = ["model.width=16", "model.num_heads=2", "model.num_layers=1", "model.context=8", "data.batch_size=4"]


@pytest.mark.parametrize("loss", ["cross_entropy", "square", "unlikelihood"])
def test_a_step_is_timed_for_losses_of_every_kind(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_SECONDS", 0.0)
    register()
    (config,) = _configs([f"loss={loss}", *SMALL], None).values()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    time_steps(Step(config, micro_batches=2, rows=2, shape=Shape(16, 16, 32, threads=1)), sending)
    assert 0 < receiving.recv() < 10


def test_losses_take_turns_and_compare_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute in which the machine is slow slows them all."""
    clock = iter([1.0, 1.25, 30.0, 40.0])
    order = []
    shape = Shape(16, 16, 32, threads=2)
    monkeypatch.setattr(costs, "_step", lambda folder, trust: SimpleNamespace(shape=shape))
    monkeypatch.setattr(costs, "_seconds", lambda step, folder: order.append(folder.name) or next(clock))
    measure_costs({"a": Path("first"), "b": Path("second")}, tmp_path / FILE, rounds=2)
    assert order == ["first", "second"] * 2
    content = read_costs(tmp_path)
    assert content is not None
    assert content["seconds_per_step"] == {"a": [1.0, 30.0], "b": [1.25, 40.0]}
    assert "measured side by side" in describe(content) and "2 threads, 2 rounds" in describe(content)
