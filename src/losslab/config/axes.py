"""The axes of a multirun: what is listed, what is walked together, and which choices of a group an axis applies to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.config.words import ZIP, bare, choice_label, is_group, split
from losslab.errors import UserError

Words = tuple[str, ...]
Value = tuple[tuple[str, Words], ...]
"""One point of an axis: each of its keys with the words that stand for its value there."""
Look = Callable[[Words], tuple[set[str], set[str]]]
"""Words that choose files of groups → the keys and the groups that a configuration then has."""
_SHOWN = 5


@dataclass(frozen=True)
class Axis:
    """A key with its values, or several that are walked together."""

    keys: Words
    values: list[Value]


@dataclass
class Axes:
    """All axes of a multirun, in the order in which they were typed; the last one varies fastest."""

    axes: list[Axis]
    notes: list[str] = field(default_factory=list)
    """Notes for the person before anything starts."""
    _without: dict[tuple[str, Words], set[Words]] = field(default_factory=dict)
    """A key and the groups that decide on it → the choices of those groups to which it does not apply."""

    def count(self) -> int:
        """The number of jobs. None is made."""
        deciding = {group for _, groups in self._without for group in groups}
        limited = {key for key, _ in self._without}
        apart = [axis for axis in self.axes if deciding.intersection(axis.keys)]
        others = [axis for axis in self.axes if axis not in apart]
        seen: set[Words] = set()
        total = 0
        for point in itertools.product(*(axis.values for axis in apart)):
            words = self._words(point, point)
            if words in seen:
                continue
            seen.add(words)
            total += math.prod(
                len({self._words([value], point) for value in axis.values})
                if limited.intersection(axis.keys)
                else len(axis.values)
                for axis in others
            )
        return total

    def jobs(self) -> Iterator[list[str]]:
        """The words of each job, each job once."""
        seen: set[Words] = set()
        for point in itertools.product(*(axis.values for axis in self.axes)):
            words = self._words(point, point)
            if words not in seen:
                if self._without:
                    seen.add(words)
                yield list(words)

    def _words(self, values: Sequence[Value], point: Sequence[Value]) -> Words:
        """The words of these values where they apply, `point` holding the choices of all groups that decide."""
        if not self._without:
            return tuple(word for value in values for _, words in value for word in words)
        chosen = {key: words for value in point for key, words in value}
        dropped = {
            key
            for (key, groups), choices in self._without.items()
            if tuple(word for group in groups for word in chosen.get(group, ())) in choices
        }
        return tuple(word for value in values for key, words in value if key not in dropped for word in words)


def make_axes(values: dict[str, list[Words]], zips: list[list[str]], base: Words, look: Look) -> Axes:
    """Put axes together.

    Args:
        values: key → the words that stand for each of its values.
        zips: the keys that each `zip=[…]` names.
        base: words that every look at the groups needs: the experiment's.

    Raises:
        UserError: for a `zip` that cannot be walked, and for keys that no listed choice has.
    """
    notes = []
    for key, own in values.items():
        once = list(dict.fromkeys(own))
        if len(once) < len(own) and not any(key in keys for keys in zips):
            twice = [choice_label(words) for words in once if own.count(words) > 1]
            notes.append(f"{key} lists {_listed(twice)} more than once; each run is trained once")
            values[key] = once
    axes = Axes(_zipped(values, zips), notes)
    for head in dict.fromkeys(_head(key) for key in values if is_group(key)):
        _limit(axes, head, values, base, look)
    return axes


def read_zip(word: str) -> list[list[str]]:
    """The keys of `zip=[loss,optimizer.lr]`, or of `zip=[[a,b],[c,d]]`. Raises UserError where there are none."""
    text = word.partition("=")[2].strip()
    if not (text.startswith("[") and text.endswith("]")):
        raise UserError(f"{word} cannot be read: write zip=[loss,optimizer.lr], the keys that are walked together")
    parts = split(text[1:-1])
    found = [split(part[1:-1]) for part in parts] if text.startswith("[[") else [parts]
    for keys in found:
        if len(keys) < 2 or not all(keys):
            raise UserError(f"{word} names {'one key' if any(keys) else 'no key'}: it takes two to walk together")
    return found


def _zipped(values: dict[str, list[Words]], zips: list[list[str]]) -> list[Axis]:
    partners: dict[str, list[str]] = {}
    for keys in zips:
        for key in keys:
            if key not in values:
                raise UserError(f"{ZIP} names {key!r}, which is no axis of this command: {nearest(key, values)}")
            if key in partners or keys.count(key) > 1:
                raise UserError(f"{ZIP} names {key} twice: an axis is walked together with one set of others")
        partners |= dict.fromkeys(keys, keys)
        lengths = [len(values[key]) for key in keys]
        if len(set(lengths)) > 1:
            told = " and ".join(
                f"{key} has {n} value{'s' if n > 1 else ''}" for key, n in zip(keys, lengths, strict=True)
            )
            raise UserError(f"{ZIP}=[{','.join(keys)}] walks axes of equal length together, and {told}")
    axes: list[Axis] = []
    for key in values:
        keys = partners.get(key, [key])
        if key == next(name for name in values if name in keys):  # where the first of them stands
            rows = zip(*(values[name] for name in keys), strict=True)
            points = [tuple(zip(keys, row, strict=True)) for row in rows]
            axes.append(Axis(tuple(keys), list(dict.fromkeys(points))))
    return axes


def _head(key: str) -> str:
    """The section in which a key stands, or the file that a group's key chooses: loss, of loss@loss.first too."""
    group, _, package = bare(key).partition("@")
    return (package or group).replace("/", ".").partition(".")[0]


