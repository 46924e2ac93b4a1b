"""Start or continue a run: find its folder by what it computes, claim it, and hand it to the process that trains."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from losslab.config.check import bind_components, check_run, resolve_budget, resolve_split
from losslab.config.components import build, check_trusted, foreign_targets
from losslab.config.identity import fingerprint, folder_name
from losslab.console import say
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.records import CONFIG, FILE, Record, find_identity, is_locked, lock, read, read_config, write_atomic
from losslab.training.provenance import hash_code, provenance
from losslab.training.ranks import run_workers
from losslab.training.run import check_components, execute

_DONE = ("completed", "diverged")
_CLAIM_SECONDS = 120
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
            return _skip(found[-1], config)
        folder = _next_repetition(found)
    elif found:
        folder = found[-1]
        config = _keep_split(config, folder, overrides)
        check_components(config)
    else:
        folder = parent / folder_name(bound, defaults, choices["loss"], identity)
    if int(os.environ.get("RANK", 0)) == 0:
        record = Record(identity=identity, name=config["name"], overrides=overrides)
        _claim(folder, config, record, inputs, choices)
    else:
        _wait_for_claim(folder)
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
    config = bind_components(check_run(config))
    check_components(config)
    if fingerprint(config, build(config["data"], "data").input_hashes()) != record.identity:
        raise UserError(f"{folder} was made from another text or tokenizer than its paths now hold; put those back")
    return _launch(folder, config)


def _skip(folder: Path, config: dict[str, Any]) -> Outcome:
    """A run that is done stays as it is; where the code has changed since, that is said."""
    record = read(folder)
    if record.hashes.get("code") not in (None, hash_code(foreign_targets(config))):
        say(f"note: the code has changed since {folder.name} was trained; fresh=true repeats it")
    return Outcome(folder, "skipped", record)


def _next_repetition(found: list[Path]) -> Path:
    """The first free name among X-2, X-3, … behind all that exist."""
    original, number = found[0], len(found) + 1
    while (folder := original.with_name(f"{original.name}-{number}")).exists():
        number += 1
    return folder


def _wait_for_claim(folder: Path) -> None:
    """Under an outer torchrun only rank 0 claims the folder; the others come after it."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while not ((folder / CONFIG).exists() and (folder / FILE).exists() and read(folder).status == "running"):
        if time.monotonic() > deadline:
            raise UserError(f"rank 0 did not claim {folder} within {_CLAIM_SECONDS} seconds")
        time.sleep(0.1)


def _absolute_paths(config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """Input paths as seen from anywhere, so that a run can be resumed from another folder."""
    data = dict(config["data"])
    for key in ("path", "tokenizer"):
        if f"data.{key}" in inputs:
            data[key] = str(Path(data[key]).expanduser().absolute())
    return {**config, "data": data}


def _keep_split(config: dict[str, Any], folder: Path, overrides: list[str]) -> dict[str, Any]:
    """An unfinished run continues with its stored split of the batch, unless the command names another."""
    naming = ("trainer=", *(f"trainer.{key}=" for key in _SPLIT))
    if any(override.lstrip("+").startswith(naming) for override in overrides):
        return config
    try:
        stored = read_config(folder)["trainer"]
    except UserError:
        return config  # it is written anew when the run is claimed
    split = {key: stored[key] for key in _SPLIT}
    if split != {key: config["trainer"][key] for key in _SPLIT}:
        say("continues with its stored split of the batch: " + ", ".join(f"{k}={v}" for k, v in split.items()))
    return {**config, "trainer": config["trainer"] | split}


def _claim(
    folder: Path, config: dict[str, Any], record: Record, inputs: dict[str, str], choices: dict[str, str]
) -> None:
    """Make the folder, its config.yaml and its run.json, or take over those of an unfinished run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be written: {error.strerror}") from None
    with lock(folder):
        if (folder / FILE).exists():
            record = read(folder)
        record.status = "running"
        record.max_steps = config["trainer"]["max_steps"]
        record.provenance = provenance() | {"choices": choices}
        record.hashes["data"] = next(value for key, value in inputs.items() if key in ("data.path", "data.corpus"))
        write_atomic(folder / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
        record.write(folder)


def _launch(folder: Path, config: dict[str, Any]) -> Outcome:
    """Train here, or in one process a device through torchrun; an outer torchrun is recognised."""
    settings = config["trainer"]
    if settings["devices"] * settings["num_nodes"] == 1 or "RANK" in os.environ:
        record = execute(folder)
        return Outcome(folder, record.status, record)
    if is_locked(folder):
        raise UserError(f"{folder} is already running in another process; wait for it, or give another name=…")
    if settings["num_nodes"] > 1:
        raise UserError("trainer.num_nodes above 1 needs an outer torchrun on every node")
    code, signalled = run_workers(folder, settings["devices"], foreign_targets(config))
    record = read(folder)
    if record.status == "running":
        record.status = "interrupted" if signalled else "failed"
        record.error = "stopped by a signal" if signalled else f"the workers ended with exit code {code}"
        record.write(folder)
    return Outcome(folder, record.status, record)
