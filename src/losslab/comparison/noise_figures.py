"""Noise of presets, as `scripts/benchmark noise` measured it: what `losslab plan` goes by before there is any run.

noise_figures.json, beside this file:

    command     what writes it
    figures     a list; each has the fields of `Figure`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from losslab.comparison.claim_cost import Deviation
from losslab.errors import UserError
from losslab.files import write_atomic

FILE = Path(__file__).with_name("noise_figures.json")
COMMAND = "scripts/benchmark noise"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The noise of one loss against a baseline under one preset."""

    preset: str
    """A name without spaces, for --preset."""
    words: list[str]
    """The words of `losslab train` that make the preset, without those of loss, seed and name."""
    loss: str
    """Its choice as `losslab train` takes it: `focal:gamma=1`."""
    baseline: str
    metric: str
    """With its split: test/nll_scaled."""
    unit: str
    margin: float
    """A difference below it counts as none."""
    seeds: int
    std: float
    """Standard deviation of the paired differences."""
    df: float
    """The degrees of freedom of `std`."""
    unpaired_std: float
    """The deviation of a run's value where the seeds of two losses have nothing in common: the root mean square of both
    losses."""
    seconds_a_run: float
    """Median wall seconds of a run, with `at_once` of them side by side."""
    at_once: float
    machine: str
    """In words, such as `2 cores, x86_64`."""
    written: str
    """The day, ISO 8601."""

    @property
    def deviation(self) -> Deviation:
        return Deviation(self.std, self.df)


def read_figures(path: Path = FILE) -> list[Figure]:
    """The figures; none where there is no file. Raises UserError for one that cannot be read."""
    try:
        return [_figure(one) for one in json.loads(path.read_text(encoding="utf-8"))["figures"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {COMMAND} writes it again") from None


def write_figures(measured: Sequence[Figure], path: Path = FILE) -> None:
    """Write them; those of presets that were not measured again stay."""
    presets = {one.preset for one in measured}
    kept = [one for one in read_figures(path) if one.preset not in presets]
    content = {"command": COMMAND, "figures": [asdict(one) for one in (*kept, *measured)]}
    write_atomic(path, json.dumps(content, indent=2).encode() + b"\n")


def figures_of(known: Sequence[Figure], *, preset: str | None = None, words: Sequence[str] = ()) -> list[Figure]:
    """The figures of a preset, by its name or by the words that make it; of several whose words were all typed, those
    of the one with the most."""
    if preset is not None:
        return [one for one in known if one.preset == preset]
    typed = set(words)
    fitting = [one for one in known if one.words and typed.issuperset(one.words)]
    most = max((len(one.words) for one in fitting), default=0)
    names = [one.preset for one in fitting if len(one.words) == most]
    return [one for one in fitting if one.preset in names[:1]]


def _figure(content: dict[str, Any]) -> Figure:
    kinds = {"words": list, "seeds": int} | dict.fromkeys(
        ("preset", "loss", "baseline", "metric", "unit", "machine", "written"), str
    )
    for name in (one.name for one in fields(Figure)):
        kind = kinds.get(name, int | float)
        if not isinstance(content[name], kind) or (kind not in (list, str) and not content[name] > 0):
            raise ValueError(f"{name} cannot be {content[name]!r}")
    return Figure(**content)
