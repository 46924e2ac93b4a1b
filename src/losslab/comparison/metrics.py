"""Declarations of metrics in the records of the compared runs: label, unit, better side, margin."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from losslab.comparison.runs.run import Run
from losslab.errors import UserError
from losslab.metric import AVERAGED, Metric
from losslab.metrics.table import METRICS, NLL, PRIMARY

_HIGHER = (
    "top1 top5 mrr acc acc1 acc5 accuracy auc auroc f1 em mcc match bleu chrf rouge meteor pearson spearman r2".split()
)
_HIGHER += "precision recall ndcg map win score rate".split()
_LOWER = "nll loss perplexity ppl bits bpb bpc brier ece error err rmse mse mae wer cer ter".split()
"""Words in the names of metrics that no record declares: those of tables made elsewhere."""
_MARGIN_OF_NLL = 0.01


@dataclass(frozen=True)
class Declarations:
    """The metrics of a comparison."""

    by_name: Mapping[str, Metric]
    primary: str
    """The metric that chose each run's best checkpoint."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Declarations:
        """Collect the declarations of these runs' records; where there are none, as in a table made elsewhere, take
        losslab's own metrics by their names.

        Margins are customs and may change: of several, the smallest counts. Tags add up.

        Raises:
            UserError: when records disagree about the primary metric, or about a metric's side, unit, label or
                signature.
        """
        completed = [run for run in runs if run.record.status == "completed"] or runs
        declaring = [run for run in completed if run.record.metrics_info]
        if not declaring:
            return CUSTOMARY
        primary = _agreed("their primary metric", {run.name: run.record.primary for run in declaring})
        found: dict[str, dict[str, Metric]] = defaultdict(dict)
        for run in declaring:
            for name, metric in run.record.declared.items():
                found[name][run.name] = metric
        return cls({name: _merged(name, metrics) for name, metrics in found.items()}, primary)

    def __getitem__(self, metric: str) -> Metric:
        """The declaration of a key such as `test/nll`; where there is none, the one that the words in its name
        suggest."""
        found = self.by_name.get(short(metric))
        return _by_words(short(metric)) if found is None else found

    def is_diagnosis(self, metric: str) -> bool:
        """Whether it describes a model, but says nothing of which one is better."""
        found = self.by_name.get(short(metric))
        return metric == "step" or (found is not None and found.higher_is_better is None)

    def has_side(self, metric: str) -> bool:
        return metric != "step" and self[metric].higher_is_better is not None

    def higher_is_better(self, metric: str) -> bool:
        """Raises KeyError for a metric of neither side (`has_side`)."""
        side = self[metric].higher_is_better
        if side is None:
            raise KeyError(metric)
        return side

    def best(self, metric: str) -> str:
        """`smallest` or `largest`."""
        return "largest" if self.higher_is_better(metric) else "smallest"

    def axis(self, metric: str, when: str = "") -> str:
        """`test/nll, nats per token`; with ` at the last step` behind the name."""
        return ", ".join(filter(None, [f"{metric}{when}", self[metric].unit]))

    def shown(self, place: str) -> list[str]:
        """The names that carry a tag (`losslab.metric.PLACES`), in their order, the primary one first if it does."""
        names = [name for name, metric in self.by_name.items() if place in metric.shown]
        return sorted(names, key=lambda name: name != self.primary)


def short(metric: str) -> str:
    """`test/nll_scaled` → `nll_scaled`, and `test/ema/nll_scaled` → `ema/nll_scaled`."""
    before, _, name = metric.rpartition("/")
    return f"{AVERAGED}{name}" if f"{before}/".endswith(f"/{AVERAGED}") else name


def _by_words(name: str) -> Metric:
    is_nll = name.startswith("nll")
    words = re.findall(r"[a-z]+\d*", name.lower())
    words += [word.rstrip("0123456789") for word in words]  # f1, and rouge of rouge1
    # An error_rate is an error, whatever else it is.
    lower, higher = (any(word in known for word in words) for known in (_LOWER, _HIGHER))
    side = False if lower else True if higher else None
    label = name.replace("_", " ")
    return Metric(name, label, NLL if is_nll else "", side, _MARGIN_OF_NLL if is_nll else None, frozenset())


def _merged(name: str, metrics: Mapping[str, Metric]) -> Metric:
    """One declaration out of those of several runs, by the runs' names."""
    different = list(dict.fromkeys(metrics.values()))
    if len(different) > 1:
        sides = {True: "larger is better", False: "smaller is better", None: "neither side is better"}
        _agreed(f"the side of {name}", {run: sides[metric.higher_is_better] for run, metric in metrics.items()})
        _agreed(f"the unit of {name}", {run: metric.unit or "none" for run, metric in metrics.items()})
        _agreed(f"the label of {name}", {run: metric.label for run, metric in metrics.items()})
        _agreed(f"the signature of {name}", {run: metric.signature or "none" for run, metric in metrics.items()})
    margins = [metric.margin for metric in different if metric.margin is not None]
    shown = frozenset[str]().union(*(metric.shown for metric in different))
    return different[0]._replace(margin=min(margins, default=None), shown=shown)


def _agreed(what: str, values: Mapping[str, Any]) -> Any:
    """The one value of all runs. Raises UserError where there are several, and names a run of each but the first."""
    by_value: dict[Any, list[str]] = defaultdict(list)
    for run, value in values.items():
        by_value[value].append(run)
    if len(by_value) > 1:
        most, *others = sorted(by_value, key=lambda value: -len(by_value[value]))
        told = [f"{most} ({len(by_value[most])} run{'s' * (len(by_value[most]) != 1)})"]
        told += [f"{value} ({len(by_value[value])}, such as {by_value[value][0]})" for value in others]
        raise UserError(
            f"the records of these runs disagree about {what}: {', '.join(told)}; compare those that agree, by "
            "--where KEY=VALUE or in a folder of their own"
        )
    return next(iter(by_value))


CUSTOMARY = Declarations({metric.name: metric for metric in METRICS}, PRIMARY)
"""Words of tables made elsewhere."""
