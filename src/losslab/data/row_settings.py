"""All that decides what is kept of encoded rows: the key of their cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from losslab.contracts import Task
from losslab.data.long_rows import LongRows
from losslab.data.row_reading import Reading
from losslab.data.row_source import RowSource


def row_settings(
    task: Task,
    source: RowSource,
    reading: Reading,
    long: LongRows,
    *,
    hashes: Mapping[str, str],
    tokenizer: str,
    vocab_size: int,
    switches: Mapping[str, bool],
    joint: bool,
    whole: tuple[str, ...],
) -> dict[str, Any]:
    """Settings of `losslab.data.row_store.open_rows`.

    Args:
        hashes: of the files that are read.
        switches: further settings, kept where they are true.
        joint: texts that are predicted have the tokenizer of the others.
        whole: splits whose long rows are read in windows, where there are such.
    """
    how = asdict(reading) | {"names": reading.of(task.columns)}
    del how["predicted"]
    settings: dict[str, Any] = {
        "hashes": dict(hashes),
        "reading": how,
        "form": repr(getattr(source, "form", None)),
        "kinds": dict(task.columns),
        "tokenizer": tokenizer if tokenizer in ("bpe", "bytes") else "file",
        "vocab_size": vocab_size,
        "context": long.context,
    } | {key: True for key, on in switches.items() if on}
    if task.joined:
        settings |= {"joined": list(task.joined)} | ({} if task.cut == "longest" else {"cut": task.cut})
    if reading.predicted:
        settings |= {"predicted": list(reading.predicted)}
    if not joint:
        settings |= {"joint": False}
    if long.stride is not None:
        settings |= {"whole": list(whole)}
    return settings
