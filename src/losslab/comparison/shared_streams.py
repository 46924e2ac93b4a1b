"""Caveats about pairs that share the seeds of some streams: their interval is not one over whole seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from losslab.comparison.rows import Row
from losslab.comparison.runs.seed import Seed
from losslab.config.streams import STREAMS


def stream_caveats(rows: Sequence[Row]) -> list[str]:
    """A sentence for each kind of sharing among the pairs of a row."""
    found: dict[str, list[str]] = {}
    for row in rows:
        seeds = [seed for seed in row.differences if isinstance(seed, Seed)]
        if len(seeds) > 1 and any(seed.own for seed in seeds):
            found.setdefault(_sharing(seeds), []).append(row.label)
    return [f"{', '.join(labels)}: {told}" for told, labels in found.items() if told]


def _sharing(seeds: Sequence[Seed]) -> str:
    """Empty where no two pairs have a stream's seed in common."""
    count = len(seeds)
    kinds = {stream: len({seed.of(stream) for seed in seeds}) for stream in STREAMS}
    varied = [stream for stream, number in kinds.items() if number == count]
    shared = {stream: number for stream, number in kinds.items() if number < count}
    if not shared:
        return ""
    by_number: dict[int, list[str]] = {}
    for stream, number in sorted(shared.items(), key=lambda item: item[1]):
        by_number.setdefault(number, []).append(stream)
    told = "; ".join(
        f"one seed of {_joined(own)} for all" if number == 1 else f"{number} seeds of {_joined(own)}"
        for number, own in by_number.items()
    )
    if not varied:
        return (
            f"its {count} pairs share seeds of every stream ({told}): they are not independent, and the interval is "
            "too short; whole seeds (seed=1,2,…) make independent pairs"
        )
    return (
        f"its {count} pairs differ in {_joined(varied)}, and share the rest ({told}): n counts pairs, and the interval "
        f"is over {_joined(varied)} only; whole seeds (seed=1,2,…) would vary more"
    )


def _joined(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
