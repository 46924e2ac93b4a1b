"""Rows on their way to the disk, encoded batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from losslab.data.column import NUMBERS, Column
from losslab.data.columns import ONE, Vocabularies
from losslab.data.encoding import ahead
from losslab.data.splits import SPLITS
from losslab.data.stored_rows import SplitRows
from losslab.data.table_format import Row
from losslab.data.token_writer import SHARD, Journal, Part, Shard, tokenising, write_split


def write_rows(
    folder: Path, rows: Mapping[str, SplitRows], made: Vocabularies, *, whole: Collection[str], build: Mapping[str, Any]
) -> dict[str, int]:
    """Encode the rows of every split into the arrays of its columns: `SPLIT.NUMBER.npy`, and `SPLIT.NUMBER.ends.npy`
    where a row has any number of entries. Returns how many sequences of each split are longer than the context.

    A build that was killed goes on behind the last shard that it recorded; the bytes at the end are the same.

    Args:
        whole: splits whose sequences are not cut.
        build: plain values that decide every byte.
    """
    journal = Journal(folder, build)
    told = journal.shards or sum(split.size for split in rows.values()) > SHARD
    total = sum(map(len, rows.values()))
    with tokenising(journal, total, "rows") if told else nullcontext(_silent) as advance:
        for split in SPLITS:
            parts = _parts(rows[split], made, whole=split in whole, before=journal.of(split))
            write_split(folder, split, parts, _dtypes(made), journal, advance)
    return {split: sum(shard.longer for shard in journal.of(split)) for split in SPLITS}


def _silent(rows: int, size: int) -> None:
    """Small tables are encoded before anybody looks."""


def _dtypes(made: Vocabularies) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, kind in enumerate(made.columns.values()):
        found[f"{i}"] = NUMBERS[kind]
        if kind not in ONE:
            found[f"{i}.ends"] = np.int64
    return found


def _parts(rows: SplitRows, made: Vocabularies, *, whole: bool, before: Sequence[Shard]) -> Iterator[Part]:
    """Batches of rows behind the shards that are there."""
    done = sum(shard.documents for shard in before)
    entries = {
        i: sum(shard.sizes[f"{i}"] for shard in before) // np.dtype(NUMBERS[kind]).itemsize
        for i, kind in enumerate(made.columns.values())
    }

    def encode(batch: tuple[list[Row], int]) -> tuple[int, int, list[Column], int]:
        found, size = batch
        columns, longer = made.encode(found, whole=whole)
        return len(found), size, list(columns.values()), longer

    for count, size, columns, longer in ahead(encode, rows.batches(done)):
        arrays = {}
        for i, column in enumerate(columns):
            arrays[f"{i}"] = column.values
            if column.ends is not None:
                arrays[f"{i}.ends"] = column.ends + entries[i]
            entries[i] += len(column.values)
        yield Part(count, size, arrays, longer)
