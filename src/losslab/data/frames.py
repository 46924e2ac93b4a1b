"""Rows of a table, of which one column names files of frames or of sound."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from losslab.choices import chosen
from losslab.contracts import Task
from losslab.data.cells import FRAMES, TEXT, characters_of
from losslab.data.frame_files import AUDIO_FILE, FrameReader
from losslab.data.row_files import FileRows, hash_files
from losslab.data.row_source import RowSource
from losslab.data.splits import SPLITS
from losslab.data.stamps import kept
from losslab.data.table_format import Row, Skipped
from losslab.data.tables import rows_of
from losslab.errors import UserError

_FORMAT = 1
_LONG, _SHORT = "utterances longer than data.context", "utterances too short for their text"


class FrameRows(RowSource):
    """The rows of data.path, each with the frames of the file that its column `frames` names, relative to the folder of
    the table (data.columns.frames=audio): an array float [T, F] (.npy), or sound (.wav, mono, 16-bit PCM).

    Sound becomes logarithms of the energy in bands of the mel scale (`losslab.data.log_mel`). All sound has one rate,
    and all frames have one F.

    Args:
        mels, window_ms, hop_ms, stack: see `FrameReader`.
        speaker: a column of the table, where it has one of that name: the rows of a speaker stay in one split, unless
            data.group names another column.
        unfit: what is done with rows that have more frames than data.context, and with those whose text needs more
            frames than there are: one a character, and one more between equal neighbours. skip: they are left out, and
            counted.

    Raises:
        UserError: for numbers that cannot be.
    """

    def __init__(
        self,
        *,
        mels: int = 40,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        stack: int = 3,
        speaker: str | None = "speaker",
        unfit: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.reader = FrameReader(mels=mels, window_ms=window_ms, hop_ms=hop_ms, stack=stack)
        self.speaker = speaker
        self.unfit = unfit
        self.names: Mapping[str, str] = {}
        self.context: int | None = None
        self.table: FileRows | None = None
        self._found = self.reader
        """With the rate and width of the files that were read."""

    def over(self, files: FileRows, names: Mapping[str, str], context: int) -> FrameRows:
        found = copy.copy(self)
        found.table, found.names, found.context = files, names, context
        return found

    @property
    def files(self) -> FileRows:
        assert self.table is not None, "over() comes first"
        return self.table

    @property
    def form(self) -> Any:
        """All that decides the rows beside the content of the files."""
        return self.files.form, self.reader, self.unfit, _FORMAT

    def check(self) -> None:
        self.files.check()

    def check_task(self, task: Task) -> None:
        if FRAMES not in task.columns:
            raise UserError(f"data=frames gives frames, and {chosen('task', task)} reads none: task=transcription does")

    def splits(self) -> tuple[str, ...]:
        return self.files.splits()

    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        return self.files.columns(split)

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        column, text = self._column(FRAMES), self._column(TEXT)
        for file in self.files.files[split]:
            for line, cells in rows_of(file, list(columns), self.files.form, skipped):
                place = f"{file}: {line}"
                if column in cells:
                    frames = self._read(place, column, cells[column], file.parent)
                    if (problem := self._unfit(frames, cells.get(text))) is not None:
                        what, told = problem
                        if self.unfit == "refuse":
                            raise UserError(f"{place}: {told}, or data.source.unfit=skip, which leaves such rows out")
                        skipped[what] += 1
                        continue
                    cells = {**cells, column: frames}
                yield place, cells

    def _column(self, name: str) -> str:
        return self.names.get(name, name)

    def _read(self, place: str, column: str, cell: Any, folder: Path) -> NDArray[np.float32]:
        if not isinstance(cell, str) or not cell.strip():
            raise UserError(f"{place}: its {column} must be the path of a file (.npy or .wav), not {cell!r}")
        path = folder / Path(cell.strip()).expanduser()
        try:
            frames, rate = self._found.read(path)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None
        if (rate is None) is not (self._found.rate is None) and self._found.width is not None:
            raise UserError(f"{place}: {path} is {'an array' if rate is None else 'sound'}, and others are not")
        self._found = replace(self._found, rate=rate, width=frames.shape[1])
        return self._found.stacked(frames)

    def _unfit(self, frames: NDArray[np.float32], text: Any) -> tuple[str, str] | None:
        """Name of a row that cannot be used, and the sentence about it; None for others."""
        assert self.context is not None
        if len(frames) > self.context:
            longer = f"it has {len(frames):,} frames of {self.reader.stack}, and data.context={self.context}"
            return _LONG, f"{longer}: give model.context={len(frames)}, a larger data.source.stack"
        characters = characters_of(text) if isinstance(text, str) else []
        needed = len(characters) + sum(a == b for a, b in pairwise(characters))
        if len(frames) < needed:
            shorter = f"it has {len(frames):,} frames of {self.reader.stack}, and its text needs {needed:,}"
            return _SHORT, f"{shorter} (one a character, one more between equal ones): give a smaller data.source.stack"
        return None

    def hashes(self, memory: Path | None) -> dict[str, str]:
        column, paths = self._column(FRAMES), list[Path]()
        for split in self.splits():
            for file in self.files.files[split]:
                for _, cells in rows_of(file, [column], self.files.form, Skipped()):
                    if isinstance(cells[column], str):  # others are refused when rows are read
                        paths.append(file.parent / Path(cells[column].strip()).expanduser())
        there = [path for path in dict.fromkeys(paths) if path.is_file()]
        found = kept(memory, there, ["frames", _FORMAT], lambda: {"sha256": hash_files(there)})
        return self.files.hashes(memory) | {"data.source.files": found["sha256"]}

    def artifacts(self) -> dict[str, str]:
        return {AUDIO_FILE: self._found.to_artifact()}

    def group(self) -> str | None:
        splits = self.splits()
        if self.speaker is None or len(splits) == len(SPLITS):
            return None
        there = all(self.speaker in columns for split in splits for _, columns in self.columns(split))
        return self.speaker if there else None

    def told(self) -> str:
        return f"{self.files.told()}, with a file of frames a row"
