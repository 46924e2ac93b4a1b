"""Start or continue a run: find its folder by what it computes, claim it, and hand it to the process that trains."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.config.check import bind_components, resolve_budget, resolve_split
from losslab.config.components import build
from losslab.config.identity import NOT_IDENTITY, fingerprint, folder_name
from losslab.config.stored import INPUTS, filled, moved_inputs, open_config, override
from losslab.config.trust import foreign_targets
from losslab.console import say
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.records import (
    CACHE,
    CONFIG,
    DONE,
    FILE,
    Record,
    find_identity,
    is_locked,
    lock,
    read,
    read_config,
    write_config,
)
from losslab.training.assemble import check_components, open_data
from losslab.training.provenance import hash_code, provenance
from losslab.training.ranks import run_workers
from losslab.training.run import execute

RESUMABLE = (
    "logger.enabled",
    *(key for key in NOT_IDENTITY if "." in key and key != "trainer.max_tokens"),
)
"""What a continued run may be given anew."""

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
    _check_nodes(config)
    data: TextDataModule = build(config["data"], "data")
    inputs = data.input_hashes()
    config = _absolute_paths(config, inputs)
    identity = fingerprint(config, inputs)
    parent = Path(config["output_dir"]) / config["name"]
    found = find_identity(parent, identity)
    if found and read(found[-1]).status in DONE:
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


def resume(folder: Path, trust: list[str], overrides: list[str]) -> Outcome:
    """Continue a run in its folder, wherever that is now, with the configuration it stored.

    Args:
        trust: the classes outside losslab that this configuration may name.
        overrides: KEY=VALUE for what does not belong to the run's identity: devices, say, or where its text lies now.

    Raises:
        UserError: when the folder is no run, holds untrusted code or another text, or is running.
    """
    record = read(folder)
    config = open_config(read_config(folder), trust, folder / CONFIG)
    if record.status in DONE:
        return Outcome(folder, "skipped", record)
    config = moved_inputs(config, folder, record.provenance.get("folder"), overrides)
    config = override(_free_split(config, overrides), overrides, (*RESUMABLE, *INPUTS))
    config = resolve_split(bind_components(open_config(config, trust, folder / CONFIG)))
    check_components(config)
    _check_nodes(config)
    inputs = build(config["data"], "data").input_hashes()
    if fingerprint(config, inputs) != record.identity:
        if record.hashes.get("data") in inputs.values():
            raise UserError(
                f"{folder / CONFIG} was changed since the run began; put it back, or train that as a run of its own"
            )
        raise UserError(f"{folder} was made from another text or tokenizer than its paths now hold; put those back")
    with lock(folder):
        write_config(folder, config)
        record.provenance["folder"] = str(folder.absolute())  # its inputs' paths are now those seen from here
        record.write(folder)
    return _launch(folder, config)


def _free_split(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Where one part of the stored split is given anew, another follows from it."""
    given = {text.partition("=")[0].removeprefix("trainer.") for text in overrides} & set(_SPLIT)
    follows = "micro_batch_size" if "accumulate_grad_batches" in given else "accumulate_grad_batches"
    if not given or follows in given:
        return config
    freed = {follows: None} if "micro_batch_size" in given else dict.fromkeys(_SPLIT[2:])
    return {**config, "trainer": {**config["trainer"], **freed}}


def _skip(folder: Path, config: dict[str, Any]) -> Outcome:
    """A run that is done stays as it is; where the code has changed since, that is said."""
    record = read(folder)
    code = hash_code(foreign_targets(config))
    if any(record.hashes.get(name) not in (None, digest) for name, digest in code.items()):
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
        stored = filled(read_config(folder), folder / CONFIG)["trainer"]
    except UserError:
        return config  # it is written anew when the run is claimed
    split = {key: stored[key] for key in _SPLIT}
    if None in split.values():
        return config
    if split != {key: config["trainer"][key] for key in _SPLIT}:
        say("continues with its stored split of the batch: " + ", ".join(f"{k}={v}" for k, v in split.items()))
    return {**config, "trainer": config["trainer"] | split}


def _claim(
    folder: Path, config: dict[str, Any], record: Record, inputs: dict[str, str], choices: dict[str, str]
) -> None:
    """Make the folder, its config.yaml and its run.json, or take over those of an unfinished run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent.parent / CACHE).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {error.filename or folder} cannot be made: {error.strerror}") from None
    with lock(folder):
        if (folder / FILE).exists():
            record = read(folder)
        record.status = "running"
        record.max_steps = config["trainer"]["max_steps"]
        changes = record.provenance.get("changes", [])
        record.provenance = provenance(folder) | {"choices": choices, "changes": changes}
        record.hashes["data"] = next(value for key, value in inputs.items() if key in ("data.path", "data.corpus"))
        write_config(folder, config)
        record.write(folder)


def _check_nodes(config: dict[str, Any]) -> None:
    if config["trainer"]["num_nodes"] > 1 and "RANK" not in os.environ:
        raise UserError("trainer.num_nodes above 1 needs an outer torchrun on every node")


def _launch(folder: Path, config: dict[str, Any]) -> Outcome:
    """Train here, or in one process a device through torchrun; an outer torchrun is recognised."""
    settings = config["trainer"]
    if settings["devices"] * settings["num_nodes"] == 1 or "RANK" in os.environ:
        record = execute(folder)
        return Outcome(folder, record.status, record)
    if is_locked(folder):
        raise UserError(f"{folder} is already running in another process; wait for it, or give another name=…")
    open_data(folder, config)  # what is wrong with the text is told here, and once
    ended = run_workers(folder, settings["devices"], foreign_targets(config))
    if is_locked(folder):  # by another start of the same run, whose record this is
        raise UserError(ended.cause or f"{folder} is already running in another process; wait for it")
    record = read(folder)
    if record.status == "running" or (ended.cause and record.status == "failed"):
        record.status = "interrupted" if ended.signalled else "failed"
        failure = ended.cause or f"the workers ended with exit code {ended.code}"
        record.error = "stopped by a signal" if ended.signalled else failure
        record.write(folder)
    return Outcome(folder, record.status, record)
