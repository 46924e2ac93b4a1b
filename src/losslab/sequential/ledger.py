"""The file of a sweep that adds seeds until it can decide: its rule, fixed before the first result, and the runs that
belong to it. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.records import DONE
from losslab.run_folder import SEQUENTIAL, RunFolder, runs_of_sweep
from losslab.sequential.prefix import Ended, Standing, standing
from losslab.sequential.rule import Rule

VERSION = 1
_TYPES: dict[str, type | tuple[type, ...]] = {
    "metric": str,
    "higher_is_better": bool,
    "margin": (int, float),
    "level": (int, float),
    "max_seeds": int,
    "first_seed": int,
    "baseline": str,
    "losses": dict,
    "threads": int,
    "runs": dict,
}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of a sequential sweep, which hold from its first run to its last."""

    metric: str
    """Metric by which losses are judged, at the best checkpoint: `test/nll_scaled`."""
    higher_is_better: bool
    margin: float
    """Difference below which two losses count as equal, in the metric's unit."""
    level: float
    """Error rate of the whole table."""
    max_seeds: int
    first_seed: int
    baseline: str
    """The label of one of the losses."""
    losses: dict[str, dict[str, Any]]
    """Label → dotted key → value of what decides its runs' results, without the seed; in their order."""
    threads: int
    """Threads of each process of a run, which decide the last bits of a result."""

    @property
    def compared(self) -> list[str]:
        """Labels of the losses beside the baseline."""
        return [label for label in self.losses if label != self.baseline]

    @property
    def rule(self) -> Rule:
        return _rule(self.margin, self.max_seeds, len(self.compared), self.level)

    def differences(self, other: Terms) -> Iterator[tuple[str, Any, Any]]:
        """Words, earlier and present value of each term in which a later command differs."""
        words = {"margin": "decide", "first_seed": "the first seed", "metric": "the metric", "level": "the level"}
        for key in ("metric", "margin", "max_seeds", "first_seed", "level"):
            yield words.get(key, key), getattr(self, key), getattr(other, key)
        yield "the losses", ", ".join(sorted(self.losses)), ", ".join(sorted(other.losses))
        yield "baseline", self.baseline, other.baseline
        for label in self.losses:
            own, present = self.losses[label], other.losses.get(label, {})
            for key in sorted(own.keys() | present.keys()):
                yield f"{key} of {label}", own.get(key, "nothing"), present.get(key, "nothing")


@dataclass
class Ledger:
    """A sweep's folder, its terms, and its runs."""

    folder: Path
    terms: Terms
    runs: dict[str, dict[int, str]] = field(default_factory=dict)
    """Label → seed → name of the run's folder."""

    @classmethod
    def read(cls, folder: Path) -> Ledger | None:
        """The ledger of a sweep's folder; None where it has none.

        Raises:
            UserError: where it cannot be read.
        """
        path = folder / SEQUENTIAL
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] > VERSION:
                raise UserError(f"{path} has version {content['version']}, and this losslab reads up to {VERSION}")
            if not all(isinstance(content[key], kind) for key, kind in _TYPES.items()):
                raise ValueError("a key holds something else than it must")
            runs = {
                label: {int(seed): str(name) for seed, name in own.items()} for label, own in content["runs"].items()
            }
            terms = Terms(**{key: content[key] for key in Terms.__annotations__})
            if terms.baseline not in terms.losses:
                raise ValueError(f"the baseline {terms.baseline!r} is none of its losses")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); its runs can be compared once it is moved away"
            ) from None
        return cls(folder, terms, runs)

    @classmethod
    def open(cls, folder: Path, terms: Terms) -> Ledger:
        """The ledger that a command begins or continues.

        Raises:
            UserError: where the folder was begun under other terms, or holds results without any.
        """
        terms = _plain(terms)
        with FileLock(folder / f".{SEQUENTIAL}.lock"):
            ledger = cls.read(folder)
            if ledger is None:
                _refuse_results(folder)
                ledger = cls(folder, terms)
                ledger._write()
        for told, earlier, present in ledger.terms.differences(terms):
            if earlier != present:
                raise UserError(
                    f"{folder} was begun with {told}={earlier}, and this command says {present}: a rule that changes "
                    "once results are there no longer holds its error rate; put it back, or give a new name=…"
                )
        return ledger

    def note(self, label: str, seed: int, run: RunFolder) -> None:
        """Write down that a run belongs to the sweep; another command may write at the same time."""
        if self.runs.get(label, {}).get(seed) == run.name:
            return
        with FileLock(self.folder / f".{SEQUENTIAL}.lock"):
            newest = type(self).read(self.folder)
            for other, names in (newest.runs if newest is not None else {}).items():
                self.runs.setdefault(other, {}).update(names)
            self.runs.setdefault(label, {})[seed] = run.name
            self._write()

    def found(self) -> Iterator[tuple[str, int, RunFolder]]:
        """Label, seed and folder of each run that is there."""
        for label, names in self.runs.items():
            for seed, name in sorted(names.items()):
                if (run := RunFolder(self.folder / name)).exists():
                    yield label, seed, run

    def ended(self) -> dict[str, dict[int, Ended]]:
        """Label → seed → result, of the runs that have one. Records that cannot be read count as none."""
        results: dict[str, dict[int, Ended]] = {label: {} for label in self.terms.losses}
        for label, seed, run in self.found():
            try:
                record = run.record()
            except UserError:
                continue  # reported where it is in the way
            if label in results and (one := Ended.of(record, self.terms.metric)) is not None:
                results[label][seed] = one
        return results

    def standings(self) -> dict[str, Standing]:
        """The standing of each loss beside the baseline, in their order."""
        ended = self.ended()
        return {label: stand(self.terms, ended, label) for label in self.terms.compared}

    def _write(self) -> None:
        runs = {label: {str(seed): own[seed] for seed in sorted(own)} for label, own in sorted(self.runs.items())}
        content = {"version": VERSION, **asdict(self.terms), "runs": runs}
        write_atomic(self.folder / SEQUENTIAL, (json.dumps(content, indent=1, default=str) + "\n").encode())


def stand(terms: Terms, ended: Mapping[str, Mapping[int, Ended]], label: str) -> Standing:
    """The standing of one loss, given the results of all."""
    return standing(
        terms.rule,
        ended[terms.baseline],
        ended[label],
        first_seed=terms.first_seed,
        higher_is_better=terms.higher_is_better,
    )


@lru_cache(maxsize=8)
def _rule(margin: float, max_seeds: int, losses: int, level: float) -> Rule:
    return Rule(margin=margin, max_seeds=max_seeds, losses=losses, level=level)


def _plain(terms: Terms) -> Terms:
    """The terms as they come back from a file."""
    return Terms(**json.loads(json.dumps(asdict(terms), default=str)))


def _refuse_results(folder: Path) -> None:
    """Refuse a folder whose results came before the rule."""
    done = 0
    for run in runs_of_sweep(folder):
        try:
            done += run.record().status in DONE
        except UserError:
            continue  # reported where it is in the way
    if done:
        raise UserError(
            f"{folder} holds {done} result{'s' * (done > 1)} already, and seed=auto decides by a rule that stands "
            "before the first one: give it a name=… of its own"
        )
