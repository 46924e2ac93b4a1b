"""The seed of a run, together with those of single streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from losslab.config.streams import STREAMS, TWIN


class Seed(int):
    """A run's `seed`, a number. Where streams have seeds of their own (`seeds.data_order=7`), it equals only a seed
    with the same ones: `1 (data_order=7)`.

    Args:
        seed: the run's.
        own: stream → its own seed; null ones are left out.
    """

    own: tuple[tuple[str, int], ...]

    def __new__(cls, seed: int, own: Mapping[str, int | None] | None = None) -> Seed:
        new = super().__new__(cls, seed)
        given = own or {}
        new.own = tuple((name, value) for name in STREAMS if (value := given.get(name)) is not None)
        return new

    def of(self, stream: str) -> int:
        """The seed of a stream."""
        return dict(self.own).get(stream, int(self))

    def _key(self) -> tuple[int, tuple[tuple[str, int], ...]]:
        return int(self), self.own

    def __eq__(self, other: object) -> bool:
        return self._key() == _key_of(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._key()) if self.own else hash(int(self))

    def __lt__(self, other: int) -> bool:
        return self._key() < _key_of(other)

    def __gt__(self, other: int) -> bool:
        return self._key() > _key_of(other)

    def __str__(self) -> str:
        own = ", ".join(f"{name}={value}" for name, value in self.own)
        return f"{int(self)} ({own})" if own else str(int(self))


def _key_of(seed: Any) -> tuple[Any, tuple[tuple[str, int], ...]]:
    return seed._key() if isinstance(seed, Seed) else (seed, ())


def read_seeds(config: Mapping[str, Any]) -> tuple[Seed, int | None]:
    """The seed of a configuration, and the number of its twin; None for a run that is none."""
    return Seed(config["seed"], config["seeds"]), config["seeds"][TWIN]


def listed(seeds: Sequence[Seed]) -> str:
    """`1–6` for whole seeds without a gap, in ascending order; else each of them."""
    if len(seeds) > 2 and int(seeds[-1]) - int(seeds[0]) == len(seeds) - 1 and not any(seed.own for seed in seeds):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))
