"""Arrays of a text or of rows on their way to the disk: in shards, so that a build that was killed goes on."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from losslab.console import Advance, measuring, say
from losslab.data.encoding import KINDS, dtypes_of, encode_pieces
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
    """Or rows."""
    size: int
    """Bytes of its text."""
    sizes: dict[str, int]
    """Bytes by kind of array."""
    checksums: dict[str, int]
    """CRC-32 by kind of array."""
    longer: int = 0
    """Sequences that are longer than the context."""


@dataclass(frozen=True)
class Part:
    """Neighbouring documents or rows, encoded."""

    documents: int
    size: int
    arrays: Mapping[str, NDArray[Any]]
    longer: int = 0


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
    journal, dtypes = Journal(folder, build), dtypes_of(tokenizer)
    found = {}
    with tokenising(journal, sum(map(len, documents.values())), "documents") as advance:
        for split in SPLITS:
            texts = documents[split][sum(done.documents for done in journal.of(split)) :]
            found[split] = write_split(folder, split, _parts(texts, tokenizer), dtypes, journal, advance)["tokens"]
    return found


def _parts(documents: Sequence[str], tokenizer: Tokenizer) -> Iterator[Part]:
    for piece in encode_pieces(documents, tokenizer):
        arrays = {kind: getattr(piece.stream, kind) for kind in KINDS}
        yield Part(len(piece.stream.lengths), piece.size, arrays)


@contextmanager
def tokenising(journal: Journal, total: int, what: str) -> Iterator[Advance]:
    """Show how far a build is, and what it goes on from.

    Args:
        total: documents or rows of all splits, which `what` calls them.
    """
    kept = sum(shard.documents for shard in journal.shards)
    if kept:
        size = sum(shard.size for shard in journal.shards)
        say(f"goes on where it was killed: {kept:,} of {total:,} {what} ({size / 1e6:,.0f} MB) are tokenised already")
    with measuring("tokenising", total, kept) as advance:
        yield advance


def write_split(
    folder: Path, split: str, parts: Iterable[Part], dtypes: Mapping[str, Any], journal: Journal, advance: Advance
) -> dict[str, int]:
    """Append parts to the arrays of a split, shard by shard; the entries of each array.

    Args:
        parts: behind the shards that the journal has of this split.
        dtypes: the type of each kind of array.
    """
    before = journal.of(split)
    with ExitStack() as files:
        arrays = {
            kind: files.enter_context(
                growing(folder / f"{split}.{kind}.npy", dtype, kept=sum(shard.sizes[kind] for shard in before))
            )
            for kind, dtype in dtypes.items()
        }

        def finish(shard: Shard) -> None:
            for array in arrays.values():
                array.sync()
            journal.add(shard)

        shard = _nothing(split, dtypes)
        for part in parts:
            for kind, array in arrays.items():
                array.append(part.arrays[kind])
            shard = _with(shard, part)
            advance(part.documents, part.size)
            if shard.size >= SHARD:
                finish(shard)
                shard = _nothing(split, dtypes)
        if shard.documents:
            finish(shard)
        return {kind: array.count for kind, array in arrays.items()}


def _nothing(split: str, kinds: Iterable[str]) -> Shard:
    return Shard(split, 0, 0, dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0))


def _with(shard: Shard, part: Part) -> Shard:
    """The shard and one more part. Arrays have the types of their files."""
    contents = {kind: array.tobytes() for kind, array in part.arrays.items()}
    return Shard(
        shard.split,
        shard.documents + part.documents,
        shard.size + part.size,
        {kind: shard.sizes[kind] + len(content) for kind, content in contents.items()},
        {kind: zlib.crc32(content, shard.checksums[kind]) for kind, content in contents.items()},
        shard.longer + part.longer,
    )


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
        for kind in shard.sizes:
            start = starts.get((shard.split, kind), 0)
            if checksum(folder / f"{shard.split}.{kind}.npy", start, shard.sizes[kind]) != shard.checksums[kind]:
                return shards[:number]
            starts[shard.split, kind] = start + shard.sizes[kind]
    return shards
