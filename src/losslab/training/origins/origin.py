"""Find the run, and its checkpoint, that `continue_from` names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.config.binding import bind_components
from losslab.config.identity import NOT_IDENTITY, fingerprint, flatten, without
from losslab.config.stored import filled
from losslab.config.trust import allowed, foreign_targets, targets
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder, find_runs
from losslab.training.output.checkpoints import FOR_TRAINING, Damaged, read_checkpoint
from losslab.training.schedules import make_factor

KEY, WEIGHTS_KEY = "continue_from", "init_from"
OF_MODEL = "model."
"""Begins the keys of hashes of the files that a model is made from."""
_FREE = [
    "trainer.max_steps",
    "trainer.max_tokens",
    "trainer.val_check_interval",
    "trainer.interim_eval_tokens",
    "checkpoints",
    "scheduler",
    KEY,
    WEIGHTS_KEY,
]
"""Keys that may differ between a run and the one that it continues: the budget, those that follow from it, how often to
save, and the schedule, whose past is compared by itself."""
_TOLD = 4
_OF_CLASS = 100
"""The distance of two configurations whose classes differ: the keys are then not compared."""


@dataclass(frozen=True)
class Origin:
    """A run to be continued."""

    folder: RunFolder
    """Absolute."""
    record: Record
    config: dict[str, Any]
    """Bound, as it was stored."""
    checkpoint: str
    """The file's name, in its checkpoints."""
    step: int
    digest: str
    """SHA-256 of weights, optimizer states and step."""


class Unfit(UserError):
    """A run that cannot be continued as asked.

    Args:
        distance: by how many keys the configurations differ; 0 where it is something else.
    """

    def __init__(self, reason: str, distance: int = 0) -> None:
        super().__init__(reason)
        self.distance = distance


class Origins:
    """A cache, from one run of a sweep to the next, of the runs that it has looked at."""

    def __init__(self) -> None:
        self._sources: dict[RunFolder, tuple[Record, dict[str, Any]]] = {}
        self._steps: dict[tuple[Path, int, int], int | str] = {}
        self._digests: dict[tuple[Path, int, int], str] = {}

    def find(self, config: dict[str, Any], inputs: dict[str, str]) -> Origin | None:
        """The run that `continue_from` names, or, in a sweep's folder, the one that agrees with this configuration in
        everything but the budget; of several, the one that has come furthest. None where the key is null.

        Args:
            config: bound, its budget worked out.
            inputs: dotted key of each input → SHA-256 of its content.

        Raises:
            UserError: when there is no such run, or none that can be continued as asked.
        """
        if config[KEY] is None:
            return None
        place = Path(config[KEY]).expanduser().absolute()
        if not place.is_dir():
            kind = "is a file: name the folder of a run, or of a sweep" if place.exists() else "is not there"
            raise UserError(f"{KEY}={config[KEY]} {kind}")
        runs = find_runs(place)
        if not runs:
            raise UserError(f"{KEY}={config[KEY]} holds no run: name the folder of a run, or of a sweep")
        found, unfit = [], []
        for run in runs:
            try:
                found.append(self._open(run, config, inputs))
            except Unfit as error:
                unfit.append((error.distance, run.name, str(error)))
        if found:
            return max(found, key=lambda origin: (origin.step, len(origin.folder.name), origin.folder.name))
        _, name, reason = min(unfit)
        if runs == [RunFolder(place)]:
            raise UserError(f"{KEY}={config[KEY]}: {reason}")
        raise UserError(f"{KEY}={config[KEY]} holds no run that can go on as this one; the nearest is {name}: {reason}")

    def _open(self, run: RunFolder, config: dict[str, Any], inputs: dict[str, str]) -> Origin:
        if run not in self._sources:
            self._sources[run] = run.record(), filled(run.config(), run.config_file)
        record, stored = self._sources[run]
        stored = _agreeing(stored, config, inputs)
        budget, longer = stored["trainer"]["max_steps"], config["trainer"]["max_steps"]
        if longer <= budget:
            hint = f"; losslab resume {run} goes on to its end" if record.step < budget else ""
            raise Unfit(
                f"its budget is {budget:,} steps, and trainer.max_steps={longer:,} is no longer than that{hint}"
            )
        if fingerprint(_with_paths(stored, config, inputs), inputs | own_hashes(record, stored)) != record.identity:
            raise Unfit("it was made from another text or tokenizer, or its config.yaml was changed since")
        if run.is_locked():
            raise Unfit("it is running in another process: wait for its end")
        path, step = self._newest(run, stored, config)
        return Origin(run, record, stored, path.name, step, self._digest(path))

    def _newest(self, run: RunFolder, stored: dict[str, Any], config: dict[str, Any]) -> tuple[Path, int]:
        """The newest checkpoint with the same past as this run's, and its step."""
        steps: dict[int, Path] = {}
        reasons = []
        for path in run.checkpoint_files():
            step = self._step(path)
            if isinstance(step, str):
                reasons.append(step)
            elif step > 0:
                steps[step] = path
        if not steps:
            raise Unfit(f"it has no checkpoint to continue from: {reasons[0] if reasons else 'there is none'}")
        same = common_past(stored, config, max(steps))
        if fitting := [step for step in steps if step <= same]:
            return steps[max(fitting)], max(fitting)
        kept = ", ".join(f"{step:,}" for step in sorted(steps)[-_TOLD:])
        name = stored["scheduler"]["_target_"].rpartition(".")[2]
        raise Unfit(
            f"its learning rate ({name}) is that of this run only up to step {same:,}, and it has no checkpoint up to "
            f"there (it has step {kept}); a run with scheduler=constant or scheduler=wsd can be continued"
        )

    def _step(self, path: Path) -> int | str:
        """Its step, or why training cannot go on from it."""
        key = _state_of(path)
        if key not in self._steps:
            try:
                content = read_checkpoint(path)
                missing = [part for part in FOR_TRAINING if part not in content]
                told = f"{path.name} is without what training needs, which losslab clean removed"
                self._steps[key] = told if missing else int(content["losslab"]["step"])
            except Damaged as error:
                self._steps[key] = str(error)
        return self._steps[key]

    def _digest(self, path: Path) -> str:
        key = _state_of(path)
        if key not in self._digests:
            self._digests[key] = hash_checkpoint(read_checkpoint(path))
        return self._digests[key]