def _limit(axes: Axes, head: str, values: dict[str, list[Words]], base: Words, look: Look) -> None:
    """Note which keys of a section apply to which choices of its groups."""
    groups = tuple(key for key in values if is_group(key) and _head(key) == head)
    if not any(len(values[key]) > 1 or len(words) > 1 for key in groups for words in values[key]):
        return
    keys = [key for key in values if key not in groups and _head(key) == head and not bare(key).endswith("_target_")]
    nested = [key for key in groups if bare(key) != head and not key.startswith("+")]
    if not keys and not (nested and len(values.get(head, ())) > 1):
        return
    with_groups = [axis for axis in axes.axes if set(groups).intersection(axis.keys)]
    points = {}
    for point in itertools.product(*(axis.values for axis in with_groups)):
        chosen = {key: words for value in point for key, words in value if key in groups}
        points[tuple(word for key in groups for word in chosen[key])] = chosen
    varying = [key for key in groups if len(values[key]) > 1] or list(groups)
    found = {point: _Choice.of(chosen, varying, nested, base, look) for point, chosen in points.items()}
    for key in nested:
        without = {point for point, choice in found.items() if bare(key) not in choice.groups}
        if without and len(without) < len(found):
            axes._without[key, (head,)] = {points[point][head] for point in without}
            names = {point: replace(choice, label=choice_label(points[point][head])) for point, choice in found.items()}
            axes.notes.append(_applies(key, len(values[key]) > 1, names, without, "choice", set()))
    for key in keys:
        if key.startswith("+"):
            _check_added(key, found)
            continue
        unknown = {point for point, choice in found.items() if bare(key) not in choice.keys}
        taken = {point for point, choice in found.items() if bare(key) in choice.settings}
        if len(unknown) == len(found):
            known = set().union(*(choice.keys for choice in found.values()))
            raise UserError(f"there is no key {bare(key)!r}: {nearest_key(bare(key), known)}")
        if taken and len(unknown | taken) == len(found):
            label = next(found[point].label for point in found if point in taken)
            raise UserError(f"{key} is set by {label} already, and nothing is left that it applies to: leave one out")
        if unknown or taken:
            axes._without[key, groups] = unknown | taken
            axes.notes.append(_applies(key, len(values[key]) > 1, found, unknown | taken, "key", taken))


@dataclass(frozen=True)
class _Choice:
    """Keys and groups that a choice of a section's groups brings along."""

    label: str
    keys: set[str]
    groups: set[str]
    settings: set[str]
    """The keys that the choice itself sets."""

    @classmethod
    def of(cls, chosen: dict[str, Words], varying: list[str], nested: list[str], base: Words, look: Look) -> _Choice:
        first = tuple(words[0] for key, words in chosen.items() if key not in nested)
        keys, groups = look((*base, *first))
        inner = tuple(chosen[key][0] for key in nested if bare(key) in groups)
        if inner:
            keys, groups = look((*base, *first, *inner))
        labels = [choice_label(chosen[key]) for key in varying if key not in nested or bare(key) in groups]
        settings = {bare(word.partition("=")[0]) for words in chosen.values() for word in words[1:]}
        return cls(" ".join(labels), keys, groups, settings)


def _check_added(key: str, found: dict[Words, _Choice]) -> None:
    """Refuse +KEY where some of the listed choices have that key already."""
    having = [choice.label for choice in found.values() if bare(key) in choice.keys]
    if having and len(having) < len(found) and not key.startswith("++"):
        names = _listed(list(dict.fromkeys(having)))
        raise UserError(
            f"{bare(key)} belongs to {names}, which is listed too: leave out the +, and it applies to {names} alone"
        )


def _applies(
    key: str, varies: bool, found: dict[Words, _Choice], without: set[Words], what: str, taken: set[Words]
) -> str:
    """`loss.gamma applies to focal; cross_entropy has no such key and runs once`."""
    having = dict.fromkeys(choice.label for point, choice in found.items() if point not in without)
    parts = [f"{bare(key)} applies to {_listed(list(having))}"]
    once = " and run{s} once" if varies else ""
    for points, verb in ((without - taken, f"ha{{ve}} no such {what}{once}"), (taken, f"set{{s}} it {{self}}{once}")):
        names = list(dict.fromkeys(found[point].label for point in found if point in points and found[point].label))
        names = [name for name in names if name not in having]
        if names:
            one = len(names) == 1
            said = verb.format(s="s" if one else "", ve="s" if one else "ve", self="itself" if one else "themselves")
            parts.append(f"{_listed(names)} {said}")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    if len(names) > _SHOWN:
        names = [*names[: _SHOWN - 1], f"{len(names) - _SHOWN + 1} others"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
