"""A person's own text: found, read as UTF-8, cut into documents, or refused in a sentence that names the path."""

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.data.sources import BLOCK, ENOUGH, cut_documents, find_files, hash_texts, read_file, read_texts
from losslab.errors import UserError

TEXT = "naïve 模型 🙂\r\nsecond line\n"


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
        assert [p.relative_to(library).as_posix() for p in find_files(str(library / path))] == found


def test_find_files_knows_the_home_folder(library, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(library))
    assert find_files("~/b.txt") == [library / "b.txt"]


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
        ({"folder/picture.png": b"x"}, "folder", "without .txt, .md, .gz files"),
        ({"latin.txt": "naïve".encode("latin-1")}, "latin.txt", "not UTF-8 text: byte 2"),
        ({"utf16.txt": "text".encode("utf-16")}, "utf16.txt", "not UTF-8 text"),
        ({"picture.gz": gzip.compress(b"\x89PNG\xff", mtime=0)}, "picture.gz", "not UTF-8 text"),
        ({"cut.gz": gzip.compress(b"text" * 100, mtime=0)[:-9]}, "cut.gz", "cannot be read"),
        ({"false.gz": b"not packed"}, "false.gz", "cannot be read"),
        ({"broken.gz": gzip.compress(b"text" * 100, mtime=0)[:12] + b"\xff" * 30}, "broken.gz", "cannot be read"),
    ],
)
def test_unreadable_text_is_refused_by_its_path(files: dict[str, bytes], asked: str, reason: str, tmp_path) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_texts(str(tmp_path / asked))
    assert str(tmp_path / asked) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_bad_file_in_a_folder_is_the_one_that_is_named(library) -> None:
    bad = write(library / "deep" / "bad.txt", b"\xff")
    with pytest.raises(UserError, match=str(bad)):
        read_texts(str(library))


def test_empty_files_beside_full_ones_are_left_out(library) -> None:
    write(library / "empty.txt", b"\n")
    assert read_texts(str(library)) == ["a.md", "b.txt", "deep/er/c.txt", "z.gz"]


def test_the_hash_is_of_the_content_and_its_division() -> None:
    assert hash_texts(["ab", "c"]) == hash_texts(["ab", "c"])
    others = [["a", "bc"], ["abc"], ["ab", "c", ""], ["ab", "d"], ["ab"]]
    assert len({hash_texts(texts) for texts in [["ab", "c"], *others]}) == 6


def test_the_hash_does_not_depend_on_names_or_packing(tmp_path) -> None:
    for folder, names in (("one", ("a.txt", "b.txt")), ("two", ("x.md", "y.txt.gz"))):
        for name, content in zip(names, (b"first", b"second"), strict=True):
            write(tmp_path / folder / name, gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    assert hash_texts(read_texts(str(tmp_path / "one"))) == hash_texts(read_texts(str(tmp_path / "two")))


def paragraphs(count: int, size: int = 10) -> str:
    return "\n\n".join(f"{i} " + "word " * size for i in range(count))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([paragraphs(30)] * ENOUGH, [paragraphs(30)] * ENOUGH, id="enough files"),
        pytest.param([paragraphs(2)] * (ENOUGH - 1), paragraphs(2).split("\n\n") * (ENOUGH - 1), id="enough blocks"),
        pytest.param([paragraphs(ENOUGH)], paragraphs(ENOUGH).split("\n\n"), id="just enough blocks"),
        pytest.param([paragraphs(ENOUGH - 1)], [paragraphs(ENOUGH - 1)], id="too few blocks"),
    ],
)
def test_auto_takes_files_then_blank_lines_then_blocks(texts: list[str], expected: list[str]) -> None:
    assert cut_documents(texts, "auto") == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("file", ["a\n\nb", "c"]), ("blank_line", ["a", "b", "c"]), ("block", ["a\n\nb", "c"])],
)
def test_a_rule_that_is_named_is_kept_however_few_it_finds(rule: str, expected: list[str]) -> None:
    assert cut_documents(["a\n\nb", "c"], rule) == expected


@pytest.mark.parametrize("gap", ["\n\n", "\r\n\r\n", "\n \t\n", "\n\n\n\n", "\n\r\n  \n"])
def test_a_line_of_white_space_is_a_blank_line(gap: str) -> None:
    assert cut_documents([f"one\nline{gap}two{gap}"], "blank_line") == ["one\nline", "two"]


def check_blocks(text: str) -> list[str]:
    """Blocks lie in the text one after the other, with nothing but white space left out between them."""
    blocks = cut_documents([text], "block")
    position = 0
    for block in blocks:
        start = text.index(block, position)
        assert text[position:start].strip() == ""
        position = start + len(block)
        assert len(block) <= BLOCK
        assert block.strip()
    assert text[position:].strip() == ""
    return blocks


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(0, 20_000), st.sampled_from(["ab \n", "a", " \n\t", "ab" * 200 + "\n", "é模🙂 "])
)
def test_blocks_lose_nothing(seed: int, length: int, alphabet: str) -> None:
    check_blocks("".join(random.Random(seed).choices(alphabet, k=length)))


@pytest.mark.parametrize(
    ("text", "ending"),
    [("words and words\n" * 2000, "\n"), ("words and words " * 2000, " "), ("x" * 20_000, "x")],
    ids=["lines", "words", "neither"],
)
def test_blocks_end_at_a_line_or_else_at_a_word(text: str, ending: str) -> None:
    blocks = check_blocks(text)
    assert "".join(blocks) == text
    assert {block[-1] for block in blocks} == {ending}
    assert all(len(block) > BLOCK // 2 for block in blocks[:-1])


@pytest.mark.parametrize("line", ["w" * 3000 + "\n", "short line\n"], ids=["in the second half", "too early"])
def test_a_block_prefers_the_end_of_a_line_in_its_second_half(line: str) -> None:
    first = check_blocks(line + "word " * 1000)[0]
    assert (first == line) == (len(line) > BLOCK // 2)
    assert len(first) > BLOCK // 2
