"""Differences between two losses token by token, and by kinds of tokens; what of them another seed would show again."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from losslab.comparison.simultaneous import LEVEL
from losslab.metrics.token_scores import TokenScores

FALSE_DISCOVERIES = 0.1
KINDS = ("word start", "inside a word", "number", "punctuation", "space or newline", "end of document, other")
_START, _INSIDE, _NUMBER, _PUNCTUATION, _SPACE, _OTHER = range(len(KINDS))


@dataclass(frozen=True)
class Differences:
    """B − A in nats of M tokens or groups: mean over seeds and paired-t 95% interval, which is NaN for one seed."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    """Two-sided paired t."""

    @property
    def clear(self) -> NDArray[np.bool_]:
        """Whether each interval leaves 0 out."""
        return self.p < LEVEL

    @property
    def surviving(self) -> NDArray[np.bool_]:
        """Whether each does so after all the others were looked at too (Benjamini & Hochberg 1995)."""
        if np.isnan(self.p).any():
            return np.zeros(len(self.p), dtype=bool)
        found: NDArray[np.bool_] = stats.false_discovery_control(self.p) <= FALSE_DISCOVERIES
        return found & self.clear

    @property
    def state(self) -> NDArray[np.int64]:
        """0 may be chance, 1 has an interval without 0, 2 survives."""
        return self.clear.astype(np.int64) + self.surviving


def over_seeds(values: NDArray[np.float64]) -> Differences:
    """Statistics of the columns of [S, M], one row a seed."""
    n, mean = len(values), values.mean(axis=0)
    if n < 2:
        nothing = np.full_like(mean, math.nan)
        return Differences(mean, nothing, nothing, nothing)
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    # The same difference in every seed: t is infinite, or 0 / 0, which says that there is none.
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, math.inf), where=error > 0)
    half = stats.t.ppf(1 - LEVEL / 2, n - 1) * error
    return Differences(mean, mean - half, mean + half, 2 * stats.t.sf(t, n - 1))


@dataclass(frozen=True)
class TokenGroup:
    """Tokens of one kind: B − A, nats per token. NaN is what one seed cannot say."""

    label: str
    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupTable:
    """All test tokens, sorted by one of their properties."""

    title: str
    groups: tuple[TokenGroup, ...]


@dataclass(frozen=True)
class TokenSummary:
    """The findings of the page."""

    names: tuple[str, str]
    seeds: tuple[int, ...]
    overall: TokenGroup
    """All test tokens: the difference of test/nll_scaled."""
    tables: tuple[GroupTable, ...]
    shown: int
    """Tokens that the page shows and tests one by one."""
    clear: int
    """The number of these whose own interval leaves 0 out."""
    surviving: int
    """The number of these that are left after Benjamini–Hochberg at 10%."""

    def lines(self) -> list[str]:
        """Lines for the console."""
        a, b = self.names
        total = self.overall
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        found = [
            f"{b} − {a}, test/nll_scaled in nats per token, {seeds}, {total.count:,} tokens (above 0: {a} is better)",
            f"all tokens: {difference_text(total)}",
        ]
        if len(self.seeds) < 2:
            found.append("one seed cannot say which differences would come again with another: train more")
        else:
            found.append(
                f"of {self.shown:,} tokens looked at one by one, {self.clear / self.shown:.1%} have an interval that "
                f"leaves 0 out (chance alone: {LEVEL:.0%}); {self.surviving / self.shown:.1%} survive "
                f"Benjamini–Hochberg at {FALSE_DISCOVERIES:.0%}"
            )
        for table in self.tables:
            sure = [group for group in table.groups if math.isnan(group.low) or group.low > 0 or group.high < 0]
            if sure:
                largest = max(sure, key=lambda group: abs(group.mean))
                among = f"largest for {largest.label} ({largest.count:,} tokens), {difference_text(largest)}"
            else:
                among = "no group whose interval leaves 0 out"
            found.append(f"{table.title}: {among}")
        return found


def difference_text(group: TokenGroup) -> str:
    """`+0.0123 [+0.0100, +0.0146]`, the interval where there is one."""
    interval = "" if math.isnan(group.low) else f" [{group.low:+.4f}, {group.high:+.4f}]"
    return f"{group.mean:+.4f}{interval}"


def overall(differences: NDArray[np.float64]) -> TokenGroup:
    """Summarise differences [S, N] over all N tokens."""
    (group,) = _groups(differences, np.zeros(differences.shape[1], dtype=np.int64), {0: "all tokens"})
    return group


def group_tables(differences: NDArray[np.float64], scores: TokenScores) -> tuple[GroupTable, ...]:
    """Differences [S, N] by how often train held the token, by its place in the window, and by kind.

    Args:
        scores: of any of the runs; all saw the same tokens.
    """
    counts = scores.train_counts[scores.rows(scores.tokens[1:])]
    decades = np.searchsorted(10 ** np.arange(19), counts, side="right")
    octaves = np.frexp(scores.position)[1] - 1
    return (
        GroupTable("by count in train", _groups(differences, decades, dict(enumerate(_decade_labels(decades.max()))))),
        GroupTable(
            "by tokens read before, in the window",
            _groups(differences, octaves, dict(enumerate(_octave_labels(octaves.max(), scores.position.max())))),
        ),
        GroupTable("by kind", _groups(differences, kinds(scores), dict(enumerate(KINDS)))),
    )


def kinds(scores: TokenScores) -> NDArray[np.int64]:
    """[N]: of each target, the index of its kind in KINDS.

    A word starts with letters after anything but a letter, and goes on with letters right after one. Digits without a
    letter are a number. The last kind has parts of characters, and what has no shape.
    """
    of_entry = np.array([_kind(text) for text in scores.texts])
    of_entry[scores.vocabulary == scores.end] = _OTHER
    ends_in_letter = np.array([_ends_in_letter(text) for text in scores.texts])
    starts_with_space = np.array([text[:1].isspace() for text in scores.texts])
    rows = scores.rows(scores.tokens)
    own, before = rows[1:], rows[:-1]
    found: NDArray[np.int64] = of_entry[own]
    found[(found == _START) & ends_in_letter[before] & ~starts_with_space[own]] = _INSIDE
    return found


def _kind(text: bytes) -> int:
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        return _OTHER
    if characters.isspace():
        return _SPACE
    categories = {unicodedata.category(character)[0] for character in characters if not character.isspace()}
    if "L" in categories:
        return _START
    if "N" in categories:
        return _NUMBER
    return _PUNCTUATION if categories & {"P", "S"} else _OTHER


def _ends_in_letter(text: bytes) -> bool:
    last = text.decode(errors="replace")[-1:]
    return bool(last) and unicodedata.category(last).startswith("L")


def _groups(
    differences: NDArray[np.float64], group: NDArray[np.int64], labels: dict[int, str]
) -> tuple[TokenGroup, ...]:
    """Groups that hold a token, in the order of `labels`: over seeds, each seed's mean over the group's tokens."""
    counts = np.bincount(group, minlength=len(labels))
    kept = np.flatnonzero(counts)
    sums = np.stack([np.bincount(group, weights=row, minlength=len(labels)) for row in differences])
    found = over_seeds(sums[:, kept] / counts[kept])
    return tuple(
        TokenGroup(labels[number], int(counts[number]), float(mean), float(low), float(high))
        for number, mean, low, high in zip(kept.tolist(), found.mean, found.low, found.high, strict=True)
    )


def _decade_labels(last: int) -> list[str]:
    return ["0", *(f"{10**k:,}–{10 ** (k + 1) - 1:,}" for k in range(last))]


def _octave_labels(last: int, longest: int) -> Sequence[str]:
    ends = [min(2 ** (k + 1) - 1, longest) for k in range(last + 1)]
    return [f"{2**k:,}" if end == 2**k else f"{2**k:,}–{end:,}" for k, end in enumerate(ends)]
