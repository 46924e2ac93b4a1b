"""The runs of a sweep that adds seeds until every loss is decided. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from losslab.console import complain, say
from losslab.errors import UserError
from losslab.records import Record
from losslab.sequential.ledger import Ledger, stand
from losslab.sequential.prefix import Ended, standings
from losslab.sequential.told import told_standing, told_verdict
from losslab.sweeps.followed_run import Run, known, put
from losslab.sweeps.source import OVER

Open = Callable[[str, int, int], Run | str]
"""A loss's label, the seed, and the run's number → the run, or a sentence that says what is wrong."""


class Sequential:
    """Hands out the next seed of every undecided loss and of the baseline, the smallest seed first.

    A verdict on n seeds needs the results of seeds 1 to n; runs beyond it that had started are ended, and count for
    nothing. A run that failed leaves its loss where it is: the same command tries it again.

    Args:
        ledger: of the sweep's folder.
        open_run: plans a run.
    """

    def __init__(self, ledger: Ledger, open_run: Open) -> None:
        self.ledger, self.terms = ledger, ledger.terms
        self._open_run = open_run
        self._of: dict[int, tuple[str, int]] = {}
        """Label and seed of each run that was handed out, by its number."""
        self._ended = {label: dict[int, Ended]() for label in self.terms.losses}
        self._given = {label: set[int]() for label in self.terms.losses}
        """Seeds that were handed out, or are done."""
        self.stuck: dict[str, int] = {}
        """Label → the seed whose run did not end with a result in this command."""
        self.refused: list[str] = []
        """Sentences on runs whose configuration is wrong."""
        self._done = list(self._take_over())
        self.standings = {label: stand(self.terms, self._ended, label) for label in self.terms.compared}

    @property
    def done(self) -> int:
        """The number of runs with a result."""
        return sum(map(len, self._ended.values()))

    @property
    def is_decided(self) -> bool:
        """Whether every loss has its verdict, be it that the budget is spent."""
        return all(one.verdict for one in self.standings.values())

    @property
    def open_losses(self) -> list[str]:
        """Losses without a verdict that get further seeds."""
        blocked = self.stuck.keys() if self.terms.baseline not in self.stuck else self.standings.keys()
        return [label for label, one in self.standings.items() if not one.verdict and label not in blocked]

    @property
    def expected(self) -> int:
        """The largest number of runs that there will be."""
        growing = self._growing()
        return sum(self.terms.max_seeds if label in growing else len(own) for label, own in self._given.items())

    @property
    def is_spent(self) -> bool:
        return not self._done and self._following() is None

    def next(self) -> list[Run]:
        if self._done:
            runs, self._done = self._done, []
            return runs
        while (following := self._following()) is not None:
            label, seed = following
            self._given[label].add(seed)
            number = sum(map(len, self._given.values()))
            run = self._open_run(label, seed, number)
            if isinstance(run, str):
                self.refused.append(run)
                complain(f"[{number}/{self.expected}] refused: {run}")
                self.stuck[label] = seed
                continue
            self._of[run.number] = following
            self.ledger.note(label, seed, run.folder)
            return [run]
        return []

    def validated(self, run: Run, step: int, value: float) -> str:
        return ""

    def ended(self, run: Run, record: Record) -> None:
        label, seed = self._of[run.number]
        result = Ended.of(record, self.terms.metric)
        if result is not None:
            if seed not in self._ended[label]:
                self._ended[label][seed] = result
                self._judge()
        elif not self.unneeded(run):
            self.stuck.setdefault(label, seed)

    def unneeded(self, run: Run) -> str:
        """The reason why no verdict will ask for this run."""
        label, seed = self._of[run.number]
        return self._unneeded(label, seed)

    def tidy(self) -> None:
        """Mark runs that an earlier command left unfinished beyond the verdict: nothing continues them."""
        for label, seed, run in self.ledger.found():
            record = known(run)
            if label in self._given and (why := self._unneeded(label, seed)) and record.status not in OVER:
                put(run, record, "pruned", why)

    def waits_for(self, label: str) -> str:
        """A sentence on what keeps a loss from getting further seeds in this command; or nothing."""
        for one in (label, self.terms.baseline):
            if one in self.stuck and not self.standings[label].verdict:
                return f"waits for {one} seed {self.stuck[one]}, which has no result"
        return ""

    def _take_over(self) -> Iterator[Run]:
        """The runs of earlier commands that are done."""
        for label, seed, folder in self.ledger.found():
            with suppress(UserError):  # a damaged record is reported where it is in the way
                record = folder.record()
                result = Ended.of(record, self.terms.metric)
                if result is None or label not in self._given:
                    continue
                self._given[label].add(seed)
                self._ended[label][seed] = result
                number = sum(map(len, self._given.values()))
                self._of[number] = (label, seed)
                yield Run(number, f"{label} seed={seed}", folder, 1, record.max_steps, [], record.status, record.step)

    def _growing(self) -> set[str]:
        """Losses that get further seeds, the baseline among them as long as there is another."""
        open_losses = self.open_losses
        return {self.terms.baseline, *open_losses} if open_losses else set()

    def _following(self) -> tuple[str, int] | None:
        """Label and seed of the run that comes next: of the smallest seed, and of it the baseline's first."""
        growing = self._growing()
        seeds = range(self.terms.first_seed, self.terms.first_seed + self.terms.max_seeds)
        free = {label: next((s for s in seeds if s not in self._given[label]), None) for label in growing}
        order = [self.terms.baseline, *self.terms.compared]
        found = [(seed, order.index(label), label) for label, seed in free.items() if seed is not None]
        if not found:
            return None
        seed, _, label = min(found)
        return label, seed

    def _unneeded(self, label: str, seed: int) -> str:
        place = seed - self.terms.first_seed + 1
        if label != self.terms.baseline:
            one = self.standings[label]
            return f"{label} is {told_verdict(one, self.terms.baseline)}" if one.verdict and place > one.seeds else ""
        if not self.is_decided:
            return ""
        last = max(one.seeds for one in self.standings.values())
        return f"every loss is decided after {last} seeds" if place > last else ""

    def _judge(self) -> None:
        """Judge every loss on the seeds that have ended by now, and say what each new one adds."""
        for label, before in self.standings.items():
            if before.verdict:
                continue
            for one in standings(
                self.terms.rule,
                self._ended[self.terms.baseline],
                self._ended[label],
                first_seed=self.terms.first_seed,
                higher_is_better=self.terms.higher_is_better,
            ):
                if one.seeds > before.seeds:
                    self.standings[label] = one
                    say(told_standing(label, one, self.terms))
