"""The runs of a search: trials are drawn whenever there is room for one, and told how they ended. No torch here."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from losslab.console import complain
from losslab.metric import Metric
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder
from losslab.sweeps.followed_run import Run, known, put
from losslab.sweeps.study import Drawn, Study

REFUSED = "refused"
"""The end of a trial whose configuration is wrong, so that it never became a run."""
Open = Callable[[Study, Drawn, str, int], Run | str]
"""Study, trial, the word that sets the seed, and the run's number → the run, or a sentence that says what is wrong."""


@dataclass
class _Trial:
    """A trial that is under way in this command."""

    study: Study
    drawn: Drawn
    waiting: list[str]
    """Words of the seeds that have not started, in their order."""
    scout: Run | None = None
    """The run of the first seed, whose validations are compared with those of other trials' first seeds."""
    values: list[float] = field(default_factory=list)
    """Results of the seeds that are done."""
    pruned: str = ""
    """The reason why it was ended early."""
    told: bool = False


class Search:
    """Draws trials of several studies in turn, so that all of them have come equally far at any time.

    Args:
        studies: with equal budgets.
        primary: by whose best value on val trials are told apart; a trial of several seeds counts as their mean.
        open_run: plans a run.
    """

    def __init__(self, studies: Sequence[Study], primary: Metric, open_run: Open) -> None:
        self.studies = studies
        self._metric = f"val/{primary.name}"
        self._open_run = open_run
        self._of: dict[int, _Trial] = {}
        """Trials by the numbers of their runs."""
        self._number = sum(len(study.ended()) * len(study.space.seeds) for study in studies)
        self._begun = [
            _Trial(study, drawn, list(study.space.seeds)) for study in studies for drawn in study.left_running()
        ]
        """Trials that an earlier command left behind."""
        self._ready: list[tuple[_Trial, str]] = []
        """Runs of trials that are under way, which may start."""
        self._spent: set[str] = set()
        """Names of studies that draw no more."""
        self.refused: list[str] = []
        """Sentences on trials that never became a run."""

    @property
    def expected(self) -> int:
        return sum(study.budget * len(study.space.seeds) for study in self.studies)

    @property
    def is_spent(self) -> bool:
        seeds_follow = any(trial.waiting and not trial.told for trial in self._of.values())
        return not (self._begun or self._ready or seeds_follow) and len(self._spent) == len(self.studies)

    def next(self) -> list[Run]:
        while self._ready or (trial := self._draw()) is not None:
            if not self._ready:
                assert trial is not None
                self._release(trial)
            trial, seed = self._ready.pop(0)
            if (run := self._opened(trial, seed)) is not None:
                return [run]
        return []

    def validated(self, run: Run, step: int, value: float) -> str:
        trial = self._of[run.number]
        if trial.scout is not run or trial.told or step >= run.max_steps:
            return ""
        if trial.study.report(trial.drawn.number, step, value) and not trial.pruned:
            trial.pruned = f"{self._metric} {value:.4f} at step {step} {trial.study.verdict}"
        return trial.pruned

    def unneeded(self, run: Run) -> str:
        return ""

    def ended(self, run: Run, record: Record) -> None:
        trial = self._of[run.number]
        if trial.pruned:  # even where it was at its end before it could be stopped: what is drawn next must not depend
            self._tell(trial, "pruned")  # on which of the two was quicker
        elif record.status == "completed":
            value = record.metrics.get("best", {}).get(self._metric)
            trial.values.append(math.nan if value is None else value)
            if len(trial.values) == len(trial.study.space.seeds):
                self._tell(trial, "completed", sum(trial.values) / len(trial.values))
            else:
                self._release(trial)
        elif record.status in ("diverged", "failed", "pruned"):
            self._tell(trial, record.status)

    def _draw(self) -> _Trial | None:
        """A trial that was left behind, or a new one of the study that has drawn the fewest."""
        if self._begun:
            return self._begun.pop(0)
        while open_ones := [study for study in self.studies if study.name not in self._spent]:
            study = min(open_ones, key=lambda study: len(study.trials()))
            if (drawn := study.ask()) is not None:
                return _Trial(study, drawn, list(study.space.seeds))
            self._spent.add(study.name)
        return None

    def _release(self, trial: _Trial) -> None:
        """Let further seeds of a trial start: all of them, or where trials are pruned the first before the others."""
        if trial.told:
            return
        count = 1 if trial.study.prunes and trial.scout is None else len(trial.waiting)
        self._ready += [(trial, seed) for seed in trial.waiting[:count]]
        del trial.waiting[:count]

    def _opened(self, trial: _Trial, seed: str) -> Run | None:
        if trial.told:
            return None
        self._number += 1
        run = self._open_run(trial.study, trial.drawn, seed, self._number)
        if isinstance(run, str):
            self.refused.append(run)
            complain(f"[{self._number}/{self.expected}] refused: {run}")
            self._tell(trial, REFUSED)
            return None
        self._of[run.number] = trial
        if trial.scout is None:
            trial.scout = run
            self._catch_up(trial, run)
        return run

    def _catch_up(self, trial: _Trial, run: Run) -> None:
        """Take in what the first seed's run has validated in earlier sessions."""
        for step, value in validations(run.folder, self._metric, up_to=run.step):
            reason = self.validated(run, step, value)
            if reason and run.status not in DONE:
                run.status = put(run.folder, known(run.folder), "pruned", reason).status
                return

    def _tell(self, trial: _Trial, status: str, value: float | None = None) -> None:
        if trial.told:
            return
        trial.told = True
        trial.waiting.clear()
        if value is not None and not math.isfinite(value):
            status, value = "failed", None  # a run without a value of the metric
        trial.study.tell(trial.drawn.number, status, value)


def validations(run: RunFolder, metric: str, *, up_to: int) -> list[tuple[int, float]]:
    """Step and value of each validation in a run's metrics.csv, up to a step that is saved."""
    found = []
    with suppress(OSError, csv.Error, UnicodeDecodeError), run.metrics.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            with suppress(TypeError, ValueError):  # other rows, and one that a kill tore
                found.append((int(row["step"]), float(row[metric])))
    return [(step, value) for step, value in found if step <= up_to]
