"""The metrics that losslab computes itself, as its tasks declare them. Records keep the declarations, and everything
that shows or compares metrics reads the records. No torch here."""

from __future__ import annotations

from losslab.metric import Metric
from losslab.metrics.frequency import FREQUENCY_GROUPS

NLL = "nats per token"
_MARGIN_OF_NLL = 0.01
_MARGIN_OF_LABEL_NLL = 0.001
_MARGIN_OF_SHARE = 0.005
"""Half a percentage point."""


def _lower(name: str, label: str, *shown: str, unit: str = "", margin: float | None = None) -> Metric:
    return Metric(name, label, unit, False, margin, frozenset(shown))


def _nll(name: str, label: str, *shown: str) -> Metric:
    return _lower(name, label, *shown, unit=NLL, margin=_MARGIN_OF_NLL)


def _share(name: str, label: str, *shown: str, higher_is_better: bool) -> Metric:
    return Metric(name, label, "", higher_is_better, _MARGIN_OF_SHARE, frozenset(shown))


def _diagnosis(name: str, label: str, *shown: str, unit: str = "") -> Metric:
    return Metric(name, label, unit, None, None, frozenset(shown))


METRICS: tuple[Metric, ...] = (
    _nll("nll", "nll", "terminal", "events", "curves", "checked"),
    _nll("nll_scaled", "nll after one temperature", "terminal", "events", "curves"),
    _nll("nll_linked", "nll through the loss's own link", "terminal", "curves"),
    _diagnosis("nll_linked_clipped", "share of targets whose linked probability was clipped"),
    _lower("perplexity", "perplexity", "terminal"),
    _lower("word_perplexity", "perplexity per word", "terminal", "per_text"),
    _lower("bits_per_byte", "bits per byte", "terminal", "events", "per_text", unit="bits per byte", margin=0.01),
    _share("top1", "top-1 accuracy", "terminal", "events", "curves", "checked", higher_is_better=True),
    _diagnosis("unigram_nll", "nll of the frequencies in train", "terminal", unit=NLL),
    _diagnosis("objective", "value of the loss itself", "terminal"),
    _diagnosis("scale", "scale that fits the logits best", "curves"),
    _diagnosis("logit_norm", "mean norm of the logits"),
    _share("top5", "top-5 accuracy", higher_is_better=True),
    _share("mrr", "mean reciprocal rank", higher_is_better=True),
    _share("brier", "Brier score", higher_is_better=False),
    _diagnosis("entropy", "entropy of the prediction", unit="nats"),
    _nll("nll_epsilon", "nll epsilon"),
    _diagnosis("zeros", "share of targets with probability 0"),
    _share("ece", "calibration error", higher_is_better=False),
    _share("ece_scaled", "calibration error after one temperature", higher_is_better=False),
    *(
        _nll(f"nll_scaled_frequency_{k + 1}", f"nll scaled frequency {k + 1}", "frequency")
        for k in range(FREQUENCY_GROUPS)
    ),
)
"""Metrics in the order in which people read them: of metrics.csv and of tables."""
PRIMARY = "nll_scaled"
"""The metric by which a language model's best checkpoint is chosen."""

_OF_TOKENS = ("word_perplexity", "bits_per_byte", "unigram_nll")
CLASS_METRICS: tuple[Metric, ...] = tuple(
    metric._replace(unit="nats") if metric.unit == NLL else metric
    for metric in METRICS
    if metric.name not in _OF_TOKENS
)
"""Metrics of targets that are classes, and no tokens of a text."""

BY_CLASS: tuple[Metric, ...] = (
    _share("macro_f1", "macro F1", "terminal", "events", "curves", higher_is_better=True),
    _share("balanced_accuracy", "balanced accuracy", "terminal", "curves", higher_is_better=True),
    _share("mcc", "Matthews correlation", "terminal", "curves", higher_is_better=True),
)
"""Metrics of `metrics/confusion.py`, for tasks whose classes are few."""

_PER_LABEL = "nats per label"
LABEL_METRICS: tuple[Metric, ...] = (
    _lower("nll", "nll", "terminal", "events", "curves", "checked", unit=_PER_LABEL, margin=_MARGIN_OF_LABEL_NLL),
    _lower(
        "nll_scaled", "nll after one scale and shift", "terminal", "events", "curves", unit=_PER_LABEL,
        margin=_MARGIN_OF_LABEL_NLL,
    ),
    _lower(
        "nll_linked", "nll through the loss's own link", "terminal", unit=_PER_LABEL,
        margin=_MARGIN_OF_LABEL_NLL,
    ),
    _diagnosis("nll_linked_clipped", "share of decisions whose linked probability was clipped"),
    _share("micro_f1", "micro F1", "terminal", "events", "curves", higher_is_better=True),
    _share("macro_f1", "macro F1", "terminal", "events", "curves", higher_is_better=True),
    _share(
        "micro_f1_fitted", "micro F1 at val's threshold", "terminal", "events", "curves", "checked",
        higher_is_better=True,
    ),
    _share("macro_f1_fitted", "macro F1 at val's threshold", "terminal", higher_is_better=True),
    _share("subset_accuracy", "rows of which all labels are right", "terminal", higher_is_better=True),
    _share("hamming_loss", "share of wrong decisions", "terminal", higher_is_better=False),
    _diagnosis("objective", "value of the loss itself", "terminal"),
    _diagnosis("scale", "scale that fits the logits best", "curves"),
    _diagnosis("shift", "shift that fits the logits best", "curves"),
    _diagnosis("threshold", "threshold of the best micro F1"),
    _share("average_precision", "mean average precision", "terminal", higher_is_better=True),
    _share("auroc", "mean area under the ROC curve", "terminal", higher_is_better=True),
    _share("brier", "Brier score", higher_is_better=False),
    _share("ece", "calibration error", higher_is_better=False),
    _share("ece_scaled", "calibration error after one scale and shift", higher_is_better=False),
)  # fmt: skip
"""Metrics of labels that do not exclude one another (`metrics/label_meter.py`)."""

TOKEN_METRICS: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.name not in _OF_TOKENS)
"""Metrics of tokens that are a part of a text, so that none counts its bytes or words."""
MASKED_METRICS: tuple[Metric, ...] = tuple(
    _lower("masked_perplexity", "perplexity of hidden tokens", "terminal") if metric.name == "perplexity" else metric
    for metric in TOKEN_METRICS
)
"""Metrics of tokens that are hidden from a model that reads both sides: no product of theirs is a text's likelihood."""
