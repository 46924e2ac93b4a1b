"""Rows are kept in a file until they are encoded: their memory, and builds that stop and go on."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losslab.data import row_writer, stored_rows, token_writer
from losslab.data.row_files import FileRows
from losslab.data.row_reading import Reading
from losslab.data.row_store import open_rows
from losslab.data.stored_rows import SplitRows, StoredRows

COLUMNS: dict[str, Any] = {"text": "text", "label": "label"}
SETTINGS: dict[str, Any] = {"kinds": COLUMNS, "vocab_size": 100, "context": 200}
MOST = 150
"""Bytes of memory for each row; 1,800 where rows were dicts of strings."""


@pytest.fixture
def small(monkeypatch) -> None:
    """Batches of about 1 KB, in shards of about 8 KB."""
    monkeypatch.setattr(stored_rows, "_AT_ONCE", 1000)
    monkeypatch.setattr(stored_rows, "_WINDOW", 4096)
    monkeypatch.setattr(token_writer, "SHARD", 8000)
    monkeypatch.setattr(row_writer, "SHARD", 8000)


def write(path: Path, count: int) -> FileRows:
    row = (json.dumps({"text": f"row {i} " + "word " * (i % 20), "label": "abc"[i % 3]}) for i in range(count))
    path.write_text("".join(f"{line}\n" for line in row))
    return FileRows(str(path))


def build(root: Path, source: FileRows) -> None:
    open_rows(root, SETTINGS, source, Reading(), COLUMNS, "bytes")


def built(root: Path, source: FileRows) -> dict[str, bytes]:
    """The files of a build."""
    build(root, source)
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "verified.json"}


def test_rows_are_read_in_any_part_and_batch(small, tmp_path) -> None:
    rows = [{"a": f"é{i}" * (i % 300), "b": [i / 8, float(i)], "c": ["x", "数"] * (i % 2)} for i in range(500)]
    stored = StoredRows(tmp_path, ["a", "b", "c"])
    for row in rows:
        stored.append(row)
    for numbers in (np.arange(500), np.arange(0, 500, 7), np.array([499]), np.empty(0, dtype=np.int64)):
        wanted = [rows[i] for i in numbers]
        split = SplitRows(stored, numbers)
        assert list(split) == wanted and len(split) == len(wanted)
        assert list(split.texts(["a"])) == [row["a"] for row in wanted]
        for first in (0, 3):
            batches = list(split.batches(first))
            assert [row for batch, _ in batches for row in batch] == wanted[first:]
        assert sum(size for _, size in split.batches()) == split.size
    assert not list(tmp_path.iterdir()), "a file without a name"


def test_a_row_takes_little_memory(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.store.checksum", lambda _: 0)  # it reads a file in parts of 4 MB
    build(tmp_path / "first", write(tmp_path / "a.jsonl", 100))  # which imports what it needs
    peaks = {}
    for count in (1000, 4000):
        source = write(tmp_path / f"{count}.jsonl", count)
        tracemalloc.start()
        build(tmp_path / f"{count}", source)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (peaks[4000] - peaks[1000]) / 3000 < MOST


def test_a_build_that_stops_goes_on_to_the_same_bytes(small, tmp_path, monkeypatch, capsys) -> None:
    source = write(tmp_path / "a.jsonl", 900)
    whole = built(tmp_path / "whole", source)
    add = token_writer.Journal.add

    def stopping(journal: token_writer.Journal, shard: token_writer.Shard) -> None:
        if len(journal.shards) == number:
            raise KeyboardInterrupt
        add(journal, shard)

    for number in (0, 2, 6, 7):  # in train, at val and at test
        root = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(token_writer.Journal, "add", stopping)
            with pytest.raises(KeyboardInterrupt):
                build(root, source)
        capsys.readouterr()
        assert built(root, source) == whole
        told = capsys.readouterr().out
        assert ("goes on where it was killed: " in told and " of 900 rows " in told) == (number > 0)
