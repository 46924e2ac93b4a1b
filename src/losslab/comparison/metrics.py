"""What the comparison knows of each yardstick: its name for people, which side is better, which difference is none."""

from __future__ import annotations

PRIMARY = "nll_scaled"
HIGHER_IS_BETTER = frozenset(
    {"top1", "top5", "mrr", "accuracy", "acc", "f1", "macro_f1", "mcc", "exact_match", "bleu", "chrf", "pearson"}
)
"""Those of losslab, and what tables of results made elsewhere hold."""
NO_YARDSTICK = frozenset(
    {"step", "objective", "scale", "unigram_nll", "nll_linked_clipped", "logit_norm", "entropy", "zeros"}
)
"""Values that describe a model, but say nothing of which is better."""
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
    return short(metric).lower() in HIGHER_IS_BETTER


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
