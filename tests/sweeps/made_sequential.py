"""A sweep that adds seeds, without training: runs are records, whose values follow from loss and seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.sequential.ledger import Ledger, Terms
from losslab.sweeps.followed_run import Run
from losslab.sweeps.sequential import Sequential

STEPS = 40
LOSSES = ("cross_entropy", "square", "focal", "kl_divergence")
MOST = 14
METRIC = "test/nll"


def make_terms(**changes: Any) -> Terms:
    plain: dict[str, Any] = {
        "metric": METRIC,
        "higher_is_better": False,
        "margin": 0.02,
        "level": 0.05,
        "max_seeds": MOST,
        "first_seed": 1,
        "baseline": "cross_entropy",
        "losses": {label: {"loss._target_": label} for label in LOSSES},
        "threads": 1,
    }
    return Terms(**plain | changes)


def value_of(label: str, seed: int) -> float:
    """cross_entropy with some spread, square clearly worse, focal hardly better, kl_divergence the same."""
    shared = random.Random(f"seed {seed}").gauss(0, 0.1)
    shift, spread = {"square": (0.1, 0.02), "focal": (-0.01, 0.05), "kl_divergence": (0.0, 0.01)}.get(label, (0, 0))
    return 4.0 + shared + shift + random.Random(f"{label} {seed}").gauss(0, spread)


class Command:
    """One start of the command, whose runs end when the test says so.

    Args:
        ends: label and seed → status and value of a run.
    """

    def __init__(
        self,
        folder: Path,
        terms: Terms | None = None,
        ends: Callable[[str, int], tuple[str, float]] = lambda label, seed: ("completed", value_of(label, seed)),
    ) -> None:
        self.folder, self.ends = folder, ends
        self.ledger = Ledger.open(folder, terms or make_terms())
        self.source = Sequential(self.ledger, self._open)
        self.running: list[Run] = []
        self.started: list[str] = []
        self.skipped: list[str] = []

    def _open(self, label: str, seed: int, number: int) -> Run | str:
        name = f"{label}-seed={seed}"
        folder = RunFolder(self.folder / name)
        if not folder.exists():
            folder.path.mkdir()
            folder.write(Record(identity=name, name="t", status="planned", max_steps=STEPS))
        record = folder.record()
        return Run(number, name, folder, 1, STEPS, [], record.status, step=record.step)

    def fill(self, slots: int) -> None:
        while len(self.running) < slots and (runs := self.source.next()):
            for run in runs:
                record = run.folder.record()
                if record.status in ("completed", "diverged"):
                    self.skipped.append(run.label)
                    self.source.ended(run, record)
                else:
                    self.started.append(run.label)
                    self.running.append(run)

    def end(self, run: Run, status: str = "") -> None:
        label, _, seed = run.folder.name.partition("-seed=")
        own, value = self.ends(label, int(seed))
        record = run.folder.record()
        record.status, record.step = status or own, STEPS
        record.metrics = {"best": {METRIC: value}} if record.status == "completed" else {}
        run.folder.write(record)
        self.running.remove(run)
        self.source.ended(run, record)

    def work(self, slots: int, order: random.Random | None = None, kill_after: int | None = None) -> None:
        """Run to the end, or until a kill; which run ends next is drawn."""
        for count in range(10_000):
            self.fill(slots)
            for run in [run for run in self.running if self.source.unneeded(run)]:
                self.end(run, "pruned")
            if not self.running and self.source.is_spent:
                break
            if count == kill_after:
                return
            if self.running:
                self.end(order.choice(self.running) if order else self.running[0])
        self.source.tidy()

    def verdicts(self) -> dict[str, tuple[str, int]]:
        return {label: (one.verdict, one.seeds) for label, one in self.source.standings.items()}
