"""The part of a teacher in its students' identity: the same for ever, whatever metrics are added to a record."""

import hashlib
import json

from losslab.config.identity import HASHED_METRICS
from losslab.records import Record
from losslab.training.scoring.teacher import results_hash

NAMES = [name for name in HASHED_METRICS if name != "step"]
RESULTS = {
    part: {f"{split}/{name}": 1 + i / 7 for split in ("val", "test") for i, name in enumerate(NAMES)} | {"step": 60.0}
    for part in ("best", "final")
}


def teacher(**changes: float) -> Record:
    results = {part: values | changes for part, values in RESULTS.items()}
    return Record(identity="a" * 64, name="first", metrics=results, primary="nll_scaled")


def test_all_results_of_a_language_model_are_hashed_as_they_were_before_metrics_were_declared() -> None:
    record = teacher()
    before = hashlib.sha256(json.dumps([record.identity, record.metrics], sort_keys=True).encode()).hexdigest()
    assert results_hash(record) == before == "cdde0fa7bf393bb3e4e706292a259d7030ceea17e1706f44ba56cc62c54880cd"


def test_a_metric_that_is_added_later_changes_no_hash_and_every_other_value_does() -> None:
    before = results_hash(teacher())
    assert results_hash(teacher(**{"test/new": 1.0, "val/new": 2.0})) == before
    assert len({before, *(results_hash(teacher(**{f"test/{name}": 0.5})) for name in NAMES)}) == len(NAMES) + 1


def test_a_teacher_of_another_task_counts_by_its_primary_metric() -> None:
    record = teacher(**{"test/rmse": 1.0})
    record.primary = "rmse"
    before = results_hash(record)
    record.metrics["best"]["test/rmse"] = 2.0
    assert results_hash(record) != before
