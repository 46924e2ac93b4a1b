"""TensorBoard's event files: what its own reader finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from losslab.loggers.events import EventFile
from losslab.metric import Metric
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.output.hyperparameters import describe_run
from losslab.training.output.loggers import Loggers
from losslab.training.output.logs import MetricsLog, Shown

COLUMNS = ["train/objective", "val/nll_scaled"]
PRIMARY = Metric("nll_scaled", "nll after one temperature", "nats per token", higher_is_better=False)
NAMES = ["nll", "nll_scaled", "bits_per_byte", "top1"]
SHOWN = {"nll_scaled": 3.0, "nll": 4.0, "bits_per_byte": 1.0, "top1": 0.5}
BEST = {f"{part}/{name}": value for part in ("val", "test") for name, value in SHOWN.items()}


def read_back(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def series(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


class OneLog(MetricsLog):
    """metrics.csv with TensorBoard beside it, in a run of 6 steps."""

    def close(self, status: str = "interrupted") -> None:
        super().close()
        self.loggers.close(status)


def loggers_of(folder: Path, described: dict[str, Any], sizes: dict[str, Any]) -> Loggers:
    node = {"tensorboard": {"_target_": "losslab.loggers.tensorboard.TensorBoard"}}
    record = Record(identity="0", name="x", max_steps=6, provenance=sizes)
    return Loggers(RunFolder(folder), described | {"loggers": node}, record)


def open_log(folder: Path, step: int, **changes: Any) -> OneLog:
    loggers = loggers_of(folder, config(**changes), {"vocab_size": 7, "parameters": 9})
    return OneLog(RunFolder(folder), step=step, columns=COLUMNS, shown=Shown(PRIMARY, NAMES, 6), loggers=loggers)


def note_failure(folder: Path, step: int) -> None:
    """A session that ends before it trains."""
    loggers = loggers_of(folder, config(), {})
    loggers.begin(lambda until: [], step=step, metrics=NAMES, trains=False)
    loggers.close("failed")


def test_scalars_come_back_with_their_steps(tmp_path: Path) -> None:
    events = EventFile(tmp_path, purge_from=1)
    for step in (1, 2, 5):
        events.scalars(step, {"train/objective": 1 / step, "train/lr": 0.5})
    events.close()
    assert series(tmp_path, "train/objective") == [(1, 1.0), (2, 0.5), (5, pytest.approx(0.2))]
    assert read_back(tmp_path).Tags()["scalars"] == ["train/objective", "train/lr"]


def test_what_is_flushed_is_on_disk_while_the_file_is_open(tmp_path: Path) -> None:
    events = EventFile(tmp_path, purge_from=1)
    events.scalars(1, {"train/objective": 1.0})
    events.flush()
    assert series(tmp_path, "train/objective") == [(1, 1.0)]
    events.close()


def test_sessions_that_were_cut_off_leave_one_series_with_each_step_once(tmp_path: Path) -> None:
    for first, last in ((0, 4), (2, 5), (1, 3), (3, 6)):
        log = open_log(tmp_path, first)
        for step in range(first + 1, last + 1):
            log.write(step, {"train/objective": float(10 * first + step)}, {})
        log.close("interrupted" if last < 6 else "failed")  # the last step's row waits for what else belongs to it
    # Each session begins after the checkpoint it continues from: 0, 2, 1 and 3.
    assert series(tmp_path, "train/objective") == [(1, 1.0), (2, 12.0), (3, 13.0), (4, 34.0), (5, 35.0), (6, 36.0)]


def test_a_record_that_a_kill_tore_hides_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path, 0)
    for step in (1, 2):
        log.write(step, {"train/objective": float(step)}, {})
    log.close()
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-3])
    log = open_log(tmp_path, 1)
    for step in (2, 3):
        log.write(step, {"train/objective": float(step)}, {})
    log.close()
    assert series(tmp_path, "train/objective") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_run_stopped_after_its_last_step_has_its_results_once(tmp_path: Path) -> None:
    log = open_log(tmp_path, 0)
    for step in range(1, 7):
        log.write(step, {"train/objective": float(step), "val/nll_scaled": 9.0 - step}, BEST)
    log.finish(6, {"final": BEST, "best": BEST})
    log.close()
    for _ in range(2):
        log = open_log(tmp_path, 6)
        log.finish(6, {"final": BEST, "best": BEST})
        log.close()
    assert series(tmp_path, "train/objective") == [(step, float(step)) for step in range(1, 7)]
    assert series(tmp_path, "val/nll_scaled")[-1] == (6, 3.0)
    assert series(tmp_path, "test/nll") == [(6, 4.0)]
    assert series(tmp_path, "best/val/top1") == [(step, 0.5) for step in range(1, 7)]


def config(**changes: Any) -> dict[str, Any]:
    plain = {
        "seed": 1,
        "seeds": {"data_order": None, "twin": None},
        "loss": {"_target_": "a.CrossEntropy", "label_smoothing": 0.0},
        "regularizers": {"z_loss": 0.0, "soft_cap": None},
        "model": {"_target_": "a.Decoder", "num_layers": 1, "num_heads": 1, "width": 8, "context": 4, "dropout": 0},
        "data": {"corpus": None, "path": "/somewhere/book.txt", "batch_size": 4},
        "optimizer": {"_target_": "a.AdamW", "lr": 3e-3},
        "scheduler": {"_target_": "a.Cosine", "warmup_steps": 2},
        "trainer": {"fast_dev_run": None, "max_steps": 6, "gradient_clip_val": None, "precision": "32-true"},
    }
    return plain | changes


def row_of(folder: Path, described: dict[str, Any]) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    events = EventFile(folder, purge_from=1)
    events.hparams(describe_run(described, "x", vocab_size=7, parameters=9), NAMES)
    events.result(success=True)
    events.close()
    content = read_back(folder).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    return {key: value.WhichOneof("kind") for key, value in start.hparams.items()}


def test_every_run_has_the_same_hparams_with_the_same_types(tmp_path: Path) -> None:
    other = config(
        loss={"_target_": "a.Square", "k": 15.0, "m": 30.0},
        regularizers={"z_loss": 1e-4, "soft_cap": None},
        model={"_target_": "a.Other", "depth": 3},
        optimizer={"_target_": "a.SGD", "lr": None, "momentum": 0.9},
        trainer={"max_steps": 6, "gradient_clip_val": 1.0, "precision": "bf16-mixed"},
        data={"corpus": "python_docs", "path": None, "batch_size": 4},
    )
    first, second = row_of(tmp_path / "a", config()), row_of(tmp_path / "b", other)
    assert first == second
    assert {
        "loss": "string_value",
        "seed": "number_value",
        "gradient_clip_val": "string_value",
    }.items() <= first.items()


def test_the_hparams_name_metrics_and_no_metric_of_lightnings(tmp_path: Path) -> None:
    row_of(tmp_path, config())
    content = read_back(tmp_path).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    tags = [info.name.tag for info in metadata.parse_experiment_plugin_data(content).metric_infos]
    assert {"val/nll_scaled", "best/val/nll_scaled", "test/nll_scaled", "best/test/nll_scaled"} <= set(tags)
    assert "hp_metric" not in tags


def test_the_settings_name_the_terms_of_a_sum_and_the_regularizers_in_use() -> None:
    first = {"_target_": "losslab.losses.focal.Focal", "gamma": 2.0}
    described = config(
        loss={"_target_": "a.Sum", "first": first, "weights": {"first": 0.5}},
        regularizers={"z_loss": 1e-4, "soft_cap": None},
    )
    row = describe_run(described, "focal", vocab_size=7, parameters=9)
    assert row["loss_settings"] == "first=Focal first.gamma=2.0 weights.first=0.5"
    assert row["regularizers"] == "z_loss=0.0001"
    assert describe_run(config(), "x")["regularizers"] == "none"


def test_streams_and_twins_are_told() -> None:
    assert describe_run(config(), "x")["seeds"] == "none"
    assert describe_run(config(seeds={"data_order": 7, "twin": None}), "x")["seeds"] == "data_order=7"


def test_the_tab_shows_first_what_a_comparison_varies(tmp_path: Path) -> None:
    row_of(tmp_path, config())
    content = read_back(tmp_path).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    infos = metadata.parse_experiment_plugin_data(content).hparam_infos
    # As the plugin sorts them; it shows five until a person asks for more.
    first = [info.name for info in sorted(infos, key=lambda info: (not info.differs, info.name))][:5]
    assert first == ["loss", "loss_settings", "lr", "regularizers", "seed"]


def status_of(folder: Path) -> int | None:
    events = read_back(folder)
    if metadata.SESSION_END_INFO_TAG not in events.summary_metadata:
        return None
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    status: int = metadata.parse_session_end_info_plugin_data(content).status
    return status


def hparam(folder: Path, name: str) -> float:
    content = read_back(folder).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    value: float = metadata.parse_session_start_info_plugin_data(content).hparams[name].number_value
    return value


def test_a_failed_run_that_goes_on_and_ends_well_is_a_success(tmp_path: Path) -> None:
    log = open_log(tmp_path, 0)
    log.write(1, {"train/objective": 1.0}, {})
    log.close("running")
    note_failure(tmp_path, 1)
    assert status_of(tmp_path) == api_pb2.STATUS_FAILURE
    assert len(list(tmp_path.glob("events*"))) == 1
    log = open_log(tmp_path, 1, seed=2)
    log.flush()
    assert status_of(tmp_path) is None
    log.write(2, {"train/objective": 2.0}, {})
    log.close("completed")
    assert status_of(tmp_path) == api_pb2.STATUS_SUCCESS
    assert series(tmp_path, "train/objective") == [(1, 1.0), (2, 2.0)]
    assert hparam(tmp_path, "seed") == 2.0


def test_a_run_that_fails_before_it_logs_has_a_row_that_the_next_session_mends(tmp_path: Path) -> None:
    for _ in range(2):
        note_failure(tmp_path, 0)
    assert status_of(tmp_path) == api_pb2.STATUS_FAILURE
    assert len(list(tmp_path.glob("events*"))) == 1
    unknown, known = describe_run(config(), "x"), describe_run(config(), "x", vocab_size=7, parameters=9)
    assert {key: type(value) for key, value in known.items()} == {key: type(value) for key, value in unknown.items()}
    open_log(tmp_path, 0).close()
    assert hparam(tmp_path, "parameters") == 9.0
    assert status_of(tmp_path) is None


def test_what_was_lost_is_logged_again(tmp_path: Path) -> None:
    log = open_log(tmp_path, 0)
    log.write(1, {"train/objective": 1.0}, {})
    (guarded,) = log.loggers._opened()
    with patch.object(EventFile, "scalars", side_effect=OSError(28, "No space left on device")):
        log.write(2, {"train/objective": 2.0}, {})
    log.write(3, {"train/objective": 3.0}, {})
    log.close()
    assert guarded.lost and series(tmp_path, "train/objective") == [(1, 1.0)]
    lost = log.loggers._record.provenance["loggers"]["tensorboard"]["lost"]
    assert lost[0]["step"] == 2 and "No space left" in lost[0]["error"]
    loggers = loggers_of(tmp_path, config(), {"loggers": {"tensorboard": {"lost": lost}}})
    OneLog(RunFolder(tmp_path), step=3, columns=COLUMNS, shown=Shown(PRIMARY, NAMES, 6), loggers=loggers).close()
    assert series(tmp_path, "train/objective") == [(1, 1.0), (2, 2.0), (3, 3.0)]


@pytest.mark.parametrize("tail", [b"\x05", b"\x00" * 40, b"\x08" + b"\x00" * 11 + b"\xff" * 12])
def test_a_torn_file_keeps_what_was_whole_when_its_row_is_forgotten(tmp_path: Path, tail: bytes) -> None:
    log = open_log(tmp_path, 0)
    log.write(1, {"train/objective": 1.0}, {})
    log.close()
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes() + tail)
    open_log(tmp_path, 1, seed=2).close()
    assert series(tmp_path, "train/objective") == [(1, 1.0)]
    assert hparam(tmp_path, "seed") == 2.0


def test_a_run_that_is_stopped_before_its_log_begins_has_lost_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loggers = loggers_of(tmp_path, config(), {})
    assert loggers.lightning
    loggers.close("interrupted")
    assert capsys.readouterr() == ("", "")
    assert "lost" not in loggers._record.provenance.get("loggers", {}).get("tensorboard", {})


def test_a_thousand_logged_steps_are_written_in_batches(tmp_path: Path) -> None:
    """Buffers hold what is logged until they are full, or a checkpoint asks for it."""
    log = open_log(tmp_path, step=0)
    log.ends_at(2000)
    sizes: dict[Path, set[int]] = {}
    for step in range(1, 1001):
        log.write(step, {"train/objective": 1 / step}, {})
        for path in (tmp_path / "metrics.csv", *tmp_path.glob("events.*")):
            sizes.setdefault(path, set()).add(path.stat().st_size)
    log.close()
    assert len(sizes) == 2
    for path, seen in sizes.items():
        assert 1 < len(seen) <= path.stat().st_size // 4096 + 2 < 50, path
    assert [step for step, _ in series(tmp_path, "train/objective")] == [*range(1, 1001)]
