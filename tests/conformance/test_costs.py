"""Costs of a training step under each loss, measured in turns, and the file that `losslab compare` reads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from losslab.comparison.costs import FILE, costs_source, is_settled, read_costs
from losslab.config.schema import register
from losslab.conformance import costs
from losslab.conformance.bench import _configs
from losslab.conformance.costs import Step, measure_costs, time_steps
from losslab.conformance.measure import Shape
from losslab.errors import Fault, UserError
from losslab.run_folder import RunFolder

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
    clock = iter([1.0, 1.25, 30.0, 40.0, 1.0, 1.3])
    order = []
    shape = Shape(16, 16, 32, threads=2)
    monkeypatch.setattr(costs, "_step", lambda folder, trust: SimpleNamespace(shape=shape))
    monkeypatch.setattr(costs, "_seconds", lambda step, folder: order.append(folder.name) or next(clock))
    measure_costs(
        {"a": RunFolder(Path("first")), "b": RunFolder(Path("second"))},
        tmp_path / FILE,
        is_settled=is_settled,
        rounds=2,
    )
    assert order == ["first", "second"] * 3, "a third round, for the two quickest disagreed"
    content = read_costs(tmp_path)
    assert content is not None
    assert content["seconds_per_step"] == {"a": [1.0, 30.0, 1.0], "b": [1.25, 40.0, 1.3]}
    assert "measured side by side" in costs_source(content) and "2 threads, 3 rounds" in costs_source(content)


def test_a_machine_that_stays_busy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(float(1 + i) for i in range(100))
    monkeypatch.setattr(costs, "_step", lambda folder, trust: SimpleNamespace(shape=Shape(16, 16, 32, threads=2)))
    monkeypatch.setattr(costs, "_seconds", lambda step, folder: next(clock))
    measure_costs(
        {"a": RunFolder(Path("first")), "b": RunFolder(Path("second"))},
        tmp_path / FILE,
        is_settled=is_settled,
        rounds=2,
    )
    content = read_costs(tmp_path)
    assert content is not None and content["rounds"] == 6
    captured = capsys.readouterr()
    assert "the machine is busy" in captured.out + captured.err


def test_a_step_that_raises_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def answering(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(recv=lambda: Fault("it raises RuntimeError: out of memory"))

    monkeypatch.setattr(costs, "started", answering)
    with pytest.raises(UserError, match="the cost of a-run could not be measured: it raises RuntimeError: out of"):
        costs._seconds(None, Path("outputs/a-run"))  # type: ignore[arg-type]
