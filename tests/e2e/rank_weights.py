"""Started by torchrun: train the run in each FOLDER/*/config.yaml, and keep every rank's weights beside it."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from losslab.contracts import Features, LossSum, Projection
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training import run as training_run
from losslab.training.module import LossModule

SECONDS = 180
SLOWNESS = 3.0
"""Seconds that rank 0 takes to write how its run ended, in `EndsLate`."""


class NanOnOneRank(Loss):
    """Emits NaN on the second rank, in its seventh micro-batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        self.seen += self.training
        bad = self.seen == 7 and distributed.get_rank() == 1
        return torch.nn.functional.cross_entropy(logits, target, reduction="none") * (float("nan") if bad else 1.0)


class RaisesOnOneRank(Loss):
    """Fails on the second rank alone."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if distributed.get_rank() == 1:
            raise ArithmeticError("no luck here")
        return torch.nn.functional.cross_entropy(logits, target, reduction="none")


class EndsLate(CrossEntropy):
    """Delays rank 0, and it alone, before it writes how the run ended; `stop_at` sends a SIGTERM in that step, and
    `fail_at` fails on all ranks."""

    def __init__(self, *, stop_at: int = 0, fail_at: int = 0) -> None:
        super().__init__()
        self.stop_at, self.fail_at, self.seen = stop_at, fail_at, 0
        if os.environ.get("RANK") == "0":
            write = Record.write

            def write_late(record: Record, folder: Path) -> None:
                if record.status not in ("planned", "running"):
                    time.sleep(SLOWNESS)
                write(record, folder)

            Record.write = write_late  # type: ignore[method-assign]

    def forward(self, features: Features, projection: Projection) -> LossSum:
        self.seen += self.training
        if self.training and self.seen == self.stop_at and distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.training and self.seen == self.fail_at:
            raise ArithmeticError("no luck anywhere")
        return super().forward(features, projection)


def main(folder: Path) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    distributed.init_process_group("gloo")
    finish = training_run.finish

    def keep_weights(run: RunFolder, module: LossModule, *rest: Any, **options: Any) -> None:
        whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in module.network.named_parameters()}
        sharded = [n for n, p in module.network.named_parameters() if isinstance(p, DTensor)]
        torch.save(
            [{n: p.detach().clone() for n, p in whole.items()}, sharded], run.path / f"{distributed.get_rank()}.pt"
        )
        finish(run, module, *rest, **options)

    training_run.finish = keep_weights
    for run in sorted(RunFolder(path.parent) for path in folder.glob("*/config.yaml")):
        record = training_run.execute(run)
        assert record.status == ("diverged" if "nan" in run.name else "completed"), record
        distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
