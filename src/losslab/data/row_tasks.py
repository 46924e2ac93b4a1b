"""Checks of a task before rows are read for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from losslab.choices import chosen
from losslab.contracts import ColumnKind, Task
from losslab.data.augmentation import Augmentation
from losslab.data.cells import Columns
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
    if task.points:
        raise UserError(f"{name} reads questions about texts, and this data gives none: data=squad does")
    if not task.columns:
        cure = "data=text gives what it reads, or " if task.of_stream else ""
        raise UserError(
            f"{name} reads no rows: its class declares no `columns`, and this data gives nothing else; {cure}choose a "
            "task of rows, such as task=classification"
        )
    source.check_task(task)
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


def check_kinds(columns: Columns, task: str, joined: Sequence[str] = ()) -> None:
    """Refuse kinds that there are not, and columns that do not go together. Raises UserError naming the task."""
    if strangers := [name for name in joined if columns.get(name) != "text"]:
        raise UserError(f"task: {task} joins its column {strangers[0]!r}, which is none of its columns of text")
    for name, kind in columns.items():
        if kind not in get_args(ColumnKind):
            kinds = ", ".join(get_args(ColumnKind))
            raise UserError(f"task: {task} declares its column {name!r} as {kind!r}, and the kinds are {kinds}")
    declared = list(columns.values())
    if "text" in declared and "words" in declared:
        raise UserError(f"task: {task} declares columns of text and of words, and a model has one vocabulary")
    if "tags" in declared and declared.count("words") != 1:
        raise UserError(f"task: {task} declares a column of tags, which goes with one column of words")


def check_tokenizer(columns: Columns, tokenizer: str, task: str) -> None:
    """Refuse a tokenizer that was asked for where a task has no texts to cut. Raises UserError naming the task."""
    if tokenizer == "bytes" or "text" in columns.values():
        return
    reads = "words that have an id each (data.vocab_size)" if "words" in columns.values() else "none"
    raise UserError(f"data.tokenizer={tokenizer} cuts texts, and {task} reads {reads}: leave it out")
