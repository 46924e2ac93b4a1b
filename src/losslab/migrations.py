"""Older schemas of run.json, and how their records become those of today. No torch here.

Schema 1 had no diff, folder and changes, and no strategy and flags in hardware; schema 2 had no status planned, and no
first_step and visible_devices; schema 3 had no flops_per_token; up to schema 4 `metrics` was called yardsticks, and
every run was a language model's, whose metrics the record did not declare; schema 5 had no trial, and no status pruned.
All are read as schema 6, with null for what they lack.
"""

from __future__ import annotations

from typing import Any

SCHEMA = 6
_NLL = "nats per token"
_METRICS_OF_4: tuple[tuple[str, str, str, bool | None, float | None, str], ...] = (
    ("nll", "nll", _NLL, False, 0.01, "terminal events curves checked"),
    ("nll_scaled", "nll after one temperature", _NLL, False, 0.01, "terminal events curves"),
    ("nll_linked", "nll through the loss's own link", _NLL, False, 0.01, "terminal curves"),
    ("nll_linked_clipped", "share of targets whose linked probability was clipped", "", None, None, ""),
    ("perplexity", "perplexity", "", False, None, "terminal"),
    ("word_perplexity", "perplexity per word", "", False, None, "terminal per_text"),
    ("bits_per_byte", "bits per byte", "bits per byte", False, 0.01, "terminal events per_text"),
    ("top1", "top-1 accuracy", "", True, 0.005, "terminal events curves checked"),
    ("unigram_nll", "nll of the frequencies in train", _NLL, None, None, "terminal"),
    ("objective", "value of the loss itself", "", None, None, "terminal"),
    ("scale", "scale that fits the logits best", "", None, None, "curves"),
    ("logit_norm", "mean norm of the logits", "", None, None, ""),
    ("top5", "top-5 accuracy", "", True, 0.005, ""),
    ("mrr", "mean reciprocal rank", "", True, 0.005, ""),
    ("brier", "Brier score", "", False, 0.005, ""),
    ("entropy", "entropy of the prediction", "nats", None, None, ""),
    ("nll_epsilon", "nll epsilon", _NLL, False, 0.01, ""),
    ("zeros", "share of targets with probability 0", "", None, None, ""),
    ("ece", "calibration error", "", False, 0.005, ""),
    ("ece_scaled", "calibration error after one temperature", "", False, 0.005, ""),
    *((f"nll_scaled_frequency_{k}", f"nll scaled frequency {k}", _NLL, False, 0.01, "frequency") for k in range(1, 6)),
)
"""Metrics of the runs up to schema 4: name, label, unit, better side, margin and tags. Never changed."""


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    hardware: dict[str, Any] = dict.fromkeys(
        ("strategy", "deterministic", "float32_matmul_precision", "cudnn_allow_tf32")
    )
    provenance: dict[str, Any] = {"diff": None, "folder": None, "changes": []}
    return {
        **content,
        "schema": 2,
        "hardware": hardware | content["hardware"],
        "provenance": provenance | content["provenance"],
    }


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    hardware: dict[str, Any] = {"visible_devices": None}
    timing: dict[str, Any] = {"first_step": None}
    return {
        **content,
        "schema": 3,
        "hardware": hardware | content.get("hardware", {}),
        "timing": timing | content.get("timing", {}),
    }


def _from_3(content: dict[str, Any]) -> dict[str, Any]:
    throughput: dict[str, Any] = {"flops_per_token": None}
    return {**content, "schema": 4, "throughput": throughput | content.get("throughput", {})}


def _from_4(content: dict[str, Any]) -> dict[str, Any]:
    info = {
        name: {"label": label, "unit": unit, "higher_is_better": higher, "margin": margin, "shown": shown.split()}
        for name, label, unit, higher, margin, shown in _METRICS_OF_4
    }
    return {**with_metrics(content), "schema": 5, "metrics_info": info, "primary": "nll_scaled"}


def _from_5(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "schema": 6, "trial": {}}


def with_metrics(content: dict[str, Any]) -> dict[str, Any]:
    """A record, or an entry of evaluations.jsonl, whose metrics were called yardsticks up to schema 4."""
    if "yardsticks" not in content:
        return content
    renamed = {key: value for key, value in content.items() if key != "yardsticks"}
    return {"metrics": content["yardsticks"]} | renamed


_MIGRATIONS = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5}
"""Schema → what turns its records into those of the next."""


def migrate(content: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 6. Raises KeyError for a schema that there never was."""
    while content["schema"] < SCHEMA:
        content = _MIGRATIONS[content["schema"]](content)
    return content
