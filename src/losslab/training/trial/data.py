"""Trials of batches and of what a data module promises of them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from losslab.contracts import OF_SOURCE, Batch, DataModule, Share, raw_bytes
from losslab.errors import Fault, error_sentence
from losslab.training.random import global_stream

_FILLER = -1
"""Fills up targets that are several classes a position."""


def train_batch(data: DataModule, step: int, share: Share, stream: str = "trial") -> Batch:
    """A batch of train, whatever the global generators are; `stream` seeds them."""
    with global_stream(0, stream):
        try:
            return data.train_batch(step, share)
        except Exception as error:  # a person's data may raise anything
            raise Fault(f"train_batch({step}, {share}) raises {error_sentence(error)}") from error


def form(batch: object, whence: str) -> str:
    """Raises Fault where a batch is not what the contract says."""
    if not isinstance(batch, Batch):
        raise Fault(f"{whence} gives a {type(batch).__name__}, not a losslab.contracts.Batch")
    named = {f"input {name!r}": value for name, value in batch.inputs.items()} | {"target": batch.target}
    named |= {"weight": batch.weight} | {f"extra {name!r}": value for name, value in batch.extras.items()}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise Fault(f"{whence} gives a {type(value).__name__} as {name}, not a tensor")
    weight, shape = batch.weight, tuple(batch.weight.shape)
    if weight.dtype != torch.float32 or not weight.isfinite().all() or bool((weight < 0).any()):
        raise Fault(f"{whence} gives {weight.dtype} weights, or some below 0; they are finite, 0 or above, and float32")
    if not batch.inputs:
        raise Fault(f"{whence} gives no inputs: a dict of tensors by name, such as tokens")
    for name, value in named.items():
        aligned = shape[:1] if name.startswith("input") else shape
        if tuple(value.shape[: len(aligned)]) != aligned:
            raise Fault(f"{whence} gives {name} of shape {list(value.shape)} beside weights of shape {list(shape)}")
    target = batch.target
    if target.dtype != torch.int64 and not target.is_floating_point():
        raise Fault(f"{whence} gives {target.dtype} targets; classes are int64, and values floating-point numbers")
    if target.is_floating_point() and not target.isfinite().all():
        raise Fault(f"{whence} gives targets that are not finite (NaN or infinity)")
    return ", ".join(f"{name} {list(value.shape)}" for name, value in named.items())


def repeats(data: DataModule) -> str:
    """A batch is the same when it is asked for again, after others, whatever the global generators are."""
    first = train_batch(data, 0, Share(), "first")
    train_batch(data, 3, Share(), "between")
    again = train_batch(data, 0, Share(), "second")
    if not equal(first, again):
        raise Fault(
            "train_batch(0, …) gives another batch the second time: it draws from a global generator, or reads on from "
            "where it was; it is a function of (self.seed, step), as np.random.default_rng([self.seed, step]) is"
        )
    return "a function of seed and step"


def equal(left: Batch, right: Batch) -> bool:
    """Whether two batches hold the same."""
    return _content(left) == _content(right)


def _content(batch: Batch) -> list[tuple[str, tuple[int, ...], bytes]]:
    values = {**batch.inputs, "target": batch.target, "weight": batch.weight} | {
        f"extra {name}": value for name, value in batch.extras.items()
    }
    return [(name, tuple(value.shape), raw_bytes(value)) for name, value in sorted(values.items())]


def sample_keys(batch: Batch, *, by_id: bool = True) -> list[str]:
    """Keys that distinguish samples: its `id`, where the batch has that, else a hash of its inputs without the padding
    and of its targets without the positions of weight 0. Samples of nothing but those have none.

    Args:
        by_id: false: always the hash of the content.
    """
    keys = []
    for i in range(len(batch.weight)):
        kept = batch.weight[i] != 0
        if not bool(kept.any()):
            continue
        if by_id and "id" in batch.extras:
            keys.append(str(batch.extras["id"][i][kept].flatten()[0].item()))
        else:
            keys.append(_hash(batch, i, kept))
    return keys


def _hash(batch: Batch, i: int, kept: Tensor) -> str:
    digest = hashlib.sha256()
    mask, of_source = batch.inputs.get("mask"), batch.inputs.get("source_mask")
    real = _up_to_the_last(kept) if mask is None else mask[i] != 0
    for name, value in sorted([*batch.inputs.items(), ("target", batch.target)]):
        row = value[i]
        tried: tuple[Tensor, ...] = (kept, real) if name == "target" else (real, kept)
        if name in OF_SOURCE:
            tried = () if of_source is None else (of_source[i] != 0,)
        rows = next((r for r in tried if r.ndim and row.shape[: r.ndim] == r.shape), None)
        if name == "target" and row.dtype == torch.int64 and row.ndim > kept.ndim:
            rows = row != _FILLER  # as long as the longest of the batch
        digest.update(name.encode() + raw_bytes(row if rows is None else row[rows]))
    return digest.hexdigest()[:16]


def _up_to_the_last(kept: Tensor) -> Tensor:
    """Positions [T] up to the last one that counts: padding stands behind."""
    return kept if kept.ndim != 1 else kept.flip(0).cummax(dim=0).values.flip(0)
