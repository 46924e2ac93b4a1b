"""The page of tokens, from scores whose differences are known."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from losslab.comparison.tokens.groups import KINDS, TokenGroup, TokenSummary, group_tables, kinds, over_seeds
from losslab.comparison.tokens.page import write_token_page
from losslab.comparison.tokens.text import marked, visible
from losslab.errors import UserError
from losslab.metrics.token_scores import TokenScores

NAMES = ("cross_entropy", "focal")
TEXTS = (b"<eot>", b"the", b" cat", b"s", b" ", b"\n", b"42", b".", b"<script>alert(1)</script>", b"\xc3", b" x-1")
END, THE, CAT, S, SPACE, NEWLINE, NUMBER, POINT, SCRIPT, BYTE, MIXED = range(len(TEXTS))
TRAIN = (9, 1000, 999, 10, 1, 0, 5, 99, 100, 2, 12_345)
SEEDS = 6


def make_scores(tokens: list[int], **changes: Any) -> TokenScores:
    """Every target has nll 2; each prediction is THE, CAT, S, SPACE, NEWLINE. Documents end at END."""
    count, width = len(tokens) - 1, min(4, len(tokens) - 1)
    ends = [i + 1 for i, token in enumerate(tokens) if token == END or i == count]
    values: dict[str, Any] = {
        "identity": "a",
        "step": 400,
        "layer": 2,
        "num_layers": 2,
        "end": END,
        "tokens": np.array(tokens, dtype=np.uint16),
        "documents": np.diff(ends, prepend=0),
        "position": 1 + np.arange(count, dtype=np.int32) % 4,
        "nll": np.full(count, 2, dtype=np.float32),
        "top_tokens": np.tile(np.arange(1, 6, dtype=np.uint16), (count, 1)),
        "top_probabilities": np.tile(np.array([0.5, 0.25, 0.125, 0.0625, 0.03125], dtype=np.float16), (count, 1)),
        "vocabulary": np.arange(len(TEXTS), dtype=np.uint16),
        "texts": TEXTS,
        "train_counts": np.array(TRAIN),
        "attention": np.tile(np.tril(np.ones((width, width))) / np.arange(1, width + 1)[:, None], (2, 1, 1)).astype(
            "f2"
        ),
    }
    return TokenScores(**values | changes)


@dataclass
class Page(HTMLParser):
    """Parts of a page that the tests look for."""

    path: Path
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """Class and text of each shaded token."""
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.inside = ""
        self.in_text = False
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.in_text = self.in_text or found.get("id") == "text"
        if tag == "i" and self.in_text:
            self.tokens.append((found["class"] or "", ""))
        self.inside = "data" if found.get("id") == "data" else tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.in_text = self.in_text and tag != "div"

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.data = json.loads(data)
        elif self.in_text and self.tokens:
            kind, text = self.tokens[-1]
            self.tokens[-1] = (kind, text + data)


Write = Callable[..., tuple[TokenSummary, Page]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the page of losses whose nll differ by these differences, [S, N]."""

    def run(
        tokens: list[int], differences: NDArray[Any], names: tuple[str, str] = NAMES, **changes: Any
    ) -> tuple[TokenSummary, Page]:
        first = make_scores(tokens, **changes)
        pairs = []
        for seed, row in enumerate(differences):
            pair = (tmp_path / f"a{seed}.npz", tmp_path / f"b{seed}.npz")
            first.write(pair[0])
            replace(first, nll=first.nll + row.astype(np.float32)).write(pair[1])
            pairs.append(pair)
        target = tmp_path / "page.html"
        seeds = list(range(1, len(differences) + 1))
        return write_token_page(pairs, seeds=seeds, names=names, target=target), Page(target)

    return run


