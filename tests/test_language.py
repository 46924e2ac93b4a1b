"""The language of DESIGN.md, as far as a program can check it: no fragments, and none of the words that nobody says."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CODE = sorted(path for folder in ("src", "tests", "scripts") for path in (CHECKOUT / folder).rglob("*.py"))
PAGES = sorted([*(CHECKOUT / "docs").rglob("*.md"), *CHECKOUT.glob("*.md"), *(CHECKOUT / "conf").rglob("*.yaml")])
FRAGMENT = re.compile(r"(Of|What)\b")
UNUSUAL = {
    "instead of": "in place of",
    "again": "anew",
    "more costly": "dearer",
    "metric": "yardsticks?",
}
"""Words to write, and patterns of those that they replace."""
OLD_NAMES = {
    "CHANGELOG.md",
    "src/losslab/migrations.py",
    "tests/comparison/test_evaluations.py",
    "tests/comparison/test_load.py",
    "tests/test_metric_declarations.py",
    "tests/test_records.py",
}
"""Files that read records of earlier versions, or tell of them."""


def find_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, those of attributes too, and of each comment."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def find_fragments(source: str) -> list[int]:
    return [line for line, text in find_texts(source) if FRAGMENT.match(text)]


def find_unusual(text: str, *, old_names: bool = False) -> list[str]:
    """A hint for each unusual word, in whichever line breaks it has."""
    patterns = {word: pattern for word, pattern in UNUSUAL.items() if not (old_names and word == "metric")}
    flat = " ".join(text.split())
    return [
        f"write {word!r}, not {found[0]!r}"
        for word, pattern in patterns.items()
        for found in re.finditer(rf"\b{pattern}\b", flat, re.IGNORECASE)
    ]


def test_docstrings_and_comments_are_no_fragments() -> None:
    assert len(CODE) > 300
    found = {str(path.relative_to(CHECKOUT)): find_fragments(path.read_text(encoding="utf-8")) for path in CODE}
    assert {path: lines for path, lines in found.items() if lines} == {}, "begin with a noun or an imperative verb"


def test_words_are_those_that_people_write() -> None:
    assert len(PAGES) > 30
    found = {}
    for path in [*CODE, *PAGES]:
        place = path.relative_to(CHECKOUT).as_posix()
        if path != Path(__file__):
            found[place] = find_unusual(path.read_text(encoding="utf-8"), old_names=place in OLD_NAMES)
    assert {place: hints for place, hints in found.items() if hints} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""What a run holds."""', [1]),
        ('"""The content of a run."""', []),
        ('SHARE = 1\n"""Of the documents."""', [2]),
        ("x = 1  # Of the other kind", [1]),
        ('def f():\n    """\n    What it returns."""', [2]),
        ('print("What now?")', []),
        ('"""Whatever, and Often."""', []),
    ],
)
def test_a_fragment_is_found_wherever_it_stands(source: str, lines: list[int]) -> None:
    assert find_fragments(source) == lines


def test_an_unusual_word_is_found_across_lines() -> None:
    assert find_unusual("one in place\n    of the other") == ["write 'instead of', not 'in place of'"]
    assert find_unusual("Yardsticks", old_names=True) == []
    assert len(find_unusual("Anew, a dearer yardstick.")) == 3
