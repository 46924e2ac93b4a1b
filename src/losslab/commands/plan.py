"""`losslab plan`: from a pilot, or from noise figures, to seeds, hours and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from losslab.commands.answer import open_source
from losslab.comparison.analysis import BASELINE
from losslab.comparison.noise_figures import COMMAND, Figure, figures_of, read_figures
from losslab.comparison.output.plan_prose import plan_lines, plan_values
from losslab.comparison.planning import Plan, plan_of_figures, plan_of_folder
from losslab.comparison.statistics import POWER
from losslab.console import out, say
from losslab.errors import UserError

_LEAST_POWER = 0.5
_WHERE = "which measures the noise of presets, or a pilot of eight seeds: losslab plan FOLDER"


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
    if detect is not None and not detect > 0:
        raise UserError(f"--detect must be above 0, not {detect:g}")
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
    return _before_any_run(of_train, preset, detect=detect, power=power, metric=metric, baseline=baseline)


def _before_any_run(
    words: list[str], preset: str | None, *, detect: float | None, power: float, metric: str | None, baseline: str
) -> Plan:
    known = read_figures()
    found = figures_of(known, preset=preset, words=words)
    asked = f"--preset {preset}" if preset is not None else " ".join(words)
    if not found:
        names = ", ".join(dict.fromkeys(f"{one.preset} ({' '.join(one.words)})" for one in known))
        there = f"there are {names}; others need" if known else "they come from"
        raise UserError(f"there are no noise figures for {asked}: {there} {COMMAND}, {_WHERE}")
    fitting = _fitting(found, metric, baseline)
    losses = [loss for word in words if word.startswith("loss=") for loss in word.partition("=")[2].split(",")]
    own = [word for word in words if word.partition("=")[0] not in ("loss", "seed")]
    more = [word for word in own if word not in fitting[0].words and not word.startswith(("name=", "output_dir="))]
    made = plan_of_figures(
        fitting,
        words=[*(word for word in fitting[0].words if word not in own), *own],
        losses=losses,
        baseline=baseline,
        margin=detect,
        power=power,
    )
    made.notes.insert(0, _origin(fitting[0]))
    if more:
        made.notes.append(f"{' '.join(more)} was not measured, and may change the noise: a pilot of eight seeds says")
    return made


def _fitting(found: Sequence[Figure], metric: str | None, baseline: str) -> list[Figure]:
    """The figures of this metric and baseline. Raises UserError where there are none."""
    metric = metric or found[0].metric
    for name, wanted in (("metric", metric), ("baseline", baseline)):
        values = sorted({str(getattr(one, name)) for one in found})
        if wanted not in values:
            raise UserError(f"--{name} {wanted}: the noise figures of {found[0].preset} are of {', '.join(values)}")
    return [one for one in found if (one.metric, one.baseline) == (metric, baseline)]


def _origin(one: Figure) -> str:
    return (
        f"Noise of {' '.join(one.words)}, as {COMMAND} measured it on {one.written} from {one.seeds} seeds "
        f"({one.machine}); another machine takes another time."
    )
