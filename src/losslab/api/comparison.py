"""The comparison of losses as an object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from losslab.api.tables import as_rows
from losslab.api.words import checked_number
from losslab.commands.answer import REPORT, Asked, answer_parts, open_source, write
from losslab.comparison.output.tables import row_values
from losslab.comparison.runs.run import BEST
from losslab.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from losslab.comparison.analysis import Comparison as Analysis


class HasFolder(Protocol):
    """A run."""

    @property
    def folder(self) -> Path: ...


class Comparison:
    """Which loss is better, with intervals. `print(comparison)` shows what `losslab compare` prints; a notebook shows
    it as a table.

    Args:
        asked: the question, and the runs.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._written = False

    @property
    def analysis(self) -> Analysis:
        """Everything that is said, as data (`losslab.comparison.analysis.Comparison`)."""
        return self._asked.answer

    @property
    def table(self) -> Any:
        """A row for each loss and metric of the answer, in full precision, with the columns of summary.csv: a DataFrame
        where pandas is installed, else a list of dicts. Empty is None."""
        tables = self.analysis.tables
        return as_rows([row_values(self.analysis, metric, row) for metric, rows in tables.items() for row in rows])

    @property
    def verdicts(self) -> dict[str, str]:
        """Loss → verdict on the metric that was asked for: `better`, `worse`, `equivalent`, `undecided` or `baseline`,
        with what limits it."""
        return {row.label: row.verdict.text for row in self.analysis.rows}

    @property
    def caveats(self) -> list[str]:
        """Sentences to keep in mind."""
        return list(self.analysis.caveats)

    def figures(self) -> dict[str, Figure]:
        """The figures of the report, drawn now: name → matplotlib Figure, which a notebook shows."""
        from losslab.comparison.output.figure_list import pictures  # matplotlib

        return {picture.file: picture.draw() for picture in pictures(self.analysis)}

    @property
    def report(self) -> Path:
        """The page report.html. The first use writes it, with figures and tables, where `losslab compare` does.

        Raises:
            UserError: where the folder cannot be written.
        """
        if not self._written:
            write(self._asked)
            self._written = True
        return self._asked.target / REPORT

    def __str__(self) -> str:
        return "\n".join(map(str, answer_parts(self.analysis, terminal=False))).strip()

    def __repr__(self) -> str:
        told = ", ".join(f"{label}: {verdict}" for label, verdict in self.verdicts.items())
        return f"<Comparison of {self.analysis.source}: {told}>"

    def _repr_html_(self) -> str:
        from losslab.comparison.output.report import to_fragment  # matplotlib

        return to_fragment(self.analysis)


def compare(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | HasFolder],
    *,
    baseline: str | None = None,
    metric: str | Sequence[str] = (),
    margin: float | None = None,
    where: Sequence[str] = (),
    tune: str = "auto",
    mixed: bool = False,
    weights: str = BEST,
) -> Comparison:
    """Compare losses, as `losslab compare` does; writes nothing until `Comparison.report` is read.

    Args:
        runs: a folder of runs, a .csv table of results, or some of the runs of one folder: a `Sweep`, a list of `Run`
            or of their folders.
        baseline: the loss that the others are compared with; None: cross_entropy, or what a sweep with seed=auto
            compared them with.
        metric: one metric, or several for one table; none: the primary one of test.
        margin: a difference below it counts as none, in the unit of the metric; None: that by which a sweep with
            seed=auto decided, else what is customary for the metric.
        where: KEY=VALUE; only runs with these settings count.
        tune: over what each loss takes its best setting: auto, all, none, or keys with commas between.
        mixed: answer for each data, budget and precision by itself where runs differ in them, and pair runs of unequal
            code.
        weights: of each run the `best` checkpoint on validation, or the weights after its `last` step.

    Raises:
        UserError: when there is nothing to compare, or the runs do not belong together.
    """
    source: Path | list[Path]
    if isinstance(runs, str | os.PathLike):
        source = Path(runs)
    else:
        source = [Path(run) if isinstance(run, str | os.PathLike) else run.folder for run in runs]
        if not source:
            raise UserError("there are no runs to compare: the list is empty")
    given = [where] if isinstance(where, str) else list(where)
    asked = open_source(
        source, baseline=baseline, metric=metric, margin=checked_number("margin", margin), tune=tune, where=given,
        mixed=mixed, weights=weights,
    )  # fmt: skip
    return Comparison(asked)
