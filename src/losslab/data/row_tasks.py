"""Checks of a task before rows are read for it."""

from __future__ import annotations

from losslab.choices import chosen
from losslab.contracts import Task
from losslab.data.augmentation import Augmentation
from losslab.data.columns import check_kinds, check_tokenizer
from losslab.data.row_reading import Reading
from losslab.data.row_source import RowSource
from losslab.data.train_rows import Sampling
from losslab.errors import UserError


def check_task_of_rows(
    task: Task, reading: Reading, source: RowSource, augmentation: Augmentation, sampling: Sampling, tokenizer: str
) -> None:
    """Refuse a task that reads no rows, names of columns that it does not have, and files that lack one.

    Raises:
        UserError: naming what there is.
    """
    name = chosen("task", task)
    if not task.columns:
        raise UserError(
            f"{name} reads no rows: its class declares no `columns`, and data=csv and its like give nothing "
            "else; choose a task of rows, such as task=classification"
        )
    check_kinds(task.columns, type(task).__name__, task.joined)
    if strangers := sorted(reading.names.keys() - task.columns.keys()):
        known = ", ".join(f"data.columns.{column}" for column in task.columns)
        raise UserError(
            f"there is no key 'data.columns.{strangers[0]}': {name} has {known}; choose another task, or "
            f"leave out what a yaml names: '~data.columns.{strangers[0]}'"
        )
    augmentation.check_columns(task.columns, name, task.predicted)
    if unknown := [column for column in task.predicted if task.columns.get(column) != "text"]:
        raise UserError(f"task: {name} predicts its column {unknown[0]!r}, which is none of its columns of text")
    check_tokenizer(task.columns, tokenizer, name)
    if augmentation.bpe_dropout and set(task.joined) - set(task.predicted) and task.cut != "longest":
        raise UserError(
            f"data.augment.bpe_dropout makes texts longer, and those of {name} are one running text that is "
            "cut once: leave it out"
        )
    sampling.check_columns(task.columns, name)
    reading.check_columns(source, task.columns)
