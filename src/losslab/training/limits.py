"""The parts of the data that a debug run is trained and evaluated on (`losslab.config.flags`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from losslab.config.flags import LIMITS
from losslab.contracts import Batch, DataInfo, DataModule, Share, SplitInfo, Subset
from losslab.errors import UserError

_VAL = "val"
_FEWEST = 2


@dataclass(frozen=True)
class Limits:
    """Limits of a run; those of an ordinary run limit nothing."""

    repeats_after: int | None = None
    """Optimizer steps after which the batches of train begin again; None: the data's own order, without end."""
    overfit: bool = False
    """Validate on these batches instead of val."""
    micro_batch_size: int = 1
    """Samples of an overfitted batch that are evaluated at once."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Split → about how many positions of it are scored at most."""

    @classmethod
    def of(cls, config: dict[str, Any], info: DataInfo) -> Limits:
        """The limits of a configuration whose flags are worked out (`resolve_passes`).

        Raises:
            UserError: where a single position is to be overfitted, of which no half can fit a calibrator.
        """
        trainer, batch_size = config["trainer"], config["data"]["batch_size"]
        if (count := trainer["overfit_batches"]) and count * batch_size * info.mean_positions < _FEWEST:
            raise UserError(
                f"trainer.overfit_batches={count} with data.batch_size={batch_size} is a single position, and a "
                f"validation needs {_FEWEST}: one half fits the temperature, the other is scored"
            )
        batches = {split: trainer["fast_dev_run"] or trainer[key] for key, split in LIMITS.items() if split != "train"}
        return cls(
            repeats_after=cycle_of(config),
            overfit=trainer["overfit_batches"] is not None,
            micro_batch_size=trainer["micro_batch_size"] or 1,
            positions={
                split: max(1, round(count * batch_size * info.mean_positions))
                for split, count in batches.items()
                if count is not None
            },
        )

    def most(self, split: str, asked: int | None) -> int | None:
        """The number of positions of a split to score, where `asked` are asked for; None: all."""
        return min((limit for limit in (self.positions.get(split), asked) if limit is not None), default=None)

    def covers(self, interim: int) -> bool:
        """Whether a validation that scores `interim` positions of val scores all that the limits leave."""
        return self.overfit or self.positions.get(_VAL, interim + 1) <= interim

    def replaces(self, split: str) -> bool:
        """Whether batches of train stand for this split."""
        return self.overfit and split == _VAL

    def describe(self, info: DataInfo, data: DataModule) -> DataInfo:
        """The data's facts with the size of the overfitted batches as that of val."""
        if not self.overfit or self.repeats_after is None:
            return info
        size = SplitInfo(round(self.repeats_after * data.batch_size * info.mean_positions))
        return replace(info, splits={**info.splits, _VAL: size})

    def train_batches(self, data: DataModule, share: Share, subset: Subset, most: int | None) -> Iterator[Batch]:
        """The overfitted batches, as `DataModule.eval_batches` gives those of a split: every other sample fits a
        calibrator.

        Args:
            most: positions that fit, where subset is `fit`; all are given otherwise.
        """
        assert self.repeats_after is not None
        micros = max(1, data.batch_size // (share.ranks * self.micro_batch_size))
        alone = self.repeats_after * data.batch_size == 1
        found = 0.0
        for step in range(self.repeats_after):
            for micro in range(micros):
                part = Share(share.rank, share.ranks, micro, micros)
                batch = _as_evaluated(data.train_batch(step, part), _numbers(data, step, part), alone=alone)
                yield batch
                found += float((batch.extras["fit"] * batch.weight).sum())
                if subset == "fit" and most is not None and found >= most:
                    return


def cycle_of(config: dict[str, Any]) -> int | None:
    """Optimizer steps after which the batches of train begin again."""
    trainer = config["trainer"]
    cycle: int | None = trainer["overfit_batches"] or trainer["limit_train_batches"]
    return cycle


def batches_of_passes(info: DataInfo, data: DataModule) -> dict[str, float | None]:
    """Split → batches that a pass over it takes; of train None where the data does not say how many samples it has."""
    batch_size = data.samples_per_step
    found: dict[str, float | None] = {
        split: size.positions / (info.mean_positions * batch_size) for split, size in info.splits.items()
    }
    samples = info.splits["train"].samples if "train" in info.splits else None
    found["train"] = None if samples is None else samples / batch_size
    return found


def _numbers(data: DataModule, step: int, share: Share) -> Tensor:
    """[B]: the numbers of the samples of a part of a batch among all overfitted ones."""
    places = data.places(step, share)
    return torch.arange(places.start, places.stop)


def _as_evaluated(batch: Batch, numbers: Tensor, *, alone: bool) -> Batch:
    """The batch with the extras that batches of val have: `id`, `unit` and `fit`."""
    spread = numbers.reshape(-1, *[1] * (batch.weight.ndim - 1)).expand(batch.weight.shape).contiguous()
    fit = torch.arange(batch.weight.numel()).reshape(batch.weight.shape) if alone else spread
    extras = {"id": spread, "unit": spread, "fit": ((fit + 1) % 2).to(torch.uint8)}
    return batch._replace(extras={**batch.extras, **extras})
