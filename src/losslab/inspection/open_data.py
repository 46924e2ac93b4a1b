"""The data of a configuration, prepared in the cache where a run would look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.data_path import check_path
from losslab.config.schema import register
from losslab.config.streams import seed_of
from losslab.config.words import ready
from losslab.contracts import DataModule, Task
from losslab.errors import UserError
from losslab.inspection.examples import examples_of
from losslab.inspection.facts import facts_of
from losslab.training.factory import prepare_data
from losslab.training.random import derive_seed


def inspected(words: list[str], config_dir: Path | None, *, split: str, step: int, examples: int) -> dict[str, Any]:
    """All that `losslab data inspect` prints.

    Args:
        words: GROUP=CHOICE and KEY=VALUE, as `losslab train` takes them.
        split, step, examples: which samples are shown (`examples_of`).

    Raises:
        UserError: for mistakes in what was typed, and for data that cannot be prepared.
    """
    register()
    composed, choices = compose_job([ready(word) for word in words], config_dir)
    config = check_run(composed)
    check_path(config, choices, config_dir)
    data, task = prepare_data(bind_components(config))
    data.seed = derive_seed(seed_of(config, "data_order"), "data_order")
    shown = examples_of(data, task, split=split, step=step, count=examples)
    found = {"data": type(data).__name__, "task": type(task).__name__, "unit": task.unit} | facts_of(data, task)
    found["notes"] += _refusals(data, task)
    return found | {"split": split, "step": step, "examples": shown}


def _refusals(data: DataModule, task: Task) -> list[str]:
    """The sentence with which the task refuses to be trained on this data, if it does."""
    try:
        task.bind(data.info)
    except UserError as refusal:
        return [f"no run can be trained on this: {refusal}"]
    return []
