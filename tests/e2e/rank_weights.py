"""Started by torchrun: train the run in each FOLDER/*/config.yaml, and keep every rank's weights beside it."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from losslab.losses.base import Loss
from losslab.training import run as training_run
from losslab.training.module import LossModule

SECONDS = 180


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


def main(folder: Path) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    distributed.init_process_group("gloo")
    finish = training_run._finish

    def keep_weights(run: Path, module: LossModule, *rest: Any) -> None:
        whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in module.network.named_parameters()}
        sharded = [n for n, p in module.network.named_parameters() if isinstance(p, DTensor)]
        torch.save([{n: p.detach().clone() for n, p in whole.items()}, sharded], run / f"{distributed.get_rank()}.pt")
        finish(run, module, *rest)

    training_run._finish = keep_weights
    for run in sorted(path.parent for path in folder.glob("*/config.yaml")):
        record = training_run.execute(run)
        assert record.status == ("diverged" if "nan" in run.name else "completed"), record
        distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