def balanced(count: int, planted: list[int], effect: float) -> NDArray[np.float64]:
    """[6, N]: differences that are 0 on average over seeds, but for the planted ones."""
    noise = np.random.default_rng(0).normal(size=(SEEDS // 2, count))
    values = np.concatenate([noise, -noise])
    values[:, planted] = effect * (1 + 0.01 * values[:, planted])
    return values


def test_planted_differences_survive_and_others_do_not(write: Write) -> None:
    planted = [3, 50, 51, 199]
    differences = balanced(200, planted, 0.5)
    differences[:, 51] *= -1
    differences[:, 7] = [0.1, 0.3, 0.2, 0.5, 0.3, -0.1]  # p = 0.04: clear by itself, not among 200
    summary, page = write([THE] * 201, differences)
    assert [i for i, (kind, _) in enumerate(page.tokens) if "k" in kind.split()] == planted
    assert [page.tokens[i][0] for i in planted] == ["a k", "a k", "b k", "a k"], "a is better where b loses more"
    assert np.flatnonzero(page.data["state"]).tolist() == sorted([*planted, 7]) and page.data["state"][7] == 1
    assert (summary.shown, summary.clear, summary.surviving) == (200, 5, 4)
    assert page.data["mean"][51] == pytest.approx(-0.5, abs=1e-3)
    assert 5 <= len(summary.lines()) <= 8
    assert any("2.5%" in line and "2.0% survive" in line for line in summary.lines())


def test_the_statistics_are_scipy_s() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, size=(SEEDS, 50))
    values[:, 0], values[:, 1] = 0.0, 0.25
    found = over_seeds(values)
    expected = stats.ttest_1samp(values[:, 2:], 0.0)
    interval = expected.confidence_interval()
    np.testing.assert_allclose(found.p[2:], expected.pvalue)
    np.testing.assert_allclose((found.low[2:], found.high[2:]), (interval.low, interval.high))
    assert found.p[:2].tolist() == [1.0, 0.0]
    by_hand = np.zeros(50, dtype=bool)
    order = np.argsort(found.p)
    passing = np.flatnonzero(found.p[order] <= 0.1 * np.arange(1, 51) / 50)
    by_hand[order[: passing[-1] + 1]] = True
    assert found.surviving.tolist() == (by_hand & found.clear).tolist()


def test_one_seed_leaves_everything_pale_and_says_why(write: Write) -> None:
    summary, page = write([THE] * 41, balanced(40, [5], 0.5)[:1])
    assert not any("k" in kind.split() for kind, _ in page.tokens) and set(page.data["state"]) == {0}
    assert page.data["interval"] is None and math.isnan(summary.overall.low)
    text = page.path.read_text(encoding="utf-8")
    assert "With one seed all is pale" in text and re.search(r"\bnan\b", text, re.IGNORECASE) is None
    assert summary.surviving == 0 and 5 <= len(summary.lines()) <= 8
    assert any("one seed cannot say" in line for line in summary.lines())


def test_groups_are_means_over_seeds_of_means_over_tokens() -> None:
    tokens = [END, THE, S, CAT, POINT, NEWLINE, THE]
    differences = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 2.0, 1.0, 0.0, 5.0, 8.0]])
    by_count, by_position, by_kind = group_tables(differences, make_scores(tokens))

    def expected(label: str, count: int, first: float, second: float) -> TokenGroup:
        half = stats.t.ppf(0.975, 1) * abs(first - second) / 2
        mean = (first + second) / 2
        return TokenGroup(label, count, mean, pytest.approx(mean - half), pytest.approx(mean + half))  # type: ignore[arg-type]

    assert by_count.groups == (
        expected("0", 1, 5.0, 5.0),  # newline
        expected("10–99", 2, 3.0, 1.0),  # s, point
        expected("100–999", 1, 3.0, 1.0),  # cat
        expected("1,000–9,999", 2, 3.5, 5.5),  # the, the
    )
    assert by_position.groups == (
        expected("1", 2, 3.0, 4.0),
        expected("2–3", 3, 11 / 3, 11 / 3),
        expected("4", 1, 4.0, 0.0),
    )
    assert by_kind.groups == (
        expected("word start", 3, 10 / 3, 4.0),  # the, cat, the
        expected("inside a word", 1, 2.0, 2.0),  # s after the
        expected("punctuation", 1, 4.0, 0.0),
        expected("space or newline", 1, 5.0, 5.0),
    )


def test_each_token_has_a_kind() -> None:
    tokens = [END, S, S, CAT, S, SPACE, THE, NUMBER, S, BYTE, NEWLINE, MIXED, SCRIPT, END]
    names = [KINDS[kind] for kind in kinds(make_scores(tokens))]
    start, inside, number, _, space, other = KINDS
    assert names == [start, inside, start, inside, space, start, number, start, other, space, start, start, other]


