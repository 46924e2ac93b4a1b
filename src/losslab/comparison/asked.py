"""The metrics that a comparison is asked for, and those that it judges beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from losslab.comparison.metrics import Declarations
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.results_table import FINAL
from losslab.comparison.runs.run import LAST, Run
from losslab.config.metric_words import nearest_metric
from losslab.errors import UserError


def choose_metrics(asked: Sequence[str], runs: Sequence[Run], declared: Declarations) -> list[str]:
    """The metrics of the table, each of which a run has and has a better side; of a table of results with a single
    metric, that one where the primary is asked for.

    Raises:
        UserError: for a metric that no run has, or of which no side is better.
    """
    return [_sided(_known(name, runs, declared), declared) for name in asked]


def _sided(metric: str, declared: Declarations) -> str:
    if not declared.has_side(metric):
        raise UserError(
            f"is more of {metric!r} better, or less? Its name does not say: call it {metric}_score or {metric}_error"
        )
    return metric


def _known(metric: str, runs: Sequence[Run], declared: Declarations) -> str:
    if metric.startswith(FINAL):
        raise UserError(f"--metric {metric}: write --metric {metric.removeprefix(FINAL)} --weights last")
    finished = [run.metrics for run in runs if run.record.status == "completed"]
    known = {key for own in finished for key, value in own.items() if value is not None and key != "step"}
    if known and declared.is_diagnosis(metric):
        raise UserError(
            f"{metric} does not say which loss is better; choose from {', '.join(_compared(known, declared))}"
        )
    if metric in known:
        return metric
    if any(metric in own for own in finished):
        raise UserError(f"{metric} is not finite in any of these runs; choose another --metric")
    if finished and not known:
        at_end = any(replace(run, weights=LAST).metrics for run in runs)
        then = "; after the last step there are some: --weights last" if at_end else ""
        raise UserError(f"the records of these {len(finished)} completed run(s) hold no metric that is finite{then}")
    if not known:
        states: dict[str, int] = {}
        for run in runs:
            states[f"{run.loss}: {{}} {run.record.status}"] = states.get(f"{run.loss}: {{}} {run.record.status}", 0) + 1
        told = "; ".join(text.format(count) for text, count in sorted(states.items()))
        over = all(run.record.status == "diverged" for run in runs)
        then = "diverged runs are results, and stay" if over else "the command that started them continues them"
        raise UserError(f"no run is completed yet ({told}); {then}")
    if metric == f"test/{declared.primary}" and len(known) == 1 and all(run.folder is None for run in runs):
        return next(iter(known))
    hint = nearest_metric(metric, _compared(known, declared))
    raise UserError(f"no run has the metric {metric!r}; choose another --metric: {hint}")


def _compared(known: Iterable[str], declared: Declarations) -> list[str]:
    return sorted(name for name in known if not declared.is_diagnosis(name))


def other_metrics(contenders: Sequence[Contender], metric: str, declared: Declarations) -> list[str]:
    """The other metrics of test (of a table, of all) that have a better side, by name."""
    names: dict[str, None] = {}
    for c in contenders:
        for run in c.runs.values():
            names |= dict.fromkeys(run.metrics)
    of_folder = metric.startswith(("test/", "text/", "val/"))
    return [
        name
        for name in sorted(names)
        if name != metric and declared.has_side(name) and (name.startswith(("test/", "text/")) or not of_folder)
    ]
