"""Hand a claimed run to the process, or the processes, that train it."""

from __future__ import annotations

import os
import time
from typing import Any

from torch import distributed

from losslab.config.trust import foreign_targets
from losslab.errors import Held, UserError
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.factory import open_data
from losslab.training.process.torchrun import run_workers
from losslab.training.run import execute

_TICK = 0.1


def check_ranks(config: dict[str, Any]) -> None:
    """Refuse an outer launcher that started something else. Raises UserError."""
    devices, nodes = config["trainer"]["devices"], config["trainer"]["num_nodes"]
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" in os.environ and ranks != devices * nodes:
        raise UserError(
            f"torchrun or srun started {ranks} ranks of one run, and trainer.devices={devices} × "
            f"trainer.num_nodes={nodes} is {devices * nodes}: make them equal; runs of their own are started one by one"
        )


def launch(run: RunFolder, config: dict[str, Any], *, began: float | None = None) -> Record:
    """Train here, or in one process a device through torchrun; an outer torchrun is recognised.

    Args:
        began: when the process started, by time.monotonic().

    Raises:
        UserError: for bad input, and when another process holds the run (`Held`).
    """
    settings = config["trainer"]
    check_ranks(config)
    if "RANK" in os.environ:
        record = execute(run, began=began)
        _leave(run, record)
        return record
    if settings["devices"] * settings["num_nodes"] == 1:
        return execute(run, began=began)
    if run.is_locked():
        raise Held(f"{run} is already running in another process; wait for it, or give another name=…")
    open_data(run, config)  # faults of the text are reported here, and once
    ended = run_workers(run, settings["devices"], foreign_targets(config))
    if run.is_locked():  # by another start of the same run, whose record this is
        raise Held(ended.cause or f"{run} is already running in another process; wait for it")
    record = run.record()
    if record.status == "running" or (ended.cause and record.status == "failed"):
        record.status = "interrupted" if ended.signalled else "failed"
        failure = ended.cause or f"the workers ended with exit code {ended.code}"
        record.error = "stopped by a signal" if ended.signalled else failure
        run.write(record)
    return record


def _leave(run: RunFolder, record: Record) -> None:
    """End a rank's part in a run: ranks other than 0 stay until rank 0, which writes the record, has ended the run.

    torchrun and srun kill all ranks as soon as one of them ends with an exit code other than 0. A rank that failed
    leaves at once instead, because the others may wait for it in a collective.
    """
    if record.status == "failed":
        return
    if distributed.is_initialized():
        distributed.destroy_process_group()  # its threads must not outlive what they use
    while os.environ["RANK"] != "0" and _is_ending(run):
        time.sleep(_TICK)


def _is_ending(run: RunFolder) -> bool:
    """Whether rank 0 lives and has not written how the run ended; the kernel frees its lock when it dies."""
    try:
        return run.is_locked() and run.record().status == "running"
    except UserError:  # a damaged record
        return False
