"""The metric that was meant, by the words under which a field knows it."""

from __future__ import annotations

import re
from collections.abc import Collection

from losslab.config.nearest import closest

_SPLITS = ("test/", "text/", "val/", "")
_PREFIX = re.compile(r"(test|val)(?:id|idation)?[/_.-]+")
_WORDS = {
    "top1 subset_accuracy": "accuracy acc acc1 acc_1 top_1 top1_accuracy accuracy_score",
    "top5": "acc5 acc_5 top_5 top5_accuracy",
    "entity_f1 micro_f1 macro_f1": "f1 f1_score f_score f_measure",
    "macro_f1": "f1_macro macro_f",
    "micro_f1": "f1_micro micro_f",
    "perplexity masked_perplexity": "ppl perp perplexity",
    "bits_per_byte": "bpb bpc bits_per_character",
    "nll nll_scaled": "loss ce xent cross_entropy log_loss logloss",
    "mcc": "matthews matthews_corrcoef matthews_correlation",
    "balanced_accuracy": "bacc balanced_acc",
    "auroc": "auc roc_auc rocauc",
    "average_precision": "ap map auprc pr_auc",
    "rmse": "mse rms mean_squared_error",
    "mae": "l1 mean_absolute_error",
    "pearson": "r pearsonr correlation",
    "spearman": "rho spearmanr",
    "r2": "r_2 r_squared",
    "exact_match": "em exact",
    "ece": "calibration_error expected_calibration_error",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "hamming_loss": "hamming",
    "mrr": "mean_reciprocal_rank",
}
SYNONYMS = {word: names.split() for names, words in _WORDS.items() for word in words.split()}
"""Word → names of metrics that it may mean."""


def nearest_metric(typed: str, known: Collection[str]) -> str:
    """`did you mean 'test/top1'?`, for accuracy, acc, val_acc, top1, …; of another word the metric that is spelled most
    like it, or a list of what there is."""
    word = typed.lower()
    prefix = _PREFIX.match(word)
    splits = _SPLITS if prefix is None else (f"{prefix[1]}/", "")
    word = re.sub(r"[^a-z0-9]+", "_", word[0 if prefix is None else prefix.end() :]).strip("_")
    for split in splits:
        if meant := [
            f"{split}{name}" for name in dict.fromkeys([word, *SYNONYMS.get(word, ())]) if f"{split}{name}" in known
        ]:
            return f"did you mean {' or '.join(map(repr, meant))}?"
    own = {name.rpartition("/")[2]: name for split in reversed(splits) for name in known if name.startswith(split)}
    if (like := closest(word, own)) is not None:  # without the split, which most names share
        return f"did you mean {own[like]!r}?"
    return f"there are {', '.join(sorted(known))}" if known else "there are none"
