"""Start or continue a run: find its folder by what it computes, claim it, and hand it to the process that trains."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from losslab.config.check import bind_components, resolve_budget, resolve_split
from losslab.config.components import build, check_trusted, foreign_targets
from losslab.config.identity import fingerprint, folder_name
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.records import CONFIG, Record, find_identity, is_locked, lock, read, read_config, write_atomic
from losslab.training.provenance import provenance
from losslab.training.ranks import run_workers
from losslab.training.run import check_components, execute

_DONE = ("completed", "diverged")
_SPLIT = ("devices", "num_nodes", "micro_batch_size", "accumulate_grad_batches")


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    folder: Path
    status: str
    """As in the record, or `skipped` where the run was already done."""
    record: Record


def start(
    config: dict[str, Any], *, defaults: dict[str, Any], choices: dict[str, str], overrides: list[str]
) -> Outcome:
    """Run a checked configuration, continue its unfinished run, or report its finished one.

    Args:
        config: after `check_run`.
        defaults: the same choice of groups without any single key changed, for the folder's name.
        choices: group → the file chosen in it, for the record; the loss's also for the folder's name.
        overrides: as typed, for the record.

    Raises:
        UserError: for bad input, before any run's file is written.
    """
    bound = bind_components(config)
    config = resolve_split(resolve_budget(bound))
    check_components(config)
    data: TextDataModule = build(config["data"], "data")
    inputs = data.input_hashes()
    config = _absolute_paths(config, inputs)
    identity = fingerprint(config, inputs)
    parent = Path(config["output_dir"]) / config["name"]
    found = find_identity(parent, identity)
    if found and read(found[-1]).status in _DONE:
        if not config["fresh"]:
            return Outcome(found[-1], "skipped", read(found[-1]))
        folder = found[0].with_name(f"{found[0].name}-{len(found) + 1}")
    elif found:
        folder = found[-1]
        config = _keep_split(config, folder, overrides)
    else:
        folder = parent / folder_name(bound, defaults, choices["loss"], identity)
    record = Record(identity=identity, name=config["name"], overrides=overrides)
    _claim(folder, config, record, inputs, choices)
    return _launch(folder, config)


def resume(folder: Path, trust: list[str]) -> Outcome:
    """Continue a run in its folder, with the configuration it stored. Classes outside losslab need `trust`.

    Raises:
        UserError: when the folder is no run, holds untrusted code, or is running.
    """
    record = read(folder)
    config = read_config(folder)
    check_trusted(config, trust)
    if record.status in _DONE:
        return Outcome(folder, "skipped", record)
    config = bind_components(config)
    check_components(config)
    return _launch(folder, config)


def _absolute_paths(config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """Input paths as seen from anywhere, so that a run can be resumed from another folder."""
    data = dict(config["data"])
    for key in ("path", "tokenizer"):
        if f"data.{key}" in inputs:
            data[key] = str(Path(data[key]).expanduser().absolute())
    return {**config, "data": data}


def _keep_split(config: dict[str, Any], folder: Path, overrides: list[str]) -> dict[str, Any]:
    """An unfinished run continues with its stored split of the batch, unless the command names another."""
    if any(override.lstrip("+").startswith(tuple(f"trainer.{key}=" for key in _SPLIT)) for override in overrides):
        return config
    try:
        stored = read_config(folder)["trainer"]
    except UserError:
        return config  # it is written anew when the run is claimed
    return {**config, "trainer": config["trainer"] | {key: stored[key] for key in _SPLIT}}


def _claim(
    folder: Path, config: dict[str, Any], record: Record, inputs: dict[str, str], choices: dict[str, str]
) -> None:
    """Make the folder, its config.yaml and its run.json, or take over those of an unfinished run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be written: {error.strerror}") from None
    with lock(folder):
        if (folder / "run.json").exists():
            record = read(folder)
        record.status = "running"
        record.max_steps = config["trainer"]["max_steps"]
        record.provenance = provenance() | {"choices": choices}
        record.hashes["data"] = next(value for key, value in inputs.items() if key in ("data.path", "data.corpus"))
        write_atomic(folder / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
        record.write(folder)


def _launch(folder: Path, config: dict[str, Any]) -> Outcome:
    """Train here, or in one process a device through torchrun; an outer torchrun or SLURM is recognised."""
    settings = config["trainer"]
    if settings["devices"] * settings["num_nodes"] == 1 or "RANK" in os.environ:
        record = execute(folder)
        return Outcome(folder, record.status, record)
    if is_locked(folder):
        raise UserError(f"{folder} is already running in another process; wait for it, or give another name=…")
    if settings["num_nodes"] > 1:
        raise UserError("trainer.num_nodes above 1 needs an outer torchrun or SLURM on every node")
    code, signalled = run_workers(folder, settings["devices"], foreign_targets(config))
    record = read(folder)
    if record.status == "running":
        record.status = "interrupted" if signalled else "failed"
        record.error = "stopped by a signal" if signalled else f"the workers ended with exit code {code}"
        record.write(folder)
    return Outcome(folder, record.status, record)
