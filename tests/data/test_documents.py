"""Texts become documents: at separators, at blank lines, by files, or in blocks."""

import random
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from held_texts import ListedCut as Cut
from held_texts import held, listed
from losslab.data import documents, stored_text
from losslab.data.documents import BLOCK, ENOUGH, compile_separator
from losslab.data.pieces import Documents
from losslab.data.stored_text import StoredText
from losslab.data.words import count_words
from losslab.errors import UserError


def cut_documents(texts: list[str], rule: str) -> list[str]:
    return list(Documents(documents.cut_documents(list(map(held, texts)), rule)))


def cut_texts(texts: list[str], rule: str, separator: str | None, **more: int) -> Cut:
    return listed(documents.cut_texts(list(map(held, texts)), rule, separator, **more))


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


STORIES = [f"Story {i}.\n\nIt has {i} parts.\n\nThe end of {i}." for i in range(30)]


@pytest.mark.parametrize("separator", ["<|endoftext|>", "<|end_of_text|>", "</s>"])
@pytest.mark.parametrize("files", [1, 3])
def test_known_separators_are_recognised(separator: str, files: int) -> None:
    share = len(STORIES) // files
    texts = [f"\n{separator}\n".join(STORIES[i : i + share]) for i in range(0, len(STORIES), share)]
    cut = cut_texts(texts, "auto", None)
    assert cut == Cut([STORIES[i : i + share] for i in range(0, len(STORIES), share)], True, f"cut at {separator}")
    assert cut_texts(texts, "blank_line", None).known is False


def test_separators_within_a_line_are_recognised_but_tags_are_not() -> None:
    assert cut_texts(["<|endoftext|>".join(STORIES)], "auto", None).pieces == STORIES
    assert cut_texts(["A <s>wrong</s> word.\n\n" * 40], "auto", None).how == "cut at blank lines"


def wiki(count: int) -> list[str]:
    """Articles as WikiText has them."""
    return [
        f" = Title = {i} = \n \n The first line . \n = = A section = = \n \n a = b = c \n = = = Deep = = = \n \n"
        for i in range(count)
    ]


@pytest.mark.parametrize("blank", ["", " \n"])
def test_wikitext_is_cut_at_its_titles_and_loses_nothing(blank: str) -> None:
    articles = wiki(ENOUGH)
    cut = cut_texts([blank + "".join(articles)], "auto", None)
    assert (cut.known, cut.how) == (True, "cut at ' = Title = ' lines")
    assert cut.pieces == [blank + articles[0], *articles[1:]]


def test_too_few_documents_are_cut_further_and_keep_apart() -> None:
    texts = ["\n<|endoftext|>\n".join(STORIES[: ENOUGH - 1])]
    cut = cut_texts(texts, "auto", None)
    assert cut.groups == [story.split("\n\n") for story in STORIES[: ENOUGH - 1]]
    assert not cut.known
    assert cut.how == f"{ENOUGH - 1} documents between <|endoftext|> are fewer than {ENOUGH}: each cut at blank lines"
    assert cut_texts(texts, "auto", None, enough=1).known


def test_one_file_of_many_that_speaks_of_a_separator_is_not_cut() -> None:
    texts = [*STORIES, "GPT-2 ends its documents with <|endoftext|>, as is well known."]
    assert cut_texts(texts, "auto", None).pieces == texts


@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("---", "a\n---\nb---c", ["a", "b", "c"]),
        (r"\n\n\n", "a\n\nb\n\n\nc", ["a\n\nb", "c"]),
        ("a.c", "xa.cyabcz", ["x", "yabcz"]),
        ("re:^Chapter \\d+$", "Chapter 1\none\nChapter 2\ntwo Chapter 3\n", ["one", "two Chapter 3"]),
        ("re:(?=^# )", "# a\ntext\n# b\n", ["# a\ntext", "# b"]),
        ("re:(x)|(y)", "1x2y3", ["1", "2", "3"]),
    ],
)
def test_a_separator_of_ones_own(separator: str, text: str, expected: list[str]) -> None:
    assert cut_texts([text, "no such thing"], "auto", separator) == Cut(
        [expected, ["no such thing"]], True, f"cut at {separator}"
    )


