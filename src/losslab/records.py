"""run.json: the record that each run keeps of itself. No torch here.

Schema 6. Every key is always present; unknown values are null.

identity    SHA-256 of what determines the run's numbers (config/identity.py)
name        the sweep's folder below the output folder
overrides   the command-line overrides, as typed
status      planned | running | completed | failed | diverged | interrupted | pruned; planned: a sweep will come to it;
            pruned: a search, or a sweep that adds seeds, ended it early, and continues it no more
step        optimizer steps in the last checkpoint; max_steps is the budget
metrics     {"final": {"val/nll": …, "test/nll": …}, "best": {…, "step": …}}
metrics_info  metric → {label, unit, higher_is_better, margin, shown}, as the run's task declares it (metric.py), in the
            order of tables; empty in a table's line
primary     the metric whose best value on val makes a checkpoint the best one
hashes      backbone_init, projection_init (absent where the loss needs a number of outputs of its own), loss_init (of a
            loss with parameters or buffers), batches, data, tokenizer, code, own_code (of classes outside losslab, if
            any), continue_from and init_from (of what the run began with, if anything); SHA-256, hex
versions    of Python and the packages that compute
provenance  commit, dirty, diff (SHA-256 of what is not committed), command (as typed), folder (where the run was made),
            choices (group → the file chosen in it), vocab_size, outputs (where they
            are others) and parameters (of the network; older ones lack them), positions_per_sample (mean, of train),
            positions (what they are called: tokens, rows or positions; older ones lack it),
            samples_per_step (mean, where steps have other numbers of samples than data.batch_size),
            text ({files, how, documents, words and tokens by split, overlap, tokenizer_lossless, round_trip}: what was
            read, in words; how it was cut and split; copies across splits; whether val comes back from its tokens),
            changes ([{step, hashes.code, versions}]: what the run was begun with, where a continuation had other code),
            continued (of a run with continue_from, what it goes on from: identity, checkpoint, step, max_steps,
            val_check_interval and interim_eval_tokens of that run; same_sums: whether devices, micro-batches and
            threads are the same; best_from: null, or the step from which on the best checkpoint counts),
            debug (dotted key → value of the flags that make this a debug run; empty otherwise), worked_out (dotted key
            → [given, found]: shares and passes of the data, and the batches or steps that they are),
            init_from (of a run with init_from: taken and not_taken, names and shapes of weights),
            monitors (callback → the metric that it monitors, and its side), not_repeatable (callbacks that go by a
            clock), observers (callbacks of one's own that only observe), weights (`averaged` where a callback puts
            averages in their place); each only where there is one
timing      started, updated (ISO 8601, UTC), seconds (training time over all sessions, validations included),
            validation_seconds (those of the validations; null in older records),
            first_step (seconds from the start of the last session to its first optimizer step)
hardware    threads (of a run that its sweep has planned, those it will use), device (kind),
            visible_devices (CUDA_VISIBLE_DEVICES), ranks, micro_batch_size, accumulate_grad_batches, precision,
            strategy, deterministic, float32_matmul_precision, cudnn_allow_tf32, host
throughput  tokens_per_second (positions, in training alone; in records without validation_seconds, in validations too),
            flops_per_token (of a forward and backward pass; those of a teacher included)
memory      peak_mib
trial       of a run that a search drew (hydra/sweeper=optuna): study (its name), number (of the trial, from 0) and
            searched (the keys); empty otherwise
error       null, or what ended the run
stopped     of a run that a callback ended before its budget did: step, by (the callback's name), reason; or empty

Records of older schemas are read as schema 6 (migrations.py).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.metric import Metric, from_info, is_info, to_info
from losslab.migrations import SCHEMA, migrate

FILE = "run.json"
CONFIG = "config.yaml"
COMMAND = "LOSSLAB_COMMAND"
"""The environment variable in which the processes of `losslab train` find what was typed."""
STATUSES = ("planned", "running", "completed", "failed", "diverged", "interrupted", "pruned")
DONE = ("completed", "diverged")
"""Results, which are not trained again."""
SHORT = 10
"""Hex digits of the identity in a folder's name."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Record:
    """The content of run.json; see the module's docstring for the meaning of each key."""

    identity: str
    name: str
    overrides: list[str] = field(default_factory=list)
    status: str = "running"
    step: int = 0
    max_steps: int = 0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics_info: dict[str, dict[str, Any]] = field(default_factory=dict)
    primary: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    throughput: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    trial: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stopped: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        self.timing["updated"] = now()
        content = plain(asdict(self))
        ordered = {key: content[key] if key == "metrics_info" else _by_key(content[key]) for key in sorted(content)}
        write_atomic(folder / FILE, json.dumps(ordered, indent=2).encode() + b"\n")

    def declare(self, metrics: Sequence[Metric], primary: str) -> None:
        """Keep what the run's task says of its metrics today.

        Raises:
            UserError: as `to_info` does, and when a run that has begun chose its best checkpoint by another metric.
        """
        info, before = to_info(metrics, primary), self.metrics_info.get(self.primary)
        if self.step and before is not None:
            chosen, now_chosen = _best(self.primary, before), _best(primary, info[primary])
            if chosen != now_chosen:
                raise UserError(
                    f"task: this run chose its best checkpoint by {chosen} up to step {self.step}, and would now "
                    f"choose it by {now_chosen}; train it again under another name=…"
                )
        self.metrics_info, self.primary = info, primary

    @property
    def declared(self) -> dict[str, Metric]:
        """Each metric by its name."""
        return from_info(self.metrics_info)

    @property
    def positions(self) -> str:
        """The name of what it counts as positions; of an older record, which does not say, by what it read."""
        about = self.provenance
        older = "positions" if "rows" in about.get("text", {}) else "tokens"
        return str(about.get("positions") or ("rows" if about.get("positions_per_sample") == 1 else older))

    @property
    def primary_metric(self) -> Metric:
        """Declaration of `primary`. Raises KeyError for a record that has none yet."""
        return self.declared[self.primary]

    def names_shown(self, place: str) -> list[str]:
        """The metrics that carry a tag (`losslab.metric.PLACES`) or are the primary one, in their order."""
        return [name for name, metric in self.declared.items() if place in metric.shown or name == self.primary]

    def headline(self, split: str) -> str:
        """`test/nll_scaled 3.2500`, the primary metric at the best checkpoint; or nothing, where there is no value."""
        value = self.metrics.get("best", {}).get(f"{split}/{self.primary}")
        return "" if value is None else f"{split}/{self.primary} {value:.4f}"