def hash_checkpoint(content: dict[str, Any]) -> str:
    """SHA-256 of what training goes on from: weights, optimizer states and step, and of nothing that depends on where,
    when or by whom they were made."""
    digest = hashlib.sha256(repr(content["losslab"]["step"]).encode())
    _add(digest, content["state_dict"])
    _add(digest, [state["state"] for state in content["optimizer_states"]])
    return digest.hexdigest()


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors by name, type and shape."""
    digest = hashlib.sha256()
    _add(digest, tensors)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(f"{key}:".encode())
            _add(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())


def own_hashes(record: Record, config: dict[str, Any]) -> dict[str, str]:
    """Hashes of what a run began with, as its record keeps them, by key."""
    return {key: record.hashes[key] for key in (KEY, WEIGHTS_KEY) if config[key] is not None and key in record.hashes}


def model_hashes(record: Record) -> dict[str, str]:
    """Hashes of the files that a run's model was made from, by dotted key: its checkpoints hold what was read there."""
    return {key: digest for key, digest in record.hashes.items() if key.startswith(OF_MODEL)}


def common_past(stored: dict[str, Any], config: dict[str, Any], most: int) -> int:
    """The number of first steps, of at most `most`, in which both schedules give the same learning rate, bit for bit. A
    scheduler of torch's is a function of its settings alone, whatever the budget."""
    theirs, ours = (make_factor(each["scheduler"], max_steps=each["trainer"]["max_steps"]) for each in (stored, config))
    if theirs is None or ours is None:
        return most if stored["scheduler"] == config["scheduler"] else 0
    return sum(1 for _ in takewhile(lambda step: step < most and theirs(step) == ours(step), count()))


def _agreeing(stored: dict[str, Any], config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """The stored configuration, bound; `Unfit` where it differs in more than the budget and the schedule. Classes that
    this configuration does not name itself are not imported."""
    theirs, ours = _compared(stored, inputs), _compared(config, inputs)
    classes = {key for key in theirs.keys() | ours.keys() if key.endswith("_target_")}
    _refuse({key: (theirs.get(key), ours.get(key)) for key in classes})
    unknown = targets(stored["scheduler"]) - allowed() - {*foreign_targets(config)}
    if unknown:
        raise Unfit(f"its schedule is code outside losslab, {', '.join(sorted(unknown))}, which this run does not name")
    stored = bind_components(stored)
    theirs = _compared(stored, inputs)
    _refuse({key: (theirs.get(key), ours.get(key)) for key in theirs.keys() | ours.keys()})
    return stored


def _compared(config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return flatten(without(config, [*NOT_IDENTITY, *_FREE, *inputs]))


def _refuse(values: dict[str, tuple[Any, Any]]) -> None:
    unequal = sorted(key for key, (theirs, ours) in values.items() if theirs != ours)
    if unequal:
        told = ", ".join(f"{key}={_shown(values[key][0])} (here {_shown(values[key][1])})" for key in unequal[:_TOLD])
        more = f" and {len(unequal) - _TOLD} more" if len(unequal) > _TOLD else ""
        raise Unfit(
            f"it has {told}{more}; everything but the budget must agree (init_from takes a run's weights alone)",
            sum(_OF_CLASS if key.endswith("_target_") else 1 for key in unequal),
        )


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _with_paths(stored: dict[str, Any], config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """The stored configuration with this one's inputs: whether they hold the same is what the fingerprint says."""
    for key in inputs:
        section, _, last = key.rpartition(".")
        stored = {**stored, section: stored[section] | {last: config[section][last]}}
    return stored


def _state_of(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size