@pytest.mark.parametrize(
    ("separator", "reason"),
    [("", "is empty"), ("re:", "is empty"), ("re:(", "is no regular expression: missing"), ("re:[", "no regular")],
)
def test_a_separator_that_cannot_be_read_is_refused(separator: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        compile_separator(separator)


def test_a_separator_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match="### occurs nowhere"):
        cut_texts(["a", "b"], "auto", "###")


@pytest.mark.parametrize("rule", ["auto", "file", "blank_line", "block"])
@pytest.mark.parametrize("texts", [[paragraphs(30)] * 3, [paragraphs(3)] * 30, [paragraphs(3)]])
def test_without_separators_the_pieces_are_those_of_before(rule: str, texts: list[str]) -> None:
    assert cut_texts(texts, rule, None).pieces == cut_documents(texts, rule)


MARKS = ["a", "é", "🙂", " ", "\n", "\r\n", "\t", "\n\n", "\n \n", " \u2003", "x" * 50]
MARKS += ["<|endoftext|>", "</s>\n", "\n = T = \n", "--"]
OWN = ["--", r"re:^\s*x+|\n--"]


@pytest.mark.parametrize(
    ("rule", "separator"),
    [*((rule, None) for rule in ("auto", "blank_line", "block", "file")), *(("auto", own) for own in OWN)],
)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 120), window=st.integers(1, 60), block=st.integers(2, 30))
def test_a_text_that_is_read_in_windows_is_cut_as_at_once(
    rule: str, separator: str | None, seed: int, length: int, window: int, block: int
) -> None:
    random_source = random.Random(seed)
    texts = ["".join(random_source.choices(MARKS, k=length)) + "\n--" for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BLOCK", block)
        patch.setattr(documents, "ENOUGH", 3)
        at_once = cut_texts(texts, rule, separator, enough=3)
        patch.setattr(stored_text, "WINDOW", window)
        assert cut_texts(texts, rule, separator, enough=3) == at_once
        assert [held(text).count_words() for text in texts] == list(map(count_words, texts))


@pytest.mark.parametrize(("name", "line"), [("</s>", "</s>\n"), (documents.TITLES, "\n = T = \n")])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), window=st.integers(1, 60), size=st.integers(1, 9))
def test_few_long_parts_are_found_by_their_places_alone(
    name: str, line: str, seed: int, length: int, window: int, size: int
) -> None:
    text = "".join(random.Random(seed).choices([*MARKS, line, line], k=length))
    pattern, keep = re.compile(documents._KNOWN[name], re.MULTILINE), name == documents.TITLES
    cut = documents._part_cutter(pattern, keep=keep, lines=True)
    expected = [(start, stop) for start, stop, _ in held(text).pieces(cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_text, "WINDOW", window)
        patch.setattr(stored_text, "_CHARACTERS", size)
        parts = documents._parts(held(text), pattern, keep=keep)
        assert [(part.start, part.stop) for part in parts] == expected
        places = sorted(random.Random(seed).choices(range(len(text) + 1), k=5))
        assert stored_text.bytes_before(text, places) == {p: len(text[:p].encode()) for p in places}


def test_a_rare_separator_makes_no_text_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_text, "WINDOW", 2**14)
    path = tmp_path / "text.txt"
    half = "".join(f"{i} wörter 🙂\n\n" for i in range(30_000))
    path.write_text(f"{half}</s>\n{half}", encoding="utf-8")
    tracemalloc.start()
    try:
        cut = documents.cut_texts([StoredText(path, 0, path.stat().st_size)], "auto", None)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cut.pieces) == 60_000
    assert cut.how.startswith("2 documents between </s>")
    assert peak - kept < path.stat().st_size / 2