def test_what_a_text_holds_cannot_act_on_the_page(write: Write) -> None:
    tokens = [THE, SCRIPT, BYTE, SPACE, NEWLINE, END, CAT]
    _, page = write(tokens, balanced(6, [], 0), names=("<b>A</b>", "</script><script>bad()"))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert page.tokens[0][1] == "<script>alert(1)</script>"
    assert [text for _, text in page.tokens[1:]] == ["⟨C3⟩", " ", "↵\n", "■\n\n", " cat"]
    assert page.data["names"] == ["<b>A</b>", "</script><script>bad()"]
    assert {"⟨C3⟩", "␣", "↵", "■", "␣cat"} <= set(page.data["words"])
    addresses = [value for _, found in page.tags for name, value in found.items() if name in ("src", "href")]
    text = page.path.read_text(encoding="utf-8")
    assert addresses == [] and "http" not in text and "url(" not in text and "@import" not in text


def test_controls_and_bytes_are_told_by_number() -> None:
    assert visible("a\u202eb\x00".encode()) == "a⟨U+202E⟩b⟨U+0000⟩"
    assert visible(b"\tx\xff ") == "⇥x⟨FF⟩␣"
    assert marked("é < \n".encode(), False) == "é<u> </u>&lt;<u> </u><b>↵</b>\n"


def test_predictions_are_means_over_seeds_or_bounds_of_them(write: Write, tmp_path: Path) -> None:
    write([THE, S, CAT], balanced(2, [], 0)[:2])
    scores = TokenScores.read(tmp_path / "a1.npz")
    top = scores.top_tokens.copy()
    top[0] = [S, THE, CAT, SPACE, MIXED]
    replace(scores, top_tokens=top).write(tmp_path / "a1.npz")
    pairs = [(tmp_path / f"a{k}.npz", tmp_path / f"b{k}.npz") for k in (0, 1)]
    write_token_page(pairs, seeds=[1, 2], names=NAMES, target=tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    words = page.data["words"]
    assert [[words[word], p, whole] for word, p, whole in page.data["top"][0][0]] == [
        ["the", 0.375, 1],
        ["s", 0.3125, 1],
        ["␣cat", 0.1875, 1],
        ["␣", 0.0625, 1],
        ["↵", 0.0156, 0],
    ]
    assert words[page.data["target"][0]] == "s"


def test_whole_documents_are_shown_where_they_end_near_1500_tokens(write: Write) -> None:
    document = [THE] * 699 + [END]
    _, page = write(document * 4, balanced(2799, [], 0))
    assert len(page.tokens) == 1399 and "the last document is cut" not in page.path.read_text(encoding="utf-8")
    _, page = write([THE] * 2800, balanced(2799, [], 0))
    assert len(page.tokens) == 1500 and "the last document is cut" in page.path.read_text(encoding="utf-8")


def test_the_same_scores_give_the_same_bytes(write: Write) -> None:
    once, again = (write([THE] * 41, balanced(40, [5], 0.5))[1].path.read_bytes() for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": np.array([THE, S, S], dtype=np.uint16)}, "not of the same test tokens"),
        ({"layer": 1}, "different layers or models"),
        ({"nll": np.array([1.0, np.nan], dtype=np.float32)}, "holds no scores of tokens"),
        ({"position": np.array([1], dtype=np.int32)}, "holds no scores of tokens"),
        ({"top_tokens": np.full((2, 5), 77, dtype=np.uint16)}, "vocabulary lacks tokens"),
        (None, "holds no scores of tokens"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    write: Write, tmp_path: Path, changes: dict[str, Any] | None, sentence: str
) -> None:
    write([THE, S, CAT], balanced(2, [], 0)[:2])
    path = tmp_path / "b1.npz"
    if changes is None:
        path.write_bytes(path.read_bytes()[:-40])
    else:
        replace(TokenScores.read(path), **changes).write(path)
    pairs = [(tmp_path / f"a{k}.npz", tmp_path / f"b{k}.npz") for k in (0, 1)]
    with pytest.raises(UserError, match=sentence) as error:
        write_token_page(pairs, seeds=[1, 2], names=NAMES, target=tmp_path / "page.html")
    assert "b1.npz" in str(error.value)


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no seed in common"):
        write_token_page([], seeds=[], names=NAMES, target=tmp_path / "page.html")
