"""Series that TensorBoard reads back from a mixed sweep: one a tag, each step once, one HParams row a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from losslab.records import read
from losslab.training import run as training_run
from losslab.training.callbacks.run_callback import RunCallback
from runs import TINY, find_runs, losslab, make_text

SWEEP = [
    *TINY,
    "loss=cross_entropy,square",
    "seed=1,2",
    "loggers=tensorboard",
    "name=sweep",
    "optimizer.lr=3.0",
    "scheduler=constant",
    "trainer.max_steps=9",
    "trainer.val_check_interval=3",
    "trainer.gradient_clip_val=null,1.0",
]


class Killed(BaseException):
    """As abrupt as an in-process death can be: nothing of ours catches it."""


def read_back(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def hparams_of(events: EventAccumulator) -> tuple[dict[str, Any], list[str], int | None]:
    def content(tag: str) -> bytes:
        data: bytes = events.SummaryMetadata(tag).plugin_data.content
        return data

    start = metadata.parse_session_start_info_plugin_data(content(metadata.SESSION_START_INFO_TAG))
    row = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    experiment = metadata.parse_experiment_plugin_data(content(metadata.EXPERIMENT_TAG))
    tags = [info.name.tag for info in experiment.metric_infos]
    try:
        end = metadata.parse_session_end_info_plugin_data(content(metadata.SESSION_END_INFO_TAG))
    except KeyError:
        return row, tags, None
    return row, tags, end.status


@pytest.fixture
def sweep(run_tiny: Callable[..., int]) -> list[Path]:
    assert run_tiny("-m", *SWEEP) == 0
    return find_runs(Path("outputs/sweep"))


def test_hparams_have_one_row_a_run_with_the_same_keys_and_types(sweep: list[Path]) -> None:
    rows, all_tags = [], []
    for folder in sweep:
        events, record = read_back(folder), read(folder)
        row, tags, status = hparams_of(events)
        assert status == api_pb2.STATUS_SUCCESS
        rows.append(row)
        all_tags.append(tags)
        scalars = events.Tags()["scalars"]
        assert "hp_metric" not in [*scalars, *tags]
        # The last value of each series is what the tab shows.
        for tag in tags:
            part, name = ("best", tag.removeprefix("best/")) if tag.startswith("best/") else ("final", tag)
            assert events.Scalars(tag)[-1].value == pytest.approx(record.metrics[part][name], rel=1e-6), tag
    assert len(rows) == 8
    assert all(tags == all_tags[0] for tags in all_tags)
    types = [{key: type(value) for key, value in row.items()} for row in rows]
    assert all(found == types[0] for found in types)
    assert {row["loss"] for row in rows} == {"cross_entropy", "square"}
    assert {row["gradient_clip_val"] for row in rows} == {"None", "1.0"}
    assert not any(math.isnan(value) for row in rows for value in row.values() if isinstance(value, float))


BAD_LOSSES = """
import os
from torch.nn.functional import cross_entropy
from losslab.losses.base import Loss

class Late(Loss):
    calls = 0
    def position_loss(self, logits, target):
        self.calls += self.training
        loss = cross_entropy(logits, target, reduction="none")
        return loss if self.calls < 6 or "MENDED" in os.environ else self.fail(loss)

class Exploding(Late):
    def fail(self, loss):
        return loss * float("nan")

class Broken(Late):
    def fail(self, loss):
        raise RuntimeError("no such thing")

class Stillborn(Late):
    def bind(self, spec):
        if "MENDED" not in os.environ:
            raise RuntimeError("born dead")
