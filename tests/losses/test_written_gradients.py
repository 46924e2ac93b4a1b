"""The gradients in the losses' docstrings, each written out once more, against finite differences of the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from losslab.contracts import Features, added
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.confidence_penalty import ConfidencePenalty
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.dynamic_fine_tuning import DynamicFineTuning
from losslab.losses.entmax import Entmax, entmax
from losslab.losses.focal import Focal
from losslab.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from losslab.losses.hinge import Hinge
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.poly1 import Poly1
from losslab.losses.regularizers import Regularized
from losslab.losses.square import Square
from losslab.losses.squentropy import Squentropy
from losslab.losses.stablemax import StableMax
from losslab.losses.symmetric_cross_entropy import SymmetricCrossEntropy

V, STEP = 7, 1e-6


@dataclass(frozen=True)
class At:
    """Logits z [N, V] and what the formulas are written in: y, p and e = onehot(y); p_y, z_y [N, 1]."""

    z: Tensor
    y: Tensor

    @property
    def e(self) -> Tensor:
        return (torch.arange(V) == self.y[:, None]).double()

    @property
    def p(self) -> Tensor:
        return self.z.softmax(dim=-1)

    @property
    def p_y(self) -> Tensor:
        return (self.e * self.p).sum(dim=-1, keepdim=True)

    @property
    def rivals(self) -> Tensor:
        """onehot of the largest other class."""
        others = self.z.masked_fill(self.e.bool(), -math.inf)
        return (torch.arange(V) == others.argmax(dim=-1)[:, None]).double()

    @property
    def violation(self) -> Tensor:
        """[m + f_r − f_y]₊ for m = 1."""
        return (1 + ((self.rivals - self.e) * self.z).sum(dim=-1, keepdim=True)).clamp(min=0)

    @property
    def entropy(self) -> Tensor:
        return -(self.p * self.p.log()).sum(dim=-1, keepdim=True)


def squashed(z: Tensor) -> Tensor:
    s = torch.where(z >= 0, z.clamp(min=0) + 1, 1 / (1 - z.clamp(max=0)))
    return s / s.sum(dim=-1, keepdim=True)


GRADIENTS: list[tuple[Loss, Callable[[At], Tensor]]] = [
    (CrossEntropy(temperature=2.0), lambda at: ((at.z / 2).softmax(dim=-1) - at.e) / 2),
    (KLDivergence(label_smoothing=0.1), lambda at: at.p - 0.9 * at.e - 0.1 / V),
    (Square(k=15.0, m=3.0), lambda at: (2 * at.z + at.e * (2 * 15 * (at.z - 3) - 2 * at.z)) / V),
    (
        Focal(gamma=2.5),
        lambda at: ((1 - at.p_y) ** 2.5 - 2.5 * at.p_y * (1 - at.p_y) ** 1.5 * at.p_y.log()) * (at.p - at.e),
    ),
    (Poly1(epsilon=-0.7), lambda at: (1 - 0.7 * at.p_y) * (at.p - at.e)),
    (
        GeneralisedCrossEntropy(q=0.7, truncation=0.1),
        lambda at: torch.where(at.p_y <= 0.1, 0.0, at.p_y**0.7 * (at.p - at.e)),
    ),
    (
        SymmetricCrossEntropy(alpha=0.1, beta=2.0, log_zero=-4.0),
        lambda at: (0.1 + 2 * 4 * at.p_y) * (at.p - at.e),
    ),
    (Brier(), lambda at: 2 * at.p * (at.p - at.e + at.p_y - at.p.square().sum(dim=-1, keepdim=True))),
    (ConfidencePenalty(beta=0.3), lambda at: at.p - at.e + 0.3 * at.p * (at.p.log() + at.entropy)),
    (Entmax(alpha=1.5), lambda at: entmax(at.z, 1.5) - at.e),
    (Entmax(alpha=2.0), lambda at: entmax(at.z, 2.0) - at.e),
    (Entmax(label_smoothing=0.2), lambda at: entmax(at.z, 1.5) - 0.8 * at.e - 0.2 / V),
    (Squentropy(), lambda at: at.p - at.e + (1 - at.e) * 2 * at.z / (V - 1)),
    (StableMax(), lambda at: (squashed(at.z) - at.e) / (1 + at.z.abs())),
    (
        Regularized(CrossEntropy(), z_loss=0.1),
        lambda at: at.p - at.e + 2 * 0.1 * at.p * at.z.logsumexp(dim=-1, keepdim=True),
    ),
    (
        Regularized(CrossEntropy(), confidence_penalty=0.3),
        lambda at: at.p - at.e + 0.3 * at.p * (at.p.log() + at.entropy),
    ),
    (
        Regularized(CrossEntropy(), soft_cap=3.0),
        lambda at: ((3 * (at.z / 3).tanh()).softmax(dim=-1) - at.e) * (1 - (at.z / 3).tanh() ** 2),
    ),
    (Hinge(), lambda at: (at.violation > 0) * (at.rivals - at.e)),
    (Hinge(squared=True), lambda at: 2 * at.violation * (at.rivals - at.e)),
]


def differences(loss: Loss, at: At) -> Tensor:
    """∂ℓ/∂z_j [N, V], central."""
    columns = []
    for j in range(V):
        step = STEP * torch.eye(V, dtype=torch.float64)[j]
        high, low = (
            added(loss.from_logits(loss.map_logits(z), Features(z, at.y, torch.ones(len(z)))))
            for z in (at.z + step, at.z - step)
        )
        columns.append((high - low) / (2 * STEP))
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize(("loss", "formula"), GRADIENTS, ids=lambda part: type(part).__name__)
def test_the_gradient_is_as_it_is_written(loss: Loss, formula: Callable[[At], Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    z = 2 * torch.randn(40, V, dtype=torch.float64, generator=generator)
    at = At(z, torch.randint(V, (40,), generator=generator))
    torch.testing.assert_close(differences(loss, at), formula(at), rtol=1e-6, atol=1e-7)


def test_dynamic_fine_tuning_has_the_gradient_of_one_minus_the_probability() -> None:
    z = torch.randn(1, V, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    at = At(z, torch.tensor([3]))
    (gradient,) = torch.autograd.grad(DynamicFineTuning().position_loss(z, at.y).sum(), z)
    torch.testing.assert_close(gradient, at.p_y * (at.p - at.e))
