"""Start or continue one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from losslab.config.binding import bind_components
from losslab.config.check import resolve_split
from losslab.config.identity import NOT_IDENTITY, fingerprint
from losslab.config.stored import INPUTS, LOGGERS, ORIGINS, moved_inputs, open_config, override
from losslab.errors import UserError
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder
from losslab.training.factory import check_components, hash_inputs
from losslab.training.origins.longer import refuse_other_budget
from losslab.training.origins.origin import model_hashes, own_hashes
from losslab.training.process.claim import SPLIT, Finder, note_other_code
from losslab.training.process.devices import check_devices
from losslab.training.process.dispatch import check_ranks, launch
from losslab.training.process.slurm import become_rank
from losslab.training.scoring.teacher import teacher_hash

RESUMABLE = (
    LOGGERS,
    *(key for key in NOT_IDENTITY if "." in key and key not in ("trainer.max_tokens", "trainer.max_epochs")),
)
"""Keys that a continued run may override."""

_CLAIM_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """The result of a job."""

    folder: RunFolder
    status: str
    """The status in the record, or `skipped` where the run was already done."""
    record: Record


def start(
    config: dict[str, Any], *, defaults: dict[str, Any], choices: dict[str, str], overrides: list[str]
) -> Outcome:
    """Run a checked configuration, continue its unfinished run, or report its finished one. Arguments: see `Finder`.

    Raises:
        UserError: for bad input, before any run's file is written.
    """
    become_rank()
    finder = Finder()
    place = finder.find(config, defaults=defaults, choices=choices, overrides=overrides)
    check_ranks(place.config)
    if place.record is not None and place.done:
        if finder.has_other_code(place):
            note_other_code(place)
        return Outcome(place.folder, "skipped", place.record)
    if _is_first():
        finder.claim(place, "running")
    else:
        _wait_for_first(place.folder, lambda: _is_claimed(place.folder))
    record = launch(place.folder, place.config)
    return Outcome(place.folder, record.status, record)


def resume(run: RunFolder, trust: list[str], overrides: list[str]) -> Outcome:
    """Continue a run in its folder, wherever that is now, with the configuration it stored.

    Args:
        trust: the classes outside losslab that this configuration may name.
        overrides: KEY=VALUE for what does not belong to the run's identity: devices, say, or where its text lies now.

    Raises:
        UserError: when the folder is no run, holds untrusted code or another text, or is running.
    """
    become_rank()
    record = run.record()
    stored = open_config(run.config(), trust, run.config_file)
    config = stored
    if record.status not in DONE:
        config = moved_inputs(config, run.path, record.provenance.get("folder"), overrides)
    refuse_other_budget(run, record, stored, overrides)
    config = override(_free_split(config, overrides), overrides, _changeable(run, stored))
    config = resolve_split(bind_components(open_config(config, trust, run.config_file)))
    if record.status in DONE:
        return Outcome(run, "skipped", record)
    check_components(config)
    check_devices(config)
    check_ranks(config)
    inputs = hash_inputs(config) | teacher_hash(config) | own_hashes(record, config) | model_hashes(record)
    if record.hashes.get("teacher") not in (None, inputs.get("loss.teacher")):
        raise UserError(f"loss.teacher={config['loss']['teacher']} is another run than the one that taught {run}")
    if fingerprint(config, inputs) != record.identity:
        if record.hashes.get("data") in inputs.values():
            raise UserError(
                f"{run.config_file} was changed since the run began; put it back, or train that as a run of its own"
            )
        raise UserError(f"{run} was made from another text or tokenizer than its paths now hold; put those back")
    if _is_first():
        with run.lock():
            run.write_config(config)
            record.provenance["folder"] = str(run.absolute())  # its inputs' paths are now those seen from here
            run.write(record)
    else:
        _wait_for_first(run, lambda: run.config() == config)
    record = launch(run, config)
    return Outcome(run, record.status, record)


def _changeable(run: RunFolder, config: dict[str, Any]) -> tuple[str, ...]:
    """Keys of a run that `resume` may change."""
    origins = () if run.has_checkpoint() else tuple(key for key in ORIGINS if config[key] is not None)
    return (*RESUMABLE, *INPUTS, *origins, *(["loss.teacher"] if "teacher" in config["loss"] else []))


def _free_split(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Clear the part of the stored split that follows from an overridden one."""
    given = {text.partition("=")[0].removeprefix("trainer.") for text in overrides} & set(SPLIT)
    follows = "micro_batch_size" if "accumulate_grad_batches" in given else "accumulate_grad_batches"
    if not given or follows in given:
        return config
    freed = {follows: None} if "micro_batch_size" in given else dict.fromkeys(SPLIT[2:])
    return {**config, "trainer": {**config["trainer"], **freed}}


def _is_first() -> bool:
    """Whether this process is rank 0 of an outer torchrun or srun, which alone writes to the folder before the
    others."""
    return int(os.environ.get("RANK", 0)) == 0


def _is_claimed(run: RunFolder) -> bool:
    return run.config_file.exists() and run.record_file.exists() and run.record().status == "running"


def _wait_for_first(run: RunFolder, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _CLAIM_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise UserError(f"rank 0 did not claim {run} within {_CLAIM_SECONDS} seconds")
        time.sleep(0.1)
