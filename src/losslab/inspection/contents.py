"""The samples of a split: as its data module describes them, or read from its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import OF_SOURCE, Batch, DataModule, Share, SplitContent, raw_bytes

_MOST = 5_000
"""Samples of a split that are read from batches."""
_LONG = ("tokens", "frames")
"""Inputs with one entry a position."""


def content_of(data: DataModule, split: str) -> SplitContent:
    """The content of a split."""
    found = data.content(split)
    return _of_batches(data, split) if found is None else found


def lengths_of(batch: Batch) -> NDArray[np.int64] | None:
    """[B]: the inputs of each sample; None where it is no sequence."""
    mask = batch.inputs.get("mask")
    if mask is not None and mask.ndim > 1:
        return mask.flatten(1).sum(dim=1).numpy().astype(np.int64)
    long = next((batch.inputs[name] for name in _LONG if name in batch.inputs), None)
    return None if long is None or long.ndim < 2 else np.full(len(long), long.shape[1], dtype=np.int64)


@dataclass
class _Found:
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    classes: list[Tensor] = field(default_factory=list)
    owners: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


def _of_batches(data: DataModule, split: str) -> SplitContent:
    info, found, read = data.info, _Found(), 0
    for batch in _batches(data, split):
        _add(found, batch, read, has_classes=info.num_classes is not None)
        read += len(batch.weight)
    count = info.splits[split].samples or read
    return SplitContent(
        count=count,
        read=read,
        lengths=np.concatenate(found.lengths) if found.lengths else None,
        keys=np.array(found.keys, dtype=np.uint64),
        classes=torch.cat(found.classes).numpy() if found.classes else None,
        owners=torch.cat(found.owners).numpy() if found.owners else None,
        values=torch.cat(found.values).double().numpy() if found.values else None,
    )


def _batches(data: DataModule, split: str) -> Iterator[Batch]:
    """The first samples of a split, each once; those of train in the order of the first pass."""
    wanted, step = _MOST, 0
    if split == "train":
        wanted = min(_MOST, data.info.splits[split].samples or _MOST)
    batches = iter(data.eval_batches(split, Share())) if split != "train" else None
    while wanted > 0:
        batch = data.train_batch(step, Share()) if batches is None else next(batches, None)
        if batch is None or not len(batch.weight):
            return
        batch = first_of(batch, wanted)
        yield batch
        wanted, step = wanted - len(batch.weight), step + 1


def first_of(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""
    inputs = {name: value[:count] for name, value in batch.inputs.items()}
    extras = {name: value[:count] for name, value in batch.extras.items()}
    return batch._replace(inputs=inputs, target=batch.target[:count], weight=batch.weight[:count], extras=extras)


def _add(found: _Found, batch: Batch, first: int, *, has_classes: bool) -> None:
    lengths, target, weight = lengths_of(batch), batch.target, batch.weight
    if lengths is not None:
        found.lengths.append(lengths)
    for i in range(len(weight)):
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(batch.inputs.items()):
            cut = None if lengths is None or name not in (*_LONG, "segments", "types") else int(lengths[i])
            if name in OF_SOURCE and (of_source := batch.inputs.get("source_mask")) is not None:
                cut = int(of_source[i].sum())
            if name not in ("mask", "source_mask"):
                digest.update(name.encode() + raw_bytes(value[i][:cut] if value.ndim > 1 else value[i]))
        found.keys.append(int.from_bytes(digest.digest()))
    owner = torch.arange(first, first + len(weight))
    if target.is_floating_point():
        if target.ndim == weight.ndim + 1:
            found.values.append(target.flatten(0, -2)[weight.flatten() != 0])
    elif has_classes:
        counts = weight != 0 if target.ndim == weight.ndim else (target >= 0) & (weight != 0)[..., None]
        found.classes.append(target[counts])
        found.owners.append(owner.reshape(-1, *[1] * (target.ndim - 1)).expand(target.shape)[counts])
