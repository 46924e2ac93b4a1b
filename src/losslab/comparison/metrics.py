"""What the comparison knows of each metric: its name for people, which side is better, which difference is none."""

from __future__ import annotations

import re

PRIMARY = "nll_scaled"
_HIGHER = (
    "top1 top5 mrr acc acc1 acc5 accuracy auc auroc f1 em mcc match bleu chrf rouge meteor pearson spearman r2".split()
)
_HIGHER += "precision recall ndcg map win score rate".split()
_LOWER = "nll loss perplexity ppl bits bpb bpc brier ece error err rmse mse mae wer cer ter".split()
"""Words in the names of metrics, losslab's own and those of tables made elsewhere."""
NOT_METRICS = frozenset(
    {"step", "objective", "scale", "unigram_nll", "nll_linked_clipped", "logit_norm", "entropy", "zeros"}
)
"""Values that describe a model, but say nothing of which is better."""
PER_TEXT = frozenset({"bits_per_byte", "word_perplexity"})
"""Metrics that count the text, whatever its tokens are."""
_MARGINS = {
    "bits_per_byte": 0.01,
    "top1": 0.005,
    "top5": 0.005,
    "mrr": 0.005,
    "brier": 0.005,
    "ece": 0.005,
    "ece_scaled": 0.005,
}
_NAMES = {
    "nll_scaled": "nll after one temperature",
    "nll": "nll",
    "nll_linked": "nll through the loss's own link",
    "perplexity": "perplexity",
    "word_perplexity": "perplexity per word",
    "bits_per_byte": "bits per byte",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mrr": "mean reciprocal rank",
    "brier": "Brier score",
    "ece": "calibration error",
    "ece_scaled": "calibration error after one temperature",
}


def short(metric: str) -> str:
    """`test/nll_scaled` → `nll_scaled`."""
    return metric.rpartition("/")[2]


def higher_is_better(metric: str) -> bool:
    """Raises KeyError for a name that says neither (`is_known`)."""
    side = _side(metric)
    if side is None:
        raise KeyError(metric)
    return side


def is_known(metric: str) -> bool:
    """Whether the name says which side is better."""
    return _side(metric) is not None


def _side(metric: str) -> bool | None:
    found = re.findall(r"[a-z]+\d*", short(metric).lower())
    words = [*found, *(word.rstrip("0123456789") for word in found)]  # f1, and rouge of rouge1
    # An error_rate is an error, whatever else it is.
    if any(word in _LOWER for word in words):
        return False
    return True if any(word in _HIGHER for word in words) else None


def is_nll(metric: str) -> bool:
    return short(metric).startswith("nll")


def margin_of(metric: str) -> float | None:
    """A difference below it counts as none: 0.01 nats, half a percentage point; None where no size is customary."""
    return 0.01 if is_nll(metric) else _MARGINS.get(short(metric))


def unit(metric: str) -> str:
    """What a difference is counted in."""
    if is_nll(metric):
        return "nats per token"
    return {"bits_per_byte": "bits per byte"}.get(short(metric), "")


def name(metric: str) -> str:
    """For people."""
    return _NAMES.get(short(metric), short(metric).replace("_", " "))
