"""Checks that need processes of their own: two ranks, and what a loss costs. They get a configuration, not a loss."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from losslab.conformance.measure import Measurement, Shape, Variant, measure
from losslab.conformance.subject import Subject, near, single
from losslab.contracts import Features, LossSum, TargetKind
from losslab.errors import Fault, error_sentence
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.training.factory import build_loss
from losslab.training.reduce import StepReducer

_SECONDS = 60
_SHAPE = Shape(positions=2048, width=64, num_outputs=16384, threads=1)
_MOST_MEMORY, _MOST_TIME = 0.6, 2.0
"""Shares of the memory and time of all logits at once. Chunks need a fraction of each; a busy machine must cause no
fault."""

context = multiprocessing.get_context("forkserver")


@contextmanager
def started(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """`target` in a process of its own, its last argument one end of a pipe; yields the other end."""
    context.set_forkserver_preload([__name__])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answering, args=(target, *arguments, sending))
    process.start()
    sending.close()
    try:
        yield receiving
    finally:
        process.kill()  # it has answered, or will not
        process.join()
        receiving.close()


def _answering(target: Callable[..., None], *arguments: Any) -> None:
    """Send an exception's sentence instead of printing its traceback."""
    try:
        target(*arguments)
    except Exception as error:  # a person's code may raise anything
        arguments[-1].send(Fault(f"it raises {error_sentence(error)}"))


def two_ranks_equal_one(config: dict[str, Any]) -> str:
    """Two ranks equal one under DDP on gloo, with uneven counts, and with a rank whose positions are all ignored."""
    subject = Subject(build_loss(config))
    with (
        tempfile.TemporaryDirectory() as folder,
        started(_rank, config, 0, folder) as first,
        started(_rank, config, 1, folder) as second,
    ):
        answers = [_answer(receiving) for receiving in (first, second)]
    for i, (name, whole, parts) in enumerate(_splits(subject)):
        # Positions that depend on each other do so within a rank.
        alone = [
            subject.run(part, subject.problem().projection) for part in ([whole], parts)[not subject.loss.position_wise]
        ]
        expected = torch.stack([each.projection for each in alone]).sum(dim=0) / sum(each.weight for each in alone)
        for gradients in answers:
            if not near(torch.from_numpy(gradients[i]), expected):
                raise Fault(
                    f"with {name} two ranks have another gradient than one process with all positions: a mean in place "
                    "of sums, or a denominator of its own"
                )
    return "uneven counts, and a rank without any: the gradient of one process"


def cost_is_bounded(config: dict[str, Any]) -> str:
    """Time and memory against the evaluation of all logits at once."""
    loss = build_loss(config)
    if loss.target_kind in (TargetKind.VALUES, TargetKind.SEQUENCES):
        return "it has no vocabulary"
    if not Subject(loss).takes(_SHAPE.num_outputs):
        return f"its settings are not for {_SHAPE.num_outputs:,} classes"
    time, memory = _ratios(config)
    if time > _MOST_TIME:  # something else may have wanted the processor
        time, memory = _ratios(config)
    said = f"{time:.2f} of the time and {memory:.2f} of the memory of all logits at once"
    if loss.position_wise and memory > _MOST_MEMORY:
        raise Fault(f"{said}: its forward makes logits for all positions; let Loss.forward run it in chunks")
    if time > _MOST_TIME:
        raise Fault(f"{said}: its forward repeats the product of hidden states and projection")
    return said


FURTHER: dict[str, Callable[[dict[str, Any]], str]] = {"two ranks": two_ranks_equal_one, "cost": cost_is_bounded}


def _ratios(config: dict[str, Any]) -> tuple[float, float]:
    own, dense = (_measure(Variant(str(dense), config, dense=dense)) for dense in (False, True))
    return own.seconds / dense.seconds, own.mib / max(dense.mib, 1.0)


def _measure(variant: Variant) -> Measurement:
    with started(measure, variant, _SHAPE) as receiving:
        answer = _answer(receiving)
    assert isinstance(answer, Measurement)
    return answer


def _answer(receiving: Connection) -> Any:
    if not receiving.poll(_SECONDS):
        raise Fault(
            f"no answer within {_SECONDS} seconds: ranks wait for each other where one has a gradient that the other "
            "has not; keep a zero gradient connected where all positions are ignored"
        )
    try:
        answer = receiving.recv()
    except EOFError:
        raise Fault("its process ended without an answer; see above") from None
    if isinstance(answer, Fault):
        raise answer
    return answer


class _Head(nn.Module):
    def __init__(self, loss: Loss, weight: Tensor) -> None:
        super().__init__()
        self.loss = loss
        self.weight = nn.Parameter(weight)

    def forward(self, features: Features) -> LossSum:
        result: LossSum = self.loss(features, LinearMap(self.weight, None))
        return result


def _splits(subject: Subject) -> list[tuple[str, Features, list[Features]]]:
    """Cases: a name, all positions, and the part of each rank."""
    features = single(subject.problem().features)
    few = len(features) // 4
    silent = features.weighted((torch.arange(len(features)) < few).float())
    return [
        ("uneven counts", features, [features[:few], features[few:]]),
        ("a rank without positions that count", silent, [silent[:few], silent[few:]]),
    ]


def _rank(config: dict[str, Any], rank: int, folder: str, answer: Connection) -> None:
    """Send the gradient in the projection for each of `_splits`, after the reduction that training has."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=_SECONDS / 2),
    )
    subject = Subject(build_loss(config))
    found = []
    for _, _, parts in _splits(subject):
        head = _Head(subject.fresh(), subject.problem().projection.float())
        reducer = StepReducer(nominal_weight=math.pi, accumulate=1, ranks=2)
        if head.loss.reads_step:
            head.loss.prepare_step(*(torch.cat([getattr(p, key) for p in parts]) for key in ("target", "weight")))
        parallel = DistributedDataParallel(head)
        reducer.add(parallel(parts[rank])).backward()  # type: ignore[no-untyped-call]
        reducer.finish().rescale([head.weight])
        assert head.weight.grad is not None
        found.append(head.weight.grad.numpy())  # which a pipe carries whole: a tensor would be shared memory
    answer.send(found)
