"""The identity of a run, and the name of its folder."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from typing import Any

from losslab.config.callbacks import deciding
from losslab.config.flags import DEBUG
from losslab.records import SHORT

NOT_IDENTITY = [
    "name",
    "output_dir",
    "fresh",
    "logger",  # of runs from before `loggers`
    "loggers",
    "loss.backend",
    "data.num_workers",
    "data.val_batch_size",
    "checkpoints.keep",
    "checkpoints.every_n_steps",
    "trainer.max_tokens",
    "trainer.max_epochs",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.compile",
    "trainer.activation_checkpointing",
    "trainer.threads",
    "trainer.micro_batch_size",
    "trainer.accumulate_grad_batches",
]
"""Keys that change where, how fast or how visibly a run is computed, but not what it computes."""

ADDED_LATER: dict[str, Any] = {
    "continue_from": None,
    "init_from": None,
    "data.max_eval_tokens": None,
    "trainer.interim_eval_tokens": 0,
    "data.val_path": None,
    "data.test_path": None,
    "data.separator": None,
    "data.val_fraction": None,
    "data.test_fraction": None,
    "data.rules": 1,
    "data.lowercase": False,
    "data.packing": "stream",
    "data.eval_stride": None,
    "data.source": None,
    "data.group": None,
    "data.unlabelled": "refuse",
    "data.header": None,
    "data.encoding": "utf-8",
    "data.format": None,
    "trainer.fast_dev_run": None,
    "trainer.overfit_batches": None,
    "trainer.limit_train_batches": None,
    "trainer.limit_val_batches": None,
    "trainer.limit_test_batches": None,
    "trainer.r_drop": 0.0,
    "task.pair": False,
    "task.pooling": "mean",
    "data.batch_tokens": None,
    "data.balance": 0,
    "data.special_tokens": None,
    "data.per_class": None,
    "data.per_class_seed": None,
    "data.val_references": None,
    "data.test_references": None,
    "data.references": None,
    "data.augment": None,
    "data.augment.deletion": 0,
    "data.augment.bpe_dropout": 0,
    "data.augment.masking": 0,
    "data.augment.word_deletion": 0,
    "data.augment.word_swap": 0,
    "data.augment.mixup": 0,
    "data.augment.time_masks": 0,
    "data.augment.time_mask_length": 10,
    "data.augment.frequency_masks": 0,
    "data.augment.frequency_mask_width": 8,
    "data.augment.paraphrases": None,
    "data.augment.paraphrasing": 0.5,
    "data.augment.label_noise": 0,
    "data.augment.label_noise_kind": "uniform",
    "data.augment.label_noise_seed": None,
    "model.norm_placement": "pre",
    "model.embedding_norm": False,
    "model.qk_norm": False,
    "model.num_kv_heads": None,
    "model.window": None,
    "model.num_types": 0,
    "model.drop_path": 0.0,
    "seeds.backbone_init": None,
    "seeds.head_init": None,
    "seeds.data_order": None,
    "seeds.dropout": None,
    "seeds.loss": None,
    "seeds.callbacks": None,
    "seeds.twin": None,
}
"""Dotted key → the value under which results are those from before the key was there. While it holds that value, the
key is left out of the hash, so that a new key changes no older run's fingerprint. Entries are only ever added."""

LATER_OF_CLASS: dict[str, dict[str, Any]] = {
    "losslab.losses.entmax.Entmax": {"label_smoothing": 0.0},
}
"""Class → the same of keys of its own, by which other classes of the section have other values; wherever a node of that
class stands, inside others too. Entries are only ever added."""

_LATER_SCOPED = ("model", "task")
"""Sections whose entries of ADDED_LATER are of losslab's own classes alone."""

EMPTY_LATER = ("data.augment", "seeds")
"""Sections added later: while all of their keys are left out of the hash, they are, too."""

HASHED_METRICS = (
    *"step nll nll_scaled nll_linked nll_linked_clipped perplexity word_perplexity bits_per_byte top1".split(),
    *"unigram_nll objective scale logit_norm top5 mrr brier entropy nll_epsilon zeros ece ece_scaled".split(),
    *(f"nll_scaled_frequency_{k}" for k in range(1, 6)),
)
"""Metrics of a teacher that enter its students' identity. Never changed: what is added later stays out of it."""

LEFT_LATER: dict[str, Any] = {"checkpoints.every_n_steps": 500}
"""Dotted key of NOT_IDENTITY that once counted → the value under which it is hashed ever since: the default of then, so
that most runs from before are found."""

_LONGEST_LABEL = 100
_ORIGINS = ("continue_from", "init_from")
_LONGEST_ORIGIN = 30
_FINGERPRINT = re.compile(rf"-([0-9a-f]{{{SHORT}}})(?:-\d+)?$")
"""Ends the name of a run's folder."""
USUAL = {"task": "lm", "model": "decoder", "model/size": "nano", "optimizer": "adamw", "scheduler": "cosine"}
"""Group → the choice that conf/train.yaml makes; others stand in the folder's name."""
_FIRST = ("seeds", *_ORIGINS, "loss", "regularizers", "optimizer", "scheduler", "callbacks", "model", "trainer")


