"""The search space of a multirun that a sampler walks, in Hydra's sweep syntax. No torch, no Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from losslab.config.axes import Words
from losslab.config.identity import NOT_IDENTITY
from losslab.config.nearest import nearest
from losslab.config.streams import SEEDS
from losslab.config.words import bare, is_group
from losslab.errors import UserError

LOG = "log"
_SEED = "seed"
_DIGITS = 4
"""Significant digits of a sampled number; of one without tag(log, …), digits of the interval's width."""
_MOST_VALUES = 100_000
Number = int | float


@dataclass(frozen=True)
class Dimension:
    """A key that is searched, and where."""

    key: str
    """As typed, with the sign that adds it."""
    text: str
    """Its values, as typed."""
    values: tuple[str, ...] = ()
    """Each value of a list or a range, as it stands behind the equals sign. Empty for an interval."""
    low: Number = 0
    """The smallest value, where these are numbers in order."""
    high: Number = 0
    step: Number | None = None
    """The distance of a range's values; None for an interval, and for a list."""
    log: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the values have no order."""
        return bool(self.values) and self.step is None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def samples(self) -> list[str]:
        """Values that show whether the key takes what may be drawn: every one of a list, the ends of all else, and a
        number between those of an interval."""
        if self.is_list:
            return list(self.values)
        if self.values:
            return list(dict.fromkeys((self.values[0], self.values[-1])))
        return [self.spell(self.low), self.spell(self.high), self.spell(self.low + (self.high - self.low) / math.pi)]

    def spell(self, value: Number | str) -> str:
        """A drawn value, as it stands behind the equals sign. Numbers of an interval are rounded."""
        if isinstance(value, str):
            return value
        if self.values:
            return min(self.values, key=lambda own: abs(float(own) - value))
        return str(self.rounded(value))

    def rounded(self, value: Number) -> Number:
        """A number of an interval with few digits, between its ends."""
        if self.is_whole:
            return min(max(round(value), self.low), self.high)
        size = abs(value) if self.log else self.high - self.low
        digits = _DIGITS - 1 - math.floor(math.log10(size)) if size else 0
        return min(max(round(float(value), digits), float(self.low)), float(self.high))


def read_dimension(override: Override) -> Dimension | None:
    """The dimension that an override searches; None for one value, and for a plain list of values, which is an axis.

    Raises:
        UserError: for a key that is no setting, and for values that cannot be drawn from.
    """
    if not override.is_sweep_override():
        return None
    sweep, key, word = override.value(), override.get_key_element(), str(override.input_line)
    if isinstance(sweep, ChoiceSweep) and sweep.simple_form and not sweep.shuffle:
        return None
    _check_key(key, word)
    text = word.partition("=")[2]
    tags: set[str] = getattr(sweep, "tags", set())
    for tag in sorted(tags - {LOG}):
        raise UserError(f"{word}: a search has no tag {tag!r}: {nearest(tag, [LOG])}")
    if getattr(sweep, "shuffle", False):
        raise UserError(f"{word}: a search has no order: leave out shuffle")
    log = LOG in tags
    if isinstance(sweep, IntervalSweep):
        return _interval(key, text, sweep, log)
    if isinstance(sweep, RangeSweep):
        return _range(key, text, override, log)
    if log:
        raise UserError(f"{word}: tag(log, …) is for interval(…) and range(…), whose values are numbers in order")
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    return Dimension(key, text, values)


def _check_key(key: str, word: str) -> None:
    name = bare(key)
    if is_group(key):
        raise UserError(f"{word}: {name} is no number to search for; list its choices with commas: each has its study")
    if name == _SEED or name.startswith(f"{SEEDS}."):
        raise UserError(f"{word}: a seed is nothing to choose; list seeds with commas: a trial is their mean")
    if name in NOT_IDENTITY and name != "trainer.max_tokens":
        raise UserError(f"{word}: no result depends on {name}, so that there is nothing to search for")


def _interval(key: str, text: str, sweep: IntervalSweep, log: bool) -> Dimension:
    low, high = sweep.start, sweep.end
    assert low is not None and high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{key}={text}: the start of an interval lies below its end, and both are finite")
    _check_log(key, text, low, log)
    return Dimension(key, text, low=low, high=high, log=log)


def _range(key: str, text: str, override: Override, log: bool) -> Dimension:
    values: list[str] = []
    for value in override.sweep_string_iterator():
        values.append(value)
        if len(values) > _MOST_VALUES:
            raise UserError(f"{key} has more than {_MOST_VALUES:,} values: write interval(…)")
    if len(values) < 2:
        return Dimension(key, text, tuple(values) or _nothing(key, text))
    whole = all(value.lstrip("-").isdigit() for value in values)
    numbers: list[Number] = sorted(int(value) if whole else float(value) for value in values)
    _check_log(key, text, numbers[0], log)
    step = int(numbers[1] - numbers[0]) if whole else float(abs(Decimal(values[1]) - Decimal(values[0])))
    if log and step != 1:
        raise UserError(f"{key}={text}: tag(log, …) of a range needs the step 1: write interval(…), or list choice(…)")
    return Dimension(key, text, tuple(values), numbers[0], numbers[-1], step, log)


def _nothing(key: str, text: str) -> tuple[str, ...]:
    raise UserError(f"{key}={text} is no value at all: there is nothing to search")


def _check_log(key: str, text: str, low: Number, log: bool) -> None:
    if log and low <= 0:
        raise UserError(f"{key}={text}: tag(log, …) needs a start above 0")


@dataclass(frozen=True)
class StudySpace:
    """One study: what is fixed in it, what is searched, and the seeds over which a trial is the mean."""

    fixed: Words
    dimensions: tuple[Dimension, ...]
    seeds: Words
    """Words that set the seed; one that is empty where none is typed."""

    def job(self, values: Sequence[str], seed: str) -> list[str]:
        """The overrides of a run.

        Args:
            values: one for each dimension, as it stands behind the equals sign.
        """
        found = zip(self.dimensions, values, strict=True)
        return [*self.fixed, *(f"{one.key}={value}" for one, value in found), *([seed] if seed else [])]

    def samples(self) -> list[list[str]]:
        """Overrides of runs that together show whether everything that may be drawn is right."""
        columns = [one.samples() for one in self.dimensions]
        longest = max(map(len, columns), default=1)
        rows = [[column[i % len(column)] for column in columns] for i in range(longest)]
        return [self.job(row, self.seeds[0]) for row in rows]


def with_hint(mistake: str, spaces: Sequence[StudySpace]) -> str:
    """A sentence on a sample, completed where an interval of numbers stands for whole ones."""
    for one in (one for space in spaces for one in space.dimensions):
        if bare(one.key) in mistake and "whole number" in mistake and not (one.values or one.is_whole):
            inner = one.text if one.text.startswith("interval") else f"interval({one.low:g},{one.high:g})"
            whole = f"int({inner})"
            return f"{mistake}; write {one.key}={f'tag(log, {whole})' if one.log else whole}"
    return mistake


def _check_streams(points: Sequence[Sequence[str]]) -> None:
    words = {word for point in points for word in point if bare(word).startswith(f"{SEEDS}.")}
    keys = [bare(word.partition("=")[0]) for word in sorted(words)]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"{twice}: a trial of a search is the mean over values of seed alone: give {twice} one value")


def make_studies(points: Sequence[Sequence[str]], dimensions: dict[str, Dimension]) -> list[StudySpace]:
    """Put the combinations of a multirun's axes, in which a searched key stands as it was typed, into studies."""
    _check_streams(points)
    seeds: dict[tuple[Words, Words], list[str]] = {}
    for point in points:
        keys = {word: word.partition("=")[0] for word in point}
        searched = tuple(word for word in point if keys[word] in dimensions)
        own = [word for word in point if bare(keys[word]) == _SEED]
        fixed = tuple(word for word in point if word not in searched and word not in own)
        seeds.setdefault((fixed, searched), []).append(own[0] if own else "")
    return [
        StudySpace(fixed, tuple(dimensions[word.partition("=")[0]] for word in searched), tuple(own))
        for (fixed, searched), own in seeds.items()
    ]
