"""Statistics of each position against a plain float64 reference: the same for every loss, shape and odd logit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from losslab.conformance.subject import Problem, single
from losslab.contracts import OutputSpec
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.entmax import Entmax
from losslab.losses.focal import Focal
from losslab.losses.goldfish import Goldfish
from losslab.losses.harmonic import Harmonic
from losslab.losses.hinge import Hinge
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.losses.regularizers import Regularized
from losslab.losses.square import Square
from losslab.losses.squentropy import Squentropy
from losslab.losses.stablemax import StableMax
from losslab.losses.sum import Sum
from losslab.metrics import rows as module
from losslab.metrics.rows import RowReader, Rows
from losslab.models.projection import OutputProjection

SCALE = 1.37
LOSSES: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "temperature": lambda: CrossEntropy(temperature=2.5),
    "smoothed": lambda: CrossEntropy(label_smoothing=0.1),
    "kl_divergence": KLDivergence,
    "focal": Focal,
    "brier": Brier,
    "goldfish": Goldfish,
    "squentropy": Squentropy,
    "stablemax": StableMax,
    "square": Square,
    "hinge": Hinge,
    "entmax": Entmax,
    "sparsemax": lambda: Entmax(alpha=2.0),
    "harmonic": Harmonic,
    "logit_adjustment": LogitAdjustment,
    "soft cap": lambda: Regularized(CrossEntropy(), soft_cap=1.0),
    "sum": lambda: Sum(first=CrossEntropy(), second=Brier()),
}


def bound(name: str, num_outputs: int, width: int) -> Loss:
    loss = LOSSES[name]()
    counts = torch.arange(1.0, num_outputs + 1, dtype=torch.float64)
    loss.bind(OutputSpec(num_outputs, width, torch.Generator().manual_seed(0), class_counts=counts))
    loss.calibrate(0.8)
    return loss


def read(loss: Loss, logits: Tensor, target: Tensor, *, thorough: bool, scale: float = SCALE) -> Rows:
    """In float32, a few rows at a time."""
    reader = RowReader(loss, scale, thorough=thorough, num_outputs=logits.shape[-1], device=torch.device("cpu"))
    logits = logits.float()
    kept = logits.clone()
    for start in range(0, len(logits), reader.size):
        part = slice(start, start + reader.size)
        reader.add(logits[part], target[part], torch.ones_like(target[part], dtype=torch.bool))
    assert torch.equal(logits.nan_to_num(), kept.nan_to_num())
    return reader.rows()


def reference(loss: Loss, logits: Tensor, target: Tensor, scale: float = SCALE) -> dict[str, Tensor | None]:
    """The formulas, in float64, over all logits at once."""
    at = target[:, None]

    def own(values: Tensor) -> Tensor:
        return values.gather(-1, at)[:, 0]

    logits = logits.double()
    log_p, log_q = loss.double().predict_log_probs(logits), (scale * logits).log_softmax(dim=-1)
    p, clip = log_p.exp(), 1e-6 / logits.shape[-1]
    posterior = loss.posterior(logits)
    linked = None if posterior is None else posterior.clamp(clip, 1)
    return {
        "log_prob": own(log_p),
        "confidence": log_p.amax(dim=-1),
        "hit": (log_p.argmax(dim=-1) == target).double(),
        "norm": logits.square().sum(dim=-1).sqrt(),
        "scaled_log_prob": own(log_q),
        "scaled_confidence": log_q.amax(dim=-1),
        "linked": None if linked is None else own(linked).log() - linked.sum(dim=-1).log(),
        "clipped": None if posterior is None else (own(posterior) < clip).double(),
        "rank": 1 + (log_p > own(log_p)[:, None]).sum(dim=-1) + ((log_p == own(log_p)[:, None]).sum(dim=-1) - 1) / 2,
        "squares": p.square().sum(dim=-1),
        "entropy": torch.special.entr(p).sum(dim=-1),
    }


ROUGH = {"smoothed": 1e-3, "kl_divergence": 1e-3, "sparsemax": 1e-4}
"""Losses whose own link or prediction cancels in float32: a difference of nearly equal probabilities."""


def assert_equal(
    rows: Rows, expected: dict[str, Tensor | None], thorough: bool = True, tolerance: float = 3e-6
) -> None:
    for name, value in expected.items():
        found = getattr(rows, name)
        if value is None or (not thorough and name in ("rank", "squares", "entropy")):
            assert found is None, name
        else:
            torch.testing.assert_close(
                found.double(), value.double(), rtol=tolerance, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_each_row_is_what_float64_gives(name: str, thorough: bool) -> None:
    loss = bound(name, 11, 6)
    problem = Problem.random(loss, positions=200)
    features = single(problem.features)
    with torch.no_grad():
        logits = loss.scores(features.hidden, OutputProjection(problem.projection.float()))
    rows = read(loss, logits, features.target, thorough=thorough)
    assert_equal(rows, reference(loss, logits, features.target), thorough, ROUGH.get(name, 3e-6))


@pytest.mark.parametrize("num_outputs", [2, 257, 5000])
@pytest.mark.parametrize("spread", [1e-3, 3.0, 300.0])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_wide_flat_steep_and_shifted_logits(num_outputs: int, spread: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (spread * torch.randn(40, num_outputs, generator=generator) + shift).float()
    target = torch.randint(num_outputs, (40,), generator=generator)
    loss = CrossEntropy()
    assert_equal(read(loss, logits, target, thorough=True), reference(loss, logits, target))


def test_of_tied_logits_the_first_is_the_prediction() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [2, 2, 1, 0], [2, 2, 1, 0], [1, 3, 3, 3], [1, 3, 3, 3]])
    target = torch.tensor([0, 0, 1, 3, 1])
    for thorough in (False, True):
        rows = read(CrossEntropy(), logits, target, thorough=thorough)
        assert rows.hit.tolist() == [True, True, False, False, True]
    assert rows.rank is not None and rows.rank.tolist() == [2.5, 1.5, 1.5, 2.0, 2.0]


def test_a_logit_of_minus_infinity_has_no_probability() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf], [0.0, 1.0, -torch.inf, -torch.inf]])
    target = torch.tensor([1, 2])
    rows = read(CrossEntropy(), logits, target, thorough=True)
    expected = reference(CrossEntropy(), logits, target)
    for name in ("log_prob", "entropy", "rank", "squares", "linked", "scaled_log_prob"):
        torch.testing.assert_close(getattr(rows, name), expected[name].double(), rtol=1e-6, atol=1e-6)  # type: ignore[union-attr]
    assert rows.rank is not None and rows.rank.tolist() == [1.0, 3.5]


@pytest.mark.parametrize("name", ["cross_entropy", "square", "entmax"])
def test_how_many_rows_are_read_at_once_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = bound(name, 11, 6)
    problem = Problem.random(loss, positions=50)
    logits, target = problem.logits.float(), problem.features.target
    whole = read(loss, logits, target, thorough=True)
    monkeypatch.setitem(module._AT_ONCE, "cpu", 3 * 11)
    assert_equal(read(loss, logits, target, thorough=True), vars(whole))


class OwnPosterior(Focal):
    """Replaces the posterior of its parent, which reads the softmax."""

    def posterior(self, logits: Tensor) -> Tensor:
        return (2 * logits).softmax(dim=-1)


@pytest.mark.parametrize("make", [Focal, lambda: Focal(gamma=0.5), lambda: Focal(gamma=3.0), OwnPosterior])
def test_the_posterior_of_positions_that_are_nearly_sure(make: Callable[[], Loss]) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(60, 40, generator=generator)
    target = logits.topk(3).indices[torch.arange(60), torch.arange(60) % 3]
    assert_equal(read(make(), logits, target, thorough=True), reference(make(), logits, target), tolerance=1e-4)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_both_ways_to_an_exponential_are_that_of_float64(
    quick: bool, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor has one of them."""
    monkeypatch.setattr(module, "has_quick_exponential", lambda: quick)
    x = torch.tensor([[0.0, -1e-4, -3.0, -20.0, -80.0, -torch.inf]])
    expected = (factor * x.double()).exp()
    found = module.exponential(x.clone(), factor, out=torch.empty_like(x))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-37)
