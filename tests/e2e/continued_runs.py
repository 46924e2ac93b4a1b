"""Runs that continue runs, and the undisturbed ones that they must equal.

Started by torchrun with a folder that holds book.txt, it is one process of two that train them all.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from stopped_runs import remains
from torch import distributed

from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain, group_choices
from losslab.training.process.start import Outcome, start
from runs import TINY

SECONDS = 240
SHORT, LONG = 20, 40
OPTIONS = [
    "model.dropout=0.1",
    "trainer.val_check_interval=null",
    "loggers=tensorboard",
    "trainer.log_every_n_steps=5",
]
PAST = [("constant", "constant"), ("wsd", "wsd"), ("constant", "wsd")]
"""Schedules of the shorter run, and of the longer one."""
TWO_RANKS = [
    "trainer.devices=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.val_check_interval=10",
]


def begin(*typed: str) -> Outcome:
    """`losslab train` from where everything is composed."""
    overrides = [*TINY, *OPTIONS, *typed]
    config, choices = compose_job(overrides)
    defaults = compose_plain(group_choices(overrides))
    return start(check_run(config), defaults=defaults, choices=choices, overrides=overrides)


def schedule(name: str) -> list[str]:
    return [f"scheduler={name}", "scheduler.warmup_steps=2"]


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves, without the one key in which a continued run differs."""
    found = remains(folder)
    for name in ("last.ckpt", "best.ckpt"):
        config = found[name].pop("config")
        assert found[name]["losslab"].pop("due", None) is None
        found[name]["config"] = {key: value for key, value in config.items() if key not in ("continue_from", "name")}
    return found


def main(folder: Path) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    os.chdir(folder)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    for strategy, scheduler in (("ddp", "constant"), ("fsdp", "wsd")):
        common = [f"trainer={strategy}", *TWO_RANKS, *schedule(scheduler), "loss=square"]
        ended = []
        for name, steps in (("short", SHORT // 2), ("longer", LONG // 2), ("whole", LONG // 2)):
            origin = [f"continue_from=outputs/{strategy}-short"] if name == "longer" else []
            with patch("torch.distributed.destroy_process_group"):  # which ends a worker; here more runs follow
                ended.append(begin(*common, *origin, f"name={strategy}-{name}", f"trainer.max_steps={steps}"))
            distributed.barrier()
        assert [outcome.status for outcome in ended] == ["completed"] * 3, ended
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
