"""Runs that get a signal inside a chosen optimizer step, and all that they leave behind.

Started by torchrun with a folder of configurations, it is one process of two that stop a run at every step.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, distributed

from losslab import records
from losslab.contracts import Batch
from losslab.run_folder import RunFolder
from losslab.training.module import LossModule
from losslab.training.run import execute

STEPS = 12
SECONDS = 180
STOPS = {
    "ddp": (1, 4, 9, 10),
    "fsdp": (3, 5, 8, 11),
    "regression": (3, 5, 8, 11),
    "tagging": (1, 4, 10, 12),
}
"""Configuration → the steps in which its ranks are stopped: each meets a log (every 3 steps), a checkpoint (every 4), a
validation (every 5) and a step with none."""


def make_run(folder: Path, config: dict[str, Any]) -> None:
    """A claimed folder, as `start` leaves it."""
    folder.mkdir(parents=True)
    (folder / records.CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    records.Record(identity="", name=folder.parent.name).write(folder)


def train(folder: Path, *, after: int = 0, stop_in: int | None = None, rank: int = 0, last: int = STEPS) -> None:
    """A session that continues after step `after`, to step `last` or to a SIGTERM in step `stop_in` on a rank."""
    training_step, trained = LossModule.training_step, set()

    def noted_step(module: LossModule, batch: Batch, batch_idx: int) -> Tensor:
        step, accumulate = module.trainer.global_step + 1, module.reducer.accumulate
        trained.add(step)
        if (step, module.trainer.global_rank) == (stop_in, rank) and batch_idx % accumulate == step % accumulate:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(module, batch, batch_idx)

    with patch.object(LossModule, "training_step", noted_step):
        record = execute(RunFolder(folder))
    assert record.status == ("interrupted" if stop_in else "completed"), record
    assert trained == set(range(after + 1, (stop_in or last) + 1))


def remains(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that is not time, machine or provenance."""
    record = records.read(folder)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        "status": (record.status, record.step, record.error),
        "metrics": record.metrics,
        "rows": (folder / "metrics.csv").read_text(encoding="utf-8").splitlines(),
        "events": {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]},
        **{name: plain_checkpoint(folder / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt")},
    }


def plain_checkpoint(path: Path) -> Any:
    """All that a checkpoint holds but times."""
    content = torch.load(path, weights_only=True)
    for name in ("seconds", "validation_seconds"):
        content["losslab"].pop(name, None)
    return _plain(content)


def _plain(value: Any) -> Any:
    """Tensors become hashes of their bits."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16]}"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def main(folder: Path) -> None:
    """For each FOLDER/*.yaml: the undisturbed run, and for each of its stops one that ends there, on either rank."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    distributed.init_process_group("gloo")
    for path in sorted(folder.glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for step in (0, *STOPS[path.stem]):
            run = folder / path.stem / str(step)
            if distributed.get_rank() == 0:
                make_run(run, config)
            distributed.barrier()
            if step:
                train(run, stop_in=step, rank=step % 2)
            train(run, after=step)
            distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
