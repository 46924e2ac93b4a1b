"""Hand a claimed run to the process, or the processes, that train it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from losslab.config.trust import foreign_targets
from losslab.errors import Held, UserError
from losslab.locks import is_locked
from losslab.records import Record, read
from losslab.training.assemble import open_data
from losslab.training.ranks import run_workers
from losslab.training.run import execute


def check_ranks(config: dict[str, Any]) -> None:
    """Refuse an outer launcher that started something else. Raises UserError."""
    devices, nodes = config["trainer"]["devices"], config["trainer"]["num_nodes"]
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" in os.environ and ranks != devices * nodes:
        raise UserError(
            f"torchrun or srun started {ranks} ranks of one run, and trainer.devices={devices} × "
            f"trainer.num_nodes={nodes} is {devices * nodes}: make them equal; runs of their own are started one by one"
        )


def launch(folder: Path, config: dict[str, Any], *, began: float | None = None) -> Record:
    """Train here, or in one process a device through torchrun; an outer torchrun is recognised.

    Args:
        began: when the process started, by time.monotonic().

    Raises:
        UserError: for bad input, and when another process holds the run (`Held`).
    """
    settings = config["trainer"]
    check_ranks(config)
    if settings["devices"] * settings["num_nodes"] == 1 or "RANK" in os.environ:
        return execute(folder, began=began)
    if is_locked(folder):
        raise Held(f"{folder} is already running in another process; wait for it, or give another name=…")
    open_data(folder, config)  # what is wrong with the text is told here, and once
    ended = run_workers(folder, settings["devices"], foreign_targets(config))
    if is_locked(folder):  # by another start of the same run, whose record this is
        raise Held(ended.cause or f"{folder} is already running in another process; wait for it")
    record = read(folder)
    if record.status == "running" or (ended.cause and record.status == "failed"):
        record.status = "interrupted" if ended.signalled else "failed"
        failure = ended.cause or f"the workers ended with exit code {ended.code}"
        record.error = "stopped by a signal" if ended.signalled else failure
        record.write(folder)
    return record