"""


def test_a_sweep_of_all_ends_has_one_row_a_run_and_the_right_status(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bad_losses.py").write_text(BAD_LOSSES)
    Path("conf/loss").mkdir(parents=True)
    for name in ("Exploding", "Broken", "Stillborn"):
        Path(f"conf/loss/{name.lower()}.yaml").write_text(f"_target_: bad_losses.{name}\n")
    common = ["--config-dir", "conf", "loggers=tensorboard", "name=mixed"]
    terms = ["loss=sum", "loss@loss.first=focal", "loss@loss.second=brier"]
    sweep = [*common, "loss=cross_entropy,focal,exploding,broken,stillborn"]
    assert run_tiny("-m", *common, *terms) == 0
    assert run_tiny("-m", *sweep) == 1
    ends = {"exploding": api_pb2.STATUS_FAILURE}
    expected = ends | dict.fromkeys(("broken", "stillborn"), api_pb2.STATUS_FAILURE)
    check_rows(Path("outputs/mixed"), expected)
    # The same command tries failed runs again: their rows are those of the new attempt.
    monkeypatch.setenv("MENDED", "1")
    assert run_tiny("-m", *sweep) == 0
    check_rows(Path("outputs/mixed"), ends)


def check_rows(folder: Path, ends: dict[str, int]) -> None:
    """One row a run, whatever became of it, with the same keys and types, and the best val/nll."""
    rows, shown = [], []
    for run in find_runs(folder):
        events, record = read_back(run), read(run)
        row, tags, status = hparams_of(events)
        assert status == ends.get(row["loss"], api_pb2.STATUS_SUCCESS), (run, record.status)
        assert "hp_metric" not in [*events.Tags()["scalars"], *tags]
        if record.status == "completed":
            best = record.metrics["best"]["val/nll"]
            assert events.Scalars("best/val/nll")[-1].value == pytest.approx(best, rel=1e-6)
            assert math.isfinite(row["parameters"])
        rows.append(row)
        shown.append(tags)
    assert len(rows) == 6
    assert len({row["loss"] for row in rows}) == 6
    assert all(tags == shown[0] for tags in shown)
    types = [{key: type(value) for key, value in row.items()} for row in rows]
    assert all(found == types[0] for found in types)


def test_a_run_killed_twice_reads_as_one_series(run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    one = [*SWEEP[: len(TINY)], *SWEEP[len(TINY) + 2 : -1], "loss=square", "checkpoints.every_n_steps=2"]
    assert run_tiny(*one, "name=whole") == 0
    save, finish = RunCallback._save, training_run.finish

    def die_after_logging(step: int) -> Callable[..., None]:
        def patched(self: RunCallback, trainer: Any, improved: bool) -> None:
            if self.state.step == step:
                assert self.metrics_log is not None
                self.metrics_log.flush()  # the log knows a step that no checkpoint does
                raise Killed
            save(self, trainer, improved)

        return patched

    def die_after_finishing(*arguments: Any, **keywords: Any) -> None:
        finish(*arguments, **keywords)
        raise Killed

    patches = [(RunCallback, "_save", die_after_logging(4)), (RunCallback, "_save", die_after_logging(6))]
    for target, name, patched in [*patches, (training_run, "finish", die_after_finishing)]:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, patched)
            with pytest.raises(Killed):
                run_tiny(*one, "name=killed")
    assert run_tiny(*one, "name=killed") == 0
    ((whole,), (killed,)) = find_runs(Path("outputs/whole")), find_runs(Path("outputs/killed"))
    assert len(list(killed.glob("events*"))) == 4
    found, expected = read_back(killed), read_back(whole)
    assert found.Tags()["scalars"] == expected.Tags()["scalars"]
    for tag in expected.Tags()["scalars"]:
        series = [(event.step, event.value) for event in expected.Scalars(tag)]
        assert [step for step, _ in series] == sorted({step for step, _ in series})
        assert [(event.step, event.value) for event in found.Scalars(tag)] == series, tag
    assert hparams_of(found) == hparams_of(expected)


def test_a_run_that_is_killed_for_good_still_has_its_row(workplace: Path) -> None:
    (workplace / "book.txt").write_text(make_text(), encoding="utf-8")
    process = losslab("train", *TINY, "loggers=tensorboard", "trainer.max_steps=100000", cwd=workplace)
    while not (runs := find_runs(workplace / "outputs/runs")) or read(runs[0]).step == 0:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.kill()
    process.communicate()
    row, tags, status = hparams_of(read_back(runs[0]))
    assert (row["loss"], row["width"], status) == ("cross_entropy", 16.0, None)
    assert "best/val/nll_scaled" in tags
