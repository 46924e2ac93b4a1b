"""`losslab plan`: from a pilot, or from noise figures, to seeds, hours and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from losslab.commands.answer import open_source
from losslab.commands.preset_plan import plan_before_any_run
from losslab.comparison.analysis import BASELINE
from losslab.comparison.output.plan_prose import plan_lines, plan_values
from losslab.comparison.planning import plan_of_folder
from losslab.comparison.plans import Plan
from losslab.comparison.statistics import POWER
from losslab.console import out, say
from losslab.errors import UserError

_LEAST_POWER = 0.5


def plan(
    words: Sequence[str],
    *,
    preset: str | None = None,
    detect: float | None = None,
    power: float = POWER,
    metric: str | None = None,
    baseline: str = BASELINE,
    tune: str = "auto",
    where: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Print the plan; writes nothing. Arguments: see `make_plan`."""
    made = make_plan(
        words, preset=preset, detect=detect, power=power, metric=metric, baseline=baseline, tune=tune, where=where
    )
    if as_json:
        out.print_json(json.dumps(plan_values(made)))
        return 0
    for line in plan_lines(made):
        say(line)
    return 0


def make_plan(
    words: Sequence[str],
    *,
    preset: str | None = None,
    detect: float | None = None,
    power: float = POWER,
    metric: str | None = None,
    baseline: str = BASELINE,
    tune: str = "auto",
    where: Sequence[str] = (),
) -> Plan:
    """The plan of a folder of runs; before any run, that of a preset.

    Args:
        words: a folder (or a .csv table of results), or words of `losslab train`.
        preset: a name of the noise figures, instead of the words that make it.
        detect: the difference that is to be found, in the unit of the metric; None: its margin.
        power: the probability to find it where it is there.
        metric: with its split; None: the primary one of test.
        tune, where: as in `losslab compare`.

    Raises:
        UserError: where there is nothing to go by.
    """
    if detect is not None and not 0 < detect < math.inf:
        raise UserError(f"--detect must be above 0, and finite, not {detect:g}")
    if not _LEAST_POWER <= power < 1:
        raise UserError(f"--power must be from {_LEAST_POWER} to below 1, not {power:g}")
    of_train = [word for word in words if "=" in word and not Path(word).exists()]
    if preset is None and not of_train:
        if len(words) != 1:
            raise UserError("losslab plan needs one folder of runs, or words of losslab train: losslab plan --help")
        asked = open_source(
            Path(words[0]), baseline=baseline, metric=metric or (), margin=detect, tune=tune, where=where
        )
        return plan_of_folder(asked.answer, power=power)
    if len(of_train) < len(words):
        (folder, *_) = (word for word in words if word not in of_train)
        raise UserError(f"{folder}: a plan is of a folder alone, or of words of losslab train")
    if where or tune != "auto":
        raise UserError("--where and --tune choose among runs: they go with a folder")
    return plan_before_any_run(of_train, preset, detect=detect, power=power, metric=metric, baseline=baseline)
