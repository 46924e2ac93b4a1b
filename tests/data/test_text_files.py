"""A person's own text: found and read as UTF-8, or refused in a sentence that names the path."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from losslab.data import text_files
from losslab.data.sources import TextSource
from losslab.data.text_files import Spool, find_files
from losslab.errors import UserError

TEXT = "naïve 模型 🙂\r\nsecond line\n"


def read_file(path: Path) -> str:
    return text_files.read_file(path, Spool()).text.read()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def library(tmp_path) -> Path:
    """A folder with text, other files and hidden ones."""
    for name in ("b.txt", "a.md", "deep/er/c.txt", "x.py", ".hidden.txt", ".git/d.txt", "deep/.cache/e.md"):
        write(tmp_path / name, name.encode())
    write(tmp_path / "z.gz", gzip.compress(b"z.gz", mtime=0))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a.md", "b.txt", "deep/er/c.txt", "z.gz"]),
        ("deep", ["deep/er/c.txt"]),
        ("b.txt", ["b.txt"]),
        ("x.py", ["x.py"]),
        ("*.txt", ["b.txt"]),
        ("?.*", ["a.md", "b.txt", "x.py", "z.gz"]),
        ("**/c.txt", ["deep/er/c.txt"]),
        ("deep*", None),
        ("*.rst", None),
    ],
)
def test_find_files_takes_a_file_a_folder_or_a_glob(path: str, found: list[str] | None, library) -> None:
    if found is None:
        with pytest.raises(UserError, match="does not exist"):
            find_files(str(library / path))
    else:
        assert [p.relative_to(library).as_posix() for p in find_files(str(library / path)).files] == found


def test_find_files_knows_the_home_folder(library, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(library))
    assert find_files("~/b.txt").files == [library / "b.txt"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.txt", TEXT.encode()),
        ("with_a_bom.txt", b"\xef\xbb\xbf" + TEXT.encode()),
        ("packed.txt.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("packed_with_a_bom.gz", gzip.compress(b"\xef\xbb\xbf" + TEXT.encode(), mtime=0)),
    ],
)
def test_read_file_gives_the_text_as_it_is(name: str, content: bytes, tmp_path) -> None:
    assert read_file(write(tmp_path / name, content)) == TEXT


@pytest.mark.parametrize(
    ("files", "asked", "reason"),
    [
        ({}, "nowhere.txt", "does not exist"),
        ({}, "no/where", "does not exist"),
        ({"empty.txt": b""}, "empty.txt", "empty"),
        ({"blank.txt": b" \n\t\n"}, "blank.txt", "empty"),
        ({"bom.txt": b"\xef\xbb\xbf"}, "bom.txt", "empty"),
        ({"folder/a.txt": b"", "folder/b.md": b"\n"}, "folder", "empty"),
        ({"folder/picture.png": b"x"}, "folder", "without .txt, .md, .tokens, .gz files: it holds 1 .png"),
        ({"latin.txt": "naïve".encode("latin-1")}, "latin.txt", "not UTF-8 text: byte 2"),
        ({"utf16.txt": "text".encode("utf-16")}, "utf16.txt", "not UTF-8 text"),
        ({"picture.gz": gzip.compress(b"\x89PNG\xff", mtime=0)}, "picture.gz", "not UTF-8 text"),
        ({"utf16.txt": "text of words".encode("utf-16")}, "utf16.txt", "it looks like UTF-16"),
        ({"utf16.txt": "text of words".encode("utf-16-le")}, "utf16.txt", "13 of its characters are zeros"),
        ({"packed.txt": gzip.compress(b"text", mtime=0)}, "packed.txt", "give it a name that ends in .gz"),
        ({"table.txt": b"PK\x03\x04\xff"}, "table.txt", "it is a zip archive"),
        ({"cut.gz": gzip.compress(b"text" * 100, mtime=0)[:-9]}, "cut.gz", "cannot be read"),
        ({"false.gz": b"not packed"}, "false.gz", "cannot be read"),
        ({"broken.gz": gzip.compress(b"text" * 100, mtime=0)[:12] + b"\xff" * 30}, "broken.gz", "cannot be read"),
    ],
)
def test_unreadable_text_is_refused_by_its_path(files: dict[str, bytes], asked: str, reason: str, tmp_path) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        TextSource(str(tmp_path / asked)).read()
    assert str(tmp_path / asked) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_bad_file_in_a_folder_is_the_one_that_is_named(library) -> None:
    bad = write(library / "deep" / "bad.txt", b"\xff")
    with pytest.raises(UserError, match=str(bad)):
        TextSource(str(library)).read()


def left_out(path: Path | str) -> dict[str, int]:
    return dict(find_files(str(path)).left_out)


def test_a_suffix_counts_in_upper_case_too(library) -> None:
    write(library / "Z.TXT", b"Z.TXT")
    write(library / "Y.Md", b"Y.Md")
    write(library / "X.TXT.GZ", gzip.compress(b"X", mtime=0))
    read = TextSource(str(library)).read()
    assert [text.read() for text in read.texts["all"]] == [
        "X",
        "Y.Md",
        "Z.TXT",
        "a.md",
        "b.txt",
        "deep/er/c.txt",
        "z.gz",
    ]


@pytest.mark.parametrize("pattern", ["", "**/*", "**"], ids=["folder", "glob", "glob of everything"])
def test_what_is_left_out_is_counted_with_its_reason(pattern: str, library) -> None:
    for name in ("a.jsonl", "b.JSONL", "c.csv", "d.parquet", "e.zip", "f.tar.gz", "g.jsonl.gz", "h.pdf", "i.tgz"):
        write(library / "deep" / name, b"x")
    reasons = {".jsonl (structured)": 2, ".csv (structured)": 1, ".parquet (structured)": 1, ".zip (archive)": 1}
    reasons |= {".tar.gz (archive)": 1, ".jsonl.gz (structured)": 1, ".pdf (formatted)": 1, ".tgz (archive)": 1}
    if pattern == "":
        reasons |= {"hidden": 3, ".py": 1}
    assert left_out(library / pattern if pattern else library) == reasons


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("a.jsonl", "write its column of text to a .txt file"),
        ("a.CSV", "write its column of text"),
        ("a.tsv", "write its column of text"),
        ("a.json", "write its column of text"),
        ("a.parquet", "write its column of text"),
        ("a.jsonl.gz", "write its column of text"),
        ("a.tar.gz", "unpack it"),
        ("a.tgz", "unpack it"),
        ("a.zip", "unpack it"),
        ("a.docx", "convert it to .txt"),
    ],
)
@pytest.mark.parametrize("how", ["named", "alone in its folder", "by a glob"])
def test_archives_and_structured_files_are_refused_with_the_way_out(
    name: str, way_out: str, how: str, tmp_path
) -> None:
    path = write(tmp_path / "folder" / name, b'{"text": "a line"}\n' * 99)
    asked = {"named": path, "alone in its folder": path.parent, "by a glob": path.parent / "*"}[how]
    with pytest.raises(UserError, match=way_out) as caught:
        find_files(str(asked))
    assert str(asked) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_under_the_name_of_a_text_is_refused(tmp_path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"text"))
    with pytest.raises(UserError, match="is an archive: unpack it"):
        read_file(write(tmp_path / "texts.gz", content.getvalue()))


@pytest.mark.parametrize("pattern", ["", "**/*.txt"], ids=["folder", "glob"])
def test_linked_folders_and_files_are_followed_and_taken_once(pattern: str, tmp_path) -> None:
    write(tmp_path / "elsewhere" / "far.txt", b"far")
    write(tmp_path / "library" / "near.txt", b"near")
    (tmp_path / "library" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "library" / "again.txt").symlink_to(tmp_path / "library" / "near.txt")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "library", target_is_directory=True)
    (tmp_path / "library" / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    found = find_files(f"{tmp_path}/library/{pattern}")
    assert sorted(path.read_text() for path in found.files) == ["far", "near"]
    assert found.left_out["broken link"] >= 1
    assert found.left_out["second link to the same file"] >= 1


def test_a_stray_zero_is_no_binary_file(tmp_path) -> None:
    assert read_file(write(tmp_path / "a.txt", b"word " * 999 + b"\0")).count("\0") == 1
