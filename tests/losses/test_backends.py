"""Other engines for plain cross-entropy, against ours; and what is said where one cannot."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import CLASS_WEIGHTS
from problems import bound, problem_for
from torch import Tensor
from torch.nn import functional as F

from losslab.conformance.subject import single
from losslab.losses import backends
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.projection import OutputProjection

HAS_TORCH = hasattr(F, "linear_cross_entropy")


class LigerStandIn(torch.nn.Module):
    """The signature of liger-kernel 0.8.5, whose kernels need a GPU; computed by torch, and what was asked for."""

    asked: dict[str, Any]

    def __init__(self, *, reduction: str, label_smoothing: float, accum_dtype: torch.dtype) -> None:
        super().__init__()
        LigerStandIn.asked = {"reduction": reduction, "accum_dtype": accum_dtype}
        self.label_smoothing = label_smoothing

    def forward(self, weight: Tensor, hidden: Tensor, target: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = F.linear(hidden, weight, bias)
        return F.cross_entropy(logits, target, reduction="sum", label_smoothing=self.label_smoothing)


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.fused_linear_cross_entropy"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.LigerFusedLinearCrossEntropyLoss = LigerStandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def sums(backend: str, *, bias: bool, ones: bool = False, **options: Any) -> list[Tensor]:
    """Total, weight and gradients."""
    loss = bound(CrossEntropy(backend=backend, **options))  # type: ignore[arg-type]
    features, projection = problem_for(loss, 24)
    features = single(features)
    if ones:
        features = replace(features, weight=(features.weight != 0).float())
    leaves = [features.hidden, projection.float(), torch.linspace(-1, 1, len(projection))][: 3 if bias else 2]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    result = loss(replace(features, hidden=leaves[0]), OutputProjection(*leaves[1:]))
    return [result.total, result.weight, *torch.autograd.grad(result.total, leaves)]


def assert_like_ours(found: list[Tensor], **options: Any) -> None:
    for actual, expected in zip(found, sums("chunked", **options), strict=True):
        assert (actual - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1, "class_weights": CLASS_WEIGHTS, "temperature": 2.0},
        {"label_smoothing": 0.1, "smoothing_convention": "annotated_transformer", "padding_id": 3},
    ],
    ids=lambda options: " ".join(options),
)
def test_dense_does_everything(options: dict[str, Any], bias: bool) -> None:
    assert_like_ours(sums("dense", bias=bias, **options), bias=bias, **options)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ones", [False, True])
def test_torch_agrees_with_ours_with_and_without_weights(bias: bool, ones: bool) -> None:
    """Where torch has none, ours takes its place."""
    assert_like_ours(sums("torch", bias=bias, ones=ones), bias=bias, ones=ones)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_liger_is_asked_for_a_sum_with_float32_gradients(liger: None, label_smoothing: float) -> None:
    options = {"bias": True, "ones": True, "label_smoothing": label_smoothing}
    assert_like_ours(sums("liger", **options), **options)  # type: ignore[arg-type]
    assert LigerStandIn.asked == {"reduction": "sum", "accum_dtype": torch.float32}


@pytest.mark.parametrize(
    ("backend", "options", "said"),
    [
        ("liger", {}, "needs the package liger-kernel"),
        ("torch", {"class_weights": CLASS_WEIGHTS}, "has neither class weights nor a temperature"),
        ("torch", {"temperature": 2.0}, "has neither class weights nor a temperature"),
        ("torch", {"label_smoothing": 0.1}, "would make all logits for this label smoothing"),
    ],
)
def test_what_a_backend_cannot_do_ours_does_and_says_why_once(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    options: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    caplog.set_level(logging.INFO, "losslab")
    assert_like_ours(sums(backend, bias=False, **options), bias=False, **options)
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith(f"loss.backend={backend} {said}")
    assert "own engine computes the loss" in caplog.messages[0]


def test_unequal_weights_are_not_for_liger(liger: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "losslab")
    assert_like_ours(sums("liger", bias=False), bias=False)
    assert "sums positions of equal weight alone" in caplog.text


def test_torch_is_not_asked_under_autocast(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "losslab")
    with torch.autocast("cpu", torch.bfloat16):
        sums("torch", bias=False)
    assert ("computes in float32 alone" if HAS_TORCH else "needs torch 2.13") in caplog.text


def test_a_loss_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "losslab")
    loss = bound(CrossEntropy(backend="torch", temperature=2.0))
    features, projection = problem_for(loss, 5)
    for _ in range(3):
        loss(single(features), OutputProjection(projection.float()))
    assert len(caplog.records) == 1
