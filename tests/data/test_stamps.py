"""Hashes of files, kept while the file system says that nothing was written to them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from losslab.data import stamps
from losslab.data.stamps import HASHES, kept


class Reader:
    """Reads files, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.folder.mkdir()
        self.files = [folder / name for name in ("a.txt", "b.txt")]
        for file in self.files:
            file.write_text(file.name)
        self.times = 0

    def __call__(self, about: Any = None, folder: Path | None = None) -> str:
        found: str = kept(folder or self.folder, self.files, about, self._find)["content"]
        return found

    def _find(self) -> dict[str, Any]:
        self.times += 1
        return {"content": " ".join(file.read_text() for file in self.files)}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader of files that need not have lain for seconds."""
    monkeypatch.setattr(stamps, "_SETTLED", 0)
    return Reader(tmp_path)


def test_files_are_read_once(reader: Reader) -> None:
    assert [reader(), reader(), reader()] == ["a.txt b.txt"] * 3
    assert reader.times == 1


def test_other_content_is_read_though_size_and_time_are_the_same(reader: Reader) -> None:
    assert reader() == "a.txt b.txt"
    before = reader.files[1].stat()
    reader.files[1].write_text("B.txt")
    os.utime(reader.files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = reader.files[1].stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert reader() == "a.txt B.txt"


def test_another_file_or_another_question_is_another_entry(reader: Reader, tmp_path: Path) -> None:
    reader()
    reader("otherwise")
    assert reader.times == 2
    (tmp_path / "c.txt").write_text("c")
    reader.files.append(tmp_path / "c.txt")
    assert reader() == "a.txt b.txt c"
    reader.files.pop()
    assert (reader(), reader.times) == ("a.txt b.txt", 3)


def test_what_was_just_written_is_read_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert [reader(), reader()] == ["a.txt b.txt"] * 2
    assert reader.times == 2 and not (reader.folder / HASHES).exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(reader: Reader) -> None:
    def find() -> dict[str, Any]:
        found = reader._find()
        reader.files[0].write_text("later")
        return found

    assert kept(reader.folder, reader.files, None, find) == {"content": "a.txt b.txt"}
    assert reader() == "later b.txt"


def test_nothing_is_written_where_there_is_no_folder(reader: Reader, tmp_path: Path) -> None:
    assert reader(folder=tmp_path / "none") == "a.txt b.txt"
    assert kept(None, reader.files, None, reader._find) == {"content": "a.txt b.txt"}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "7", "\x00\x00", "altered", "no check", "no dict"])
def test_damaged_entries_are_found_again(damage: str, reader: Reader) -> None:
    reader()
    path = reader.folder / HASHES
    entries = json.loads(path.read_text())
    (key,) = entries
    entries[key] = {
        "altered": entries[key] | {"found": {"content": "a.txt B.txt"}},
        "no check": {"found": {"content": "forged"}},
        "no dict": "a.txt b.txt",
    }.get(damage, entries[key])
    path.write_text(json.dumps(entries) if " " in damage or damage == "altered" else damage)
    assert (reader(), reader.times) == ("a.txt b.txt", 2)
    assert (reader(), reader.times) == ("a.txt b.txt", 2)


def test_the_oldest_entries_go(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MOST", 3)
    for about in range(5):
        reader(about)
    assert len(json.loads((reader.folder / HASHES).read_text())) == 3
    for about in (4, 3, 2):
        reader(about)
    assert reader.times == 5
    reader(0)
    assert reader.times == 6
