"""Other engines for plain cross-entropy, chosen by what each can do; ours does what is left.

`auto` is ours: on a CPU none of the others was quicker (`losslab bench loss=cross_entropy loss.backend=chunked,torch`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, LossSum, Projection, added
from losslab.losses.contract import RunnableLoss
from losslab.losses.execution import projection_rows
from losslab.losses.smoothing import Smoothing
from losslab.losses.targets import check_targets

Backend = Literal["auto", "chunked", "dense", "torch", "liger"]
_log = logging.getLogger("losslab")


class PlainLoss(RunnableLoss, Protocol):
    """A cross-entropy that a backend may compute; see `cross_entropy.CrossEntropy` for each member."""

    backend: Backend
    fallback: str
    smoothing: Smoothing
    class_weights: Tensor | None


def run_backend(loss: PlainLoss, features: Features, projection: Projection) -> LossSum | None:
    """The sums by `loss.backend`, or None where ours is wanted or the backend cannot; why, is logged once a loss."""
    run = _BACKENDS.get(loss.backend)
    if run is None:
        return None
    kept = features.kept()
    check_targets(kept.target, loss, len(projection.weight))
    kept = loss.select(kept).kept()
    reason = _refusal(loss, kept, projection)
    if reason:
        if not loss.fallback:
            _log.info("loss.backend=%s %s; losslab's own engine computes the loss", loss.backend, reason)
            loss.fallback = reason
        return None
    share = loss.position_weight(kept)
    weight = kept.weight.float() if share is None else kept.weight.float() * share
    return LossSum(total=run(loss, kept, projection).float(), weight=weight.sum().detach())


def _refusal(loss: PlainLoss, kept: Features, projection: Projection) -> str | None:
    """The reason why the backend cannot compute this, as the rest of a sentence."""
    if loss.backend == "dense":
        return None
    if not len(kept):
        return "has no loss for an empty batch"
    if loss.class_weights is not None or loss.temperature != 1:
        return "has neither class weights nor a temperature"
    if loss.smoothing.epsilon and (loss.smoothing.convention != "torch" or loss.backend == "torch"):
        return "would make all logits for this label smoothing"
    return _REFUSALS[loss.backend](kept, projection)


def _refusal_of_torch(kept: Features, projection: Projection) -> str | None:
    if not hasattr(F, "linear_cross_entropy"):
        return f"needs torch 2.13, and this is {torch.__version__}"
    # It would return the sum in bf16, and under autocast it computes in float32 without a word.
    if projection.weight.dtype != torch.float32 or torch.is_autocast_enabled(projection.weight.device.type):
        return "computes in float32 alone"
    return None


def _refusal_of_liger(kept: Features, projection: Projection) -> str | None:
    if find_spec("liger_kernel") is None:
        return "needs the package liger-kernel (pip install 'losslab[gpu]')"
    if projection.weight.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"runs on CUDA, and this is {projection.weight.device.type}"
    if not bool((kept.weight == 1).all()):
        return "sums positions of equal weight alone"
    return None


def _dense(loss: PlainLoss, kept: Features, projection: Projection) -> Tensor:
    scores = loss.scores(kept.hidden, projection)  # the product is autocast's, and the rest float32
    with torch.autocast(device_type=scores.device.type, enabled=False):
        return (kept.weight.float() * added(loss.from_logits(scores, kept))).sum()


def _torch(loss: PlainLoss, kept: Features, projection: Projection) -> Tensor:
    rows = projection_rows(len(projection.weight), projection.weight.device)  # its own choice on a CPU is 8
    alike = bool((kept.weight == 1).all())  # one sum is quicker than a loss for each
    values = F.linear_cross_entropy(
        kept.hidden.float(),
        projection.weight,
        kept.target,
        linear_bias=projection.bias,
        reduction="sum" if alike else "none",
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows),
    )
    return values if alike else (kept.weight.float() * values).sum()


def _liger(loss: PlainLoss, kept: Features, projection: Projection) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import (  # type: ignore[import-not-found]
        LigerFusedLinearCrossEntropyLoss,
    )

    # Sums of bf16 weight gradients diverge: they are accumulated in float32 (Liger's issues 512 and 827).
    head: Any = LigerFusedLinearCrossEntropyLoss(
        reduction="sum", label_smoothing=loss.smoothing.epsilon, accum_dtype=torch.float32
    )
    total: Tensor = head(projection.weight, kept.hidden.to(projection.weight.dtype), kept.target, projection.bias)
    return total


_BACKENDS: dict[str, Callable[[PlainLoss, Features, Projection], Tensor]] = {
    "dense": _dense,
    "torch": _torch,
    "liger": _liger,
}
_REFUSALS = {"torch": _refusal_of_torch, "liger": _refusal_of_liger}
