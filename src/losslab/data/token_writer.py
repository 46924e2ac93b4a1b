"""The token streams of a text on their way to the disk: in shards, so that a build that was killed goes on."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.console import Advance, measuring, say
from losslab.data.encoding import KINDS, Piece, dtypes_of, encode_pieces
from losslab.data.splits import SPLITS
from losslab.data.store import checksum, growing
from losslab.data.tokenizer import Tokenizer

JOURNAL = ".shards.jsonl"
"""A line for the build, and one for each finished shard."""
SHARD = 2**25
"""Bytes of text after which what was written is recorded."""


@dataclass(frozen=True)
class Shard:
    """A finished part of a split's arrays."""

    split: str
    documents: int
    size: int
    """Bytes of its text."""
    sizes: dict[str, int]
    """Bytes by kind of array."""
    checksums: dict[str, int]
    """CRC-32 by kind of array."""


class Journal:
    """The record of finished shards in the folder of a build.

    Args:
        folder: of the build; what a build of other settings or of another tokenizer left there is removed.
        build: plain values that decide every byte.
    """

    def __init__(self, folder: Path, build: Mapping[str, Any]) -> None:
        self.path = folder / JOURNAL
        self.shards: list[Shard] = []
        lines = _lines(self.path)
        if lines[:1] == [json.loads(json.dumps(build))]:
            self.shards = _undamaged(folder, [Shard(**line) for line in lines[1:]])
        self._rewrite(build)

    def _rewrite(self, build: Mapping[str, Any]) -> None:
        with self.path.open("w") as file:
            for line in (dict(build), *(vars(shard) for shard in self.shards)):
                file.write(json.dumps(line) + "\n")

    def add(self, shard: Shard) -> None:
        """Record a shard that is on the disk."""
        self.shards.append(shard)
        with self.path.open("a") as file:
            file.write(json.dumps(vars(shard)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def of(self, split: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]


def write_streams(
    folder: Path, documents: Mapping[str, Sequence[str]], tokenizer: Tokenizer, build: Mapping[str, Any]
) -> dict[str, int]:
    """Tokenise every split into the arrays of `TokenSplit`, and return the tokens of each.

    A build that was killed goes on behind the last shard that it recorded; the bytes at the end are the same.
    """
    journal = Journal(folder, build)
    kept = sum(shard.documents for shard in journal.shards)
    total = sum(map(len, documents.values()))
    if kept:
        size = sum(shard.size for shard in journal.shards)
        say(
            f"goes on where it was killed: {kept:,} of {total:,} documents ({size / 1e6:,.0f} MB) are tokenised already"
        )
    with measuring("tokenising", total, kept) as advance:
        return {split: _write_split(folder, split, documents[split], tokenizer, journal, advance) for split in SPLITS}


def _write_split(
    folder: Path, split: str, documents: Sequence[str], tokenizer: Tokenizer, journal: Journal, advance: Advance
) -> int:
    before = journal.of(split)
    with ExitStack() as files:
        arrays = {
            kind: files.enter_context(
                growing(folder / f"{split}.{kind}.npy", dtype, kept=sum(shard.sizes[kind] for shard in before))
            )
            for kind, dtype in dtypes_of(tokenizer).items()
        }

        def finish(shard: _Growing) -> None:
            for array in arrays.values():
                array.sync()
            journal.add(shard.finished())

        shard = _Growing(split)
        for piece in encode_pieces(documents[sum(done.documents for done in before) :], tokenizer):
            for kind, array in arrays.items():
                array.append(getattr(piece.stream, kind))
            shard.take(piece)
            advance(len(piece.stream.lengths), piece.size)
            if shard.size >= SHARD:
                finish(shard)
                shard = _Growing(split)
        if shard.documents:
            finish(shard)
        return arrays["tokens"].count


class _Growing:
    """A shard that is being written."""

    def __init__(self, split: str) -> None:
        self.split = split
        self.documents = self.size = 0
        self.sizes = dict.fromkeys(KINDS, 0)
        self.checksums = dict.fromkeys(KINDS, 0)

    def take(self, piece: Piece) -> None:
        self.documents += len(piece.stream.lengths)
        self.size += piece.size
        for kind in KINDS:
            content = getattr(piece.stream, kind).tobytes()
            self.sizes[kind] += len(content)
            self.checksums[kind] = zlib.crc32(content, self.checksums[kind])

    def finished(self) -> Shard:
        return Shard(self.split, self.documents, self.size, self.sizes, self.checksums)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal up to the first that is torn."""
    found: list[dict[str, Any]] = []
    try:
        for line in path.read_text().splitlines():
            found.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return found


def _undamaged(folder: Path, shards: list[Shard]) -> list[Shard]:
    """The shards up to the first whose bytes are not those that were recorded."""
    starts: dict[tuple[str, str], int] = {}
    for number, shard in enumerate(shards):
        for kind in KINDS:
            start = starts.get((shard.split, kind), 0)
            if checksum(folder / f"{shard.split}.{kind}.npy", start, shard.sizes[kind]) != shard.checksums[kind]:
                return shards[:number]
            starts[shard.split, kind] = start + shard.sizes[kind]
    return shards
