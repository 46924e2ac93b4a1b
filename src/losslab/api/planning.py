"""The plan of a comparison as an object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from losslab.api.tables import as_rows
from losslab.api.words import checked_number
from losslab.commands.plan import make_plan
from losslab.comparison.analysis import BASELINE
from losslab.comparison.output.plan_prose import loss_values, plan_lines
from losslab.comparison.statistics import POWER

if TYPE_CHECKING:
    from losslab.comparison.plans import Plan as Planned


class Plan:
    """How many seeds each loss takes. `print(plan)` shows what `losslab plan` prints.

    Args:
        planned: all of it, as data.
    """

    def __init__(self, planned: Planned) -> None:
        self.planned = planned

    @property
    def seeds(self) -> dict[str, int | None]:
        """Loss → seeds to have in the end; None where the pilot is too small to say."""
        return {one.loss: one.seeds for one in self.planned.losses}

    @property
    def seeds_together(self) -> dict[str, int] | None:
        """The same with which all losses of the table have their power in four of five pilots, and not each by itself;
        None where the pilot is too small to say, or there is one loss."""
        together = self.planned.together
        return None if together is None or together.seeds is None else dict(together.seeds)

    @property
    def seconds(self) -> float | None:
        """Seconds of this machine for all runs that are missing; None where no record says, or there is no plan yet."""
        return self.planned.seconds

    @property
    def commands(self) -> list[str]:
        """Commands for a shell: those of the plan, or of a pilot where there is no plan yet."""
        return list(self.planned.commands)

    @property
    def table(self) -> Any:
        """A row for each loss, the baseline last: a DataFrame where pandas is installed, else a list of dicts. Empty is
        None."""
        return as_rows([loss_values(one) for one in self.planned.losses])

    def __str__(self) -> str:
        return "\n".join(plan_lines(self.planned))

    def __repr__(self) -> str:
        return f"<Plan of {self.planned.source}: {self.seeds}>"


def plan(
    runs: str | os.PathLike[str] | Sequence[str],
    *,
    detect: float | None = None,
    power: float = POWER,
    metric: str | None = None,
    baseline: str = BASELINE,
    tune: str = "auto",
    where: Sequence[str] = (),
) -> Plan:
    """Plan seeds and hours, as `losslab plan` does; writes and trains nothing.

    Args:
        runs: a folder of runs, the pilot; before any run, a list of words of `losslab train`.
        detect: the difference that is to be found, in the unit of the metric; None: its margin.
        power: the probability to find it where it is there.
        metric: such as `test/top1`; None: the primary one of test.
        baseline: the loss that the others are compared with.
        tune, where: as in `losslab.compare`.

    Raises:
        UserError: where there is nothing to go by.
    """
    words = [os.fspath(runs)] if isinstance(runs, str | os.PathLike) else list(runs)
    given = [where] if isinstance(where, str) else list(where)
    made = make_plan(
        words, detect=checked_number("detect", detect), power=checked_number("power", power), metric=metric,
        baseline=baseline, tune=tune, where=given,
    )  # fmt: skip
    return Plan(made)