def _best(name: str, info: dict[str, Any]) -> str:
    """`the smallest nll_scaled`."""
    return f"the {'largest' if info['higher_is_better'] else 'smallest'} {name}"


def read(folder: Path) -> Record:
    """The record in `folder`. Raises UserError when there is none, or when it cannot be read."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {FILE}: it is not a run's folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); move it away to run this configuration again") from None
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise UserError(f"{path} is no record of a run; move it away to run this configuration again")
    if content["schema"] > SCHEMA:
        raise UserError(f"{path} has schema {content['schema']}, and this losslab reads up to {SCHEMA}; update losslab")
    known = {f.name for f in fields(Record)}
    try:
        content = migrate(content)
        record = Record(**{key: value for key, value in content.items() if key in known})
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is not a whole record; move it away to run this configuration again") from None
    return _checked(record, path)


def _checked(record: Record, path: Path) -> Record:
    """The record, if each key holds what its schema says; a hand that edited it may have slipped."""
    empty = Record(identity="", name="")
    for key, value in vars(record).items():
        expected = str if key == "error" else type(getattr(empty, key))
        if not (isinstance(value, expected) or (key == "error" and value is None)):
            raise UserError(f"{path} holds {value!r} as {key}; move it away to run this configuration again")
    for part in record.metrics.values():
        if not isinstance(part, dict) or not all(value is None or _is_number(value) for value in part.values()):
            raise UserError(f"{path} holds metrics that are no numbers; move it away to run this configuration again")
    plain = {
        "hashes": all(isinstance(value, str) for value in record.hashes.values()),
        "stopped": not record.stopped or _is_stop(record.stopped),
        "versions": all(isinstance(value, str) for value in record.versions.values()),
        "hardware.threads": isinstance(record.hardware.get("threads"), int | None),
        "trial": not record.trial or is_trial(record.trial),
        "timing.seconds": record.timing.get("seconds") is None or _is_number(record.timing["seconds"]),
        "timing.validation_seconds": record.timing.get("validation_seconds") is None
        or _is_number(record.timing["validation_seconds"]),
        "provenance.choices": isinstance(record.provenance.get("choices", {}), dict),
        "provenance.observers": isinstance(record.provenance.get("observers", []), list),
        "provenance.folder": isinstance(record.provenance.get("folder"), str | None),
        "provenance.positions": isinstance(record.provenance.get("positions"), str | None),
        "provenance.text": isinstance(record.provenance.get("text", {}), dict),
        "provenance.debug": isinstance(record.provenance.get("debug", {}), dict),
        "provenance.worked_out": isinstance(record.provenance.get("worked_out", {}), dict),
        "provenance.changes": isinstance(record.provenance.get("changes", []), list),
    }
    for name in (name for name, right in plain.items() if not right):
        raise UserError(f"{path} holds something else than it must as {name}; move it away to run this again")
    if not is_info(record.metrics_info, record.primary):
        raise UserError(f"{path} holds metrics_info that declares no metrics; move it away to run this again")
    if record.status not in STATUSES:
        raise UserError(f"{path} holds no status but {record.status!r}; move it away to run this configuration again")
    return record


def is_trial(trial: dict[str, Any]) -> bool:
    """Whether this is what a record says of its trial."""
    searched = trial.get("searched")
    return (
        isinstance(trial.get("study"), str)
        and isinstance(trial.get("number"), int)
        and isinstance(searched, list)
        and all(isinstance(key, str) for key in searched)
    )


def _is_stop(stopped: dict[str, Any]) -> bool:
    return all(isinstance(stopped.get(key), kind) for key, kind in (("step", int), ("by", str), ("reason", str)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick, where PyYAML came with it


def _load_plain(text: str) -> Any:
    """Plain values only. Anchors and aliases, which losslab never writes, can hide what a file says, or blow it up."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader)):
        raise yaml.YAMLError("it holds a YAML alias, which losslab never writes")
    return yaml.load(text, Loader=_Loader)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration beside the record."""
    write_atomic(folder / CONFIG, yaml.dump(config, Dumper=_PlainDumper, sort_keys=False).encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved configuration in `folder`. Raises UserError when it is missing or damaged."""
    path = folder / CONFIG
    try:
        content = _load_plain(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {CONFIG}; only the command that made the run can write it again") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    groups = ("model", "loss", "data", "optimizer", "scheduler", "task", "trainer")
    if not (isinstance(content, dict) and "seed" in content and all(isinstance(content.get(g), dict) for g in groups)):
        raise UserError(f"{path} cannot be read: it is not a run's configuration")
    return content


def _by_key(value: Any) -> Any:
    """Dictionaries in the order of their keys: equal records are equal files."""
    if isinstance(value, dict):
        return {key: _by_key(value[key]) for key in sorted(value)}
    return [_by_key(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