def fingerprint(config: dict[str, Any], inputs: dict[str, str]) -> str:
    """SHA-256 of what `canonical` gives. Arguments: see there."""
    return hashlib.sha256(json.dumps(canonical(config, inputs), sort_keys=True).encode()).hexdigest()


def canonical(config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """The bound configuration without NOT_IDENTITY, each input path replaced by its content's hash.

    Args:
        config: after `check_run`, `bind_components` and `resolve_budget`.
        inputs: dotted key → SHA-256 of what lies under that path.
    """
    content = without(config, NOT_IDENTITY)
    for key, value in LEFT_LATER.items():
        section, _, last = key.rpartition(".")
        content.setdefault(section, {})[last] = value
    known = flatten(content)
    later = [key for key, old in ADDED_LATER.items() if key in known and known[key] == old]
    content = _without_later(without(content, [key for key in later if _ours(key, known)]))
    content = without(content, [key for key in EMPTY_LATER if _at(content, key) == {}])
    # A regularizer that is off is none, whether it was said or not.
    content["regularizers"] = {k: v for k, v in content.get("regularizers", {}).items() if v}
    if not content["regularizers"]:
        del content["regularizers"]
    elif content["loss"].get("class_weights") and content["regularizers"].keys() & {"z_loss", "confidence_penalty"}:
        # Until these were means over positions, class weights changed their size: those runs are others.
        content["regularizers"]["means"] = "positions"
    content["callbacks"] = deciding(content)
    if not content["callbacks"]:
        del content["callbacks"]
    for key, digest in inputs.items():
        *sections, last = key.split(".")
        holder = content
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[last] = f"sha256:{digest}"
    return content


def _without_later(node: Any) -> Any:
    """A copy without the keys of LATER_OF_CLASS that hold their old values, at any depth."""
    if not isinstance(node, dict):
        return node
    later = LATER_OF_CLASS.get(str(node.get("_target_")), {})
    return {key: _without_later(value) for key, value in node.items() if key not in later or value != later[key]}


def with_later(node: Any) -> Any:
    """A copy with the keys of LATER_OF_CLASS, for what was stored before they were there."""
    if not isinstance(node, dict):
        return node
    later = LATER_OF_CLASS.get(str(node.get("_target_")), {})
    return {key: with_later(value) for key, value in (node | (later | node)).items()}


def _ours(key: str, known: dict[str, Any]) -> bool:
    """Whether a later key is that of a class of losslab: a person's own model or task may always have had it."""
    section = key.partition(".")[0]
    return section not in _LATER_SCOPED or str(known.get(f"{section}._target_")).startswith("losslab.")


def folder_name(config: dict[str, Any], defaults: dict[str, Any], choices: dict[str, str], identity: str) -> str:
    """`<loss>-seed<n>-<other differences from the defaults>-<fingerprint>`, for people and shells.

    Args:
        defaults: the configuration that the same choice of groups gives without any single key changed.
        choices: group → the file chosen in it.
    """
    content = without(config, [*NOT_IDENTITY, "seed", "data.context"])  # the model's context, said once
    if named := "+".join(deciding(config)):
        content["callbacks"] = {"callbacks": named} | deciding(config)
        defaults = {**defaults, "callbacks": {"callbacks": ""} | (defaults.get("callbacks") or {})}
    else:
        content.pop("callbacks", None)
    values, before = flatten(content), flatten(defaults)
    parts = [loss_label(choices), f"seed{config['seed']}"]
    parts += [
        f"{group.rpartition('/')[2]}={choices[group]}"
        for group, usual in USUAL.items()
        if choices.get(group, usual) != usual
    ]
    for key, value in sorted(values.items(), key=lambda item: _rank(item[0])):
        if key in before and before[key] != value:
            shown = str(value).rpartition("/")[2] if isinstance(value, str) else value
            if key in _ORIGINS:
                found = _FINGERPRINT.search(str(shown))
                shown = found[1] if found else str(shown)[:_LONGEST_ORIGIN]
            name = key if key.startswith("seeds.") else key.rpartition(".")[2]  # seeds.loss is no loss
            parts.append(f"{name}={shown}")
    parts = [re.sub(r"[^A-Za-z0-9._=+-]+", "_", part) for part in parts]
    while len("-".join(parts)) > _LONGEST_LABEL and len(parts) > 2:
        parts.pop()  # the fingerprint still distinguishes runs whose labels are alike
    return "-".join([*parts, identity[:SHORT]])


def loss_label(choices: dict[str, str]) -> str:
    """The name of a run's loss: the file chosen for it; of a sum, those of its terms; of one around another, both."""
    terms = [choice for group, choice in sorted(choices.items()) if group.startswith("loss@")]
    return "+".join(terms if len(terms) > 1 else [choices["loss"], *terms])


def _rank(key: str) -> int:
    """Sort compared settings first: a label that is too long is cut from its end."""
    section, _, last = key.partition(".")
    if section == "trainer" and last in DEBUG:
        return -1
    return _FIRST.index(section) if section in _FIRST else len(_FIRST)


def without(config: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """A copy that lacks these dotted keys; those it does not have are passed over."""
    content = copy.deepcopy(config)
    for key in keys:
        *sections, last = key.split(".")
        holder: Any = content
        for section in sections:
            holder = holder.get(section) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(last, None)
    return content


def _at(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → leaf value."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
