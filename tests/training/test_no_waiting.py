"""A training step reads no number from its device. Tensors have shapes alone here: asking for a value fails."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_loss_module import train
from tiny_network import make_batch, make_network, split
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

import losslab.training.module
from losslab.contracts import Batch, Features
from losslab.contracts.data import to_device
from losslab.losses import chunked_gradients, execution
from losslab.training.module import LossModule
from losslab.training.network import Network
from losslab.training.step_report import UnreadReport

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own use of torch
LOSSES = ("cross_entropy", "kl_divergence", "square")


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the ways of a GPU: on a CPU, where nobody waits for them, targets are looked at, and rows that underflow."""

    def softmax(logits: Tensor, target: Tensor, scale: float, recompute: object) -> Any:
        return chunked_gradients._softmax(logits, target, scale)

    for module in (execution, chunked_gradients):
        monkeypatch.setattr(module, "check_targets", lambda *arguments: None)
    monkeypatch.setattr(chunked_gradients, "_softmax_in_one_pass", softmax)


def in_fork(work: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> bool:
    """The answer of `work` on a device whose tensors have no values. A fork gives it: autograd starts threads for such
    tensors, and a process that has them cannot be forked."""
    as_on_a_gpu(monkeypatch)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                code = 0 if work() else 2
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def move(network: Network) -> None:
    for module in network.modules():
        for name, value in module._buffers.items():
            module._buffers[name] = value if value is None else empty(value)
        for name, parameter in module._parameters.items():
            module._parameters[name] = parameter if parameter is None else nn.Parameter(empty(parameter))


def empty(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype)


def without_values(batch: Batch, *, known: bool) -> Batch:
    weight = empty(batch.weight)
    inputs = {name: empty(value) for name, value in batch.inputs.items()}
    return Batch(inputs, empty(batch.target), weight, {}, nonzero=weight if known else None)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_ignored_positions_is_computed_without_waiting(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> bool:
        network = make_network(loss)
        move(network)
        network(without_values(make_batch(), known=True)).total.backward()
        return all(parameter.grad is not None for parameter in network.parameters())

    assert in_fork(work, monkeypatch)


def test_weights_that_nobody_has_seen_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> bool:
        network = make_network("cross_entropy")
        move(network)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            network(without_values(make_batch(), known=False))
        return True

    assert in_fork(work, monkeypatch)


def test_ignored_positions_are_dropped_and_the_rest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.arange(8.0).reshape(4, 2)
    features = Features(hidden, torch.arange(4), torch.tensor([1.0, 0.0, 0.5, 0.0]), {"id": torch.arange(4)})
    kept = features.kept()
    assert kept.hidden.tolist() == [[0, 1], [4, 5]] and kept.extras["id"].tolist() == [0, 2]
    monkeypatch.setattr(Tensor, "nonzero", None)
    assert kept.kept() is kept
    assert (kept.weighted(torch.tensor([1.0, 0.0])).nonzero is not None) and kept.weight.tolist() == [1.0, 0.5]
    with pytest.raises(TypeError):
        kept.weighted(torch.tensor([1.0, 0.0])).kept()  # other weights are looked at again


@pytest.mark.parametrize(("weight", "known"), [([1.0, 0.5], True), ([1.0, 0.0], False)])
def test_weights_are_looked_at_before_they_leave_the_host(weight: list[float], known: bool) -> None:
    batch = Batch({}, torch.zeros(2, dtype=torch.int64), torch.tensor(weight), {})
    moved = to_device(batch, torch.device("cpu"))
    assert (moved.nonzero is moved.weight) == known
    flat = Features(torch.zeros(2, 1), moved.target, moved.weight.flatten())
    assert (flat.known(moved).nonzero is flat.weight) == known
    other = moved._replace(weight=moved.weight * 0)
    assert flat.known(other).nonzero is None


READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__float__", "__int__", "__bool__")
"""Methods of a tensor by which a number comes to the host."""


def test_a_step_that_is_not_logged_waits_for_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last of six steps are logged. The reports of the others are read when they have arrived."""
    inside: list[int] = []
    waited: set[int] = set()

    def during(method: Any) -> Any:
        def call(module: LossModule, *arguments: Any, **named: Any) -> Any:
            inside.append(module.trainer.global_step + 1)
            try:
                return method(module, *arguments, **named)
            finally:
                inside.pop()

        return call

    def outside(method: Any) -> Any:
        def call(report: UnreadReport) -> Any:
            steps, inside[:] = inside[:], []
            try:
                return method(report)
            finally:
                inside[:] = steps

        return call

    def noted(method: Any) -> Any:
        def call(tensor: Tensor, *arguments: Any) -> Any:
            waited.update(inside)
            return method(tensor, *arguments)

        return call

    for name in ("training_step", "on_before_optimizer_step", "configure_gradient_clipping"):
        monkeypatch.setattr(LossModule, name, during(getattr(LossModule, name)))
    monkeypatch.setattr(UnreadReport, "read", outside(UnreadReport.read))
    for name in READS:
        monkeypatch.setattr(Tensor, name, noted(getattr(Tensor, name)))
    as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(losslab.training.module, "reads_late", lambda device: True)
    batch = make_batch()
    batch = to_device(batch._replace(weight=torch.ones_like(batch.weight)), torch.device("cpu"))
    trained = train(make_network(), [batch] * 6, steps=6, clip=0.1, is_logged=lambda step: step in (1, 6))
    assert waited == {1, 6}
    reports = trained.take_reports(wait=True)
    assert [len(report.gradient_norms) > 1 for report in reports] == [True] + [False] * 4 + [True]


def test_steps_are_the_same_read_late_or_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> tuple[list[Tensor], list[Any]]:
        network = make_network()
        module = train(network, split(make_batch(), 2), steps=2, clip=0.1, is_logged=lambda step: False)
        return [parameter.detach().clone() for parameter in network.parameters()], module.take_reports(wait=True)

    weights, reports = trained()
    monkeypatch.setattr(losslab.training.module, "reads_late", lambda device: True)
    late_weights, late_reports = trained()
    assert all(torch.equal(one, other) for one, other in zip(weights, late_weights, strict=True))
    assert reports == late_reports and len(reports) == 2
