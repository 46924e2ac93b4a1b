"""A sweep that added seeds until each loss was decided (seed=auto), as the table reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from losslab.comparison.runs.contenders import Contender
from losslab.sequential.ledger import Ledger, Terms
from losslab.sequential.prefix import LOST, Standing
from losslab.sequential.rule import FIRST_LOOK, Rule


@dataclass(frozen=True)
class Growing:
    """Terms and standings of such a sweep."""

    terms: Terms
    standings: dict[str, Standing]
    """Label → where the loss stands."""
    labels: dict[str, str]
    """Name of a run's folder → label of its loss."""

    @classmethod
    def of(cls, folder: Path) -> Growing | None:
        """The sweep of a folder; None where its seeds were not added so.

        Raises:
            UserError: where its file cannot be read.
        """
        ledger = Ledger.read(folder)
        if ledger is None:
            return None
        labels = {name: label for label, own in ledger.runs.items() for name in own.values()}
        return cls(ledger.terms, ledger.standings(), labels)

    def label_of(self, contender: Contender) -> str | None:
        """The label that the sweep gave a loss; None for a loss that is none of it."""
        found = {self.labels.get(run.name) for run in contender.runs.values()}
        return found.pop() if len(found) == 1 else None

    def baseline_among(self, contenders: Sequence[Contender]) -> str | None:
        """The baseline, by the label that it has here."""
        return next((c.label for c in contenders if self.label_of(c) == self.terms.baseline), None)

    def margin_of(self, metric: str) -> float | None:
        """The margin by which the sweep decided; None for a metric that it did not decide by."""
        return self.terms.margin if metric == self.terms.metric else None

    def standing_of(self, contender: Contender, reference: Contender) -> Standing | None:
        """The standing of a loss beside the sweep's baseline; None beside another one."""
        if self.label_of(reference) != self.terms.baseline:
            return None
        return self.standings.get(self.label_of(contender) or "")

    def counted(self, seeds: Sequence[int], contender: Contender, reference: Contender) -> list[int]:
        """Those of the pairs that the bounds are for: without seeds that ended beyond a verdict."""
        standing = self.standing_of(contender, reference)
        end = math.inf if standing is None else self.terms.first_seed + standing.seeds
        return [seed for seed in seeds if seed < end][: self.terms.max_seeds]

    def rule_for(self, comparisons: int) -> Rule:
        """The rule of a table of so many comparisons: no bound is below the sweep's own."""
        rule = self.terms.rule
        return replace(rule, losses=max(rule.losses, comparisons))

    def told(self, standing: Standing) -> str:
        """`decided at 12 seeds`, for a verdict's parentheses."""
        seeds = f"{standing.seeds} seed{'s' * (standing.seeds != 1)}"
        if standing.verdict == LOST:
            return f"given up after {seeds}: {len(standing.left_out)} without a pair"
        if standing.verdict in ("better", "worse", "equivalent"):
            return f"decided at {seeds}"
        if standing.seeds >= self.terms.max_seeds:
            return f"{seeds}, the most that were allowed"
        look = f", and the first look is at {FIRST_LOOK}" if standing.seeds < FIRST_LOOK else ""
        return f"{seeds} of at most {self.terms.max_seeds} so far{look}"

    def procedure(self) -> str:
        """A sentence on the intervals."""
        rule = self.terms.rule
        bounds = rule.bounds()
        losses = f"{rule.losses} comparison{'s' * (rule.losses != 1)}"
        return (
            "Seeds are added until each loss is decided: repeated intervals (Jennison and Turnbull 1984) are "
            f"mean ± c · s / √n, with c from {bounds[FIRST_LOOK - 1]:.3f} at {FIRST_LOOK} seeds to {bounds[-1]:.3f} at "
            f"{rule.max_seeds}. The probability that any of the first n intervals of any of {losses} misses is at most "
            f"{rule.level:g} · (n / {rule.max_seeds})², so that a verdict has this error whenever it comes."
        )
