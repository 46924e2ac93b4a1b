"""Every result in docs/maximum-likelihood.md, computed again: with our own losses and metrics where there are any."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.distributions import Categorical, Laplace, Normal, kl_divergence
from torch.nn.functional import gaussian_nll_loss, huber_loss, l1_loss, mse_loss

from losslab.contracts import Features
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.focal import Focal
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.square import Square
from losslab.metrics.class_metrics import ClassMetrics
from losslab.metrics.scale import fit_scale
from losslab.models.projection import OutputProjection

Lines = Iterator[str]
NumberLoss = Callable[[Tensor, Tensor], Tensor]
"""Predictions [N], y [N] → their mean loss."""


def flat(text: str) -> str:
    """Where lines break and how columns are aligned is no part of what a page says."""
    return " ".join(text.split())


PAGE = flat((Path(__file__).parents[2] / "docs" / "maximum-likelihood.md").read_text(encoding="utf-8"))


def given(values: Tensor) -> str:
    """(2, 1, 0), as it was chosen."""
    return f"({', '.join(f'{value:g}' for value in values)})"


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def show(value: float | Tensor) -> str:
    """0.4076, or (0.6652, 0.2447, 0.0900)."""
    if isinstance(value, Tensor) and value.ndim:
        return f"({', '.join(show(entry) for entry in value)})"
    text = f"{float(value):.4f}"
    return "0.0000" if float(text) == 0 else text.replace("-", "−")


Z = vector(2, 1, 0)
Y = torch.tensor([0])
P = Z.softmax(dim=-1)
HOT = vector(1, 0, 0)
ETA = vector(0.7, 0.2, 0.1)
SMOOTHED = 0.9 * HOT + 0.1 / 3
DATA = vector(1, 2, 3, 5, 29)
FARTHER = vector(1, 2, 3, 5, 59)


def divergence(q: Tensor, p: Tensor) -> Tensor:
    return kl_divergence(Categorical(probs=q), Categorical(probs=p))


def cross_entropy(q: Tensor, p: Tensor) -> Tensor:
    return -(q * p.log()).sum()


def entropy(q: Tensor) -> Tensor:
    return Categorical(probs=q).entropy()


def value_and_gradient(loss: Loss, z: Tensor = Z) -> tuple[Tensor, Tensor]:
    """Features of one position with the first class as its target."""
    z = z[None].clone().requires_grad_()
    value = loss.position_loss(z, Y).sum()
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient[0]


def expected_loss(loss: Loss, z: Tensor, eta: Tensor) -> Tensor:
    """Σ_j η_j ℓ(z, j)."""
    return (eta * loss.position_loss(z.expand(len(eta), -1), torch.arange(len(eta)))).sum()


def minimiser(loss: Loss) -> Tensor:
    """The z with the smallest expected loss under ETA, found without knowing a formula for it."""
    z = torch.zeros_like(ETA).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z], max_iter=1000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = expected_loss(loss, z, ETA)
        value.backward()
        return value.item()

    optimizer.step(closure)
    return z.detach()


def metrics(loss: Loss, logits: Tensor, target: Tensor, bytes_each: float = 1.0) -> dict[str, float]:
    """The metrics that a run would report for these logits, the scale being fitted on them too."""
    extras = {"bytes": torch.full((len(target),), bytes_each), "fit": torch.zeros(len(target))}
    features = Features(logits.float(), target, torch.ones(len(target)), extras)
    projection = OutputProjection(torch.eye(logits.shape[-1]))
    measures = ClassMetrics(fit_scale([features], loss, projection), held_out=False)
    measures.update(features, loss, projection)
    return measures.values()


def smallest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function has its minimum, by search."""
    return float(minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x)


def best_constant(loss: NumberLoss, y: Tensor) -> float:
    return smallest(lambda m: loss(vector(m).expand(len(y)), y).item(), 0, 60)


def one_output() -> Lines:
    yield f"z = {given(Z)} p = softmax(z) = {show(P)} −log p = {show(-P.log())}"
    rows: dict[str, Loss] = {
        "`cross_entropy`": CrossEntropy(),
        "`cross_entropy`, ε = 0.1": CrossEntropy(label_smoothing=0.1),
        "`kl_divergence`, ε = 0.1": KLDivergence(label_smoothing=0.1),
        "`brier`": Brier(),
        "`focal`, γ = 2": Focal(gamma=2.0),
        "`square`, k = 15, M = 30": Square(k=15.0, m=30.0),
    }
    for name, loss in rows.items():
        value, gradient = value_and_gradient(loss)
        yield f"| {name} | {show(value)} | {show(gradient)} |"


def likelihood_of_classes() -> Lines:
    p = vector(1 / 2, 1 / 4, 1 / 8, 1 / 8)
    logits = torch.stack([p, 1 - p], dim=-1).log()
    target = torch.zeros(4, dtype=torch.int64)
    values = metrics(CrossEntropy(), logits, target, bytes_each=3.0)
    first, others = (metrics(CrossEntropy(), logits[part], target[part]) for part in (slice(1), slice(1, 4)))
    fractions = [f"1/{round(1 / entry)}" for entry in p.tolist()]
    yield f"12 bytes of UTF-8, get p_y = {', '.join(fractions[:3])} and {fractions[3]}"
    yield f"p_y of the four tokens multiplied = 1/{round(1 / p.prod().item())}"
    yield f"Σ −log p_y = {show(4 * values['nll'])} nats = {-p.log2().sum().item():.0f} bits"
    yield f"nll = {show(4 * values['nll'])} / 4 = {show(values['nll'])}"
    yield f"perplexity = exp({show(values['nll'])}) = {show(values['perplexity'])}"
    yield f"bits per byte = 9 / 12 = {show(values['bits_per_byte'])}"
    yield f"mean of the first token = {show(first['nll'])}, of the other three = {show(others['nll'])}"
    yield f"mean of these two means = {show((first['nll'] + others['nll']) / 2)}, and not {show(values['nll'])}"
    yield f"among {show(values['perplexity'])} tokens"
    yield f"p − e_y = {show(P - HOT)}"


def likelihood_of_numbers() -> Lines:
    rows: dict[str, NumberLoss] = {
        "squared error": lambda m, y: mse_loss(m, y) / 2,
        "absolute error": l1_loss,
        "Huber, δ = 2": lambda m, y: huber_loss(m, y, delta=2.0),
        "pinball, τ = 0.75": lambda m, y: torch.maximum(0.75 * (y - m), 0.25 * (m - y)).mean(),
    }
    near, far = (given(y).strip("()") for y in (DATA, FARTHER))
    yield f"Take the data {near}. The best constant, the same when {near[-2:]} moves out to {far[-2:]}, and how hard"
    yield f"how hard {near[-2:]} pulls at a prediction of 3"
    yield f"| loss | best constant | with {far[-2:]} for {near[-2:]} | pull of {near[-2:]} |"
    for name, loss in rows.items():
        prediction = torch.full((1,), 3.0, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(prediction, DATA[-1:]), prediction)
        cells = [best_constant(loss, DATA), best_constant(loss, FARTHER), -slope.item()]
        yield f"| {name} | {' | '.join(map(show, cells))} |"
    area, _ = quad(lambda r: math.exp(-huber_loss(vector(r), vector(0), delta=1.0).item()), -60, 60)
    yield f"for δ = 1 the integral of exp(−Huber) is {show(area)}"
    yield f"and that of exp(−r²/2) is {show(math.sqrt(2 * math.pi))}"


def learned_spread() -> Lines:
    mean, median = DATA.mean(), DATA.median()
    variance = smallest(lambda v: gaussian_nll_loss(mean.expand(5), DATA, vector(v).expand(5)).item(), 1, 1000)
    width = smallest(lambda b: -Laplace(median, b).log_prob(DATA).mean().item(), 1, 60)
    fixed, fitted = (-Normal(mean, s).log_prob(DATA).mean() for s in (1.0, math.sqrt(variance)))
    laplace = -Laplace(median, width).log_prob(DATA).mean()
    yield f"Gaussian, μ = {mean:.0f}, σ = 1 fixed mean nll = {show(fixed)}"
    yield f"Gaussian, μ = {mean:.0f}, σ² = {variance:.0f} fitted mean nll = {show(fitted)}"
    yield f"Laplace, μ = {median:.0f}, b = {width:.1f} fitted mean nll = {show(laplace)}"
    squared, absolute = mse_loss(mean.expand(5), DATA), l1_loss(median.expand(5), DATA)
    yield f"Squared error {squared:.0f} and absolute error {absolute:.1f}"


def divergences() -> Lines:
    parts = f"H(η) = {show(entropy(ETA))} and KL(η ‖ p) = {show(divergence(ETA, P))}"
    yield f"For η = {given(ETA)} and the p above, cross-entropy(η, p) = {show(cross_entropy(ETA, P))}, {parts}"
    data, broad, peaked = vector(0.49, 0.02, 0.49), torch.ones(3).double() / 3, vector(0.90, 0.05, 0.05)
    yield f"Take the data {given(data)}"
    yield f"| broad (1/3, 1/3, 1/3) | {show(divergence(data, broad))} | {show(divergence(broad, data))} |"
    yield f"| peaked (0.90, 0.05, 0.05) | {show(divergence(data, peaked))} | {show(divergence(peaked, data))} |"


def soft_targets() -> Lines:
    loss = CrossEntropy(label_smoothing=0.1)
    value, gradient = value_and_gradient(loss)
    kl, _ = value_and_gradient(KLDivergence(label_smoothing=0.1))
    noisy = -(0.9 * P[0] + 0.1 / 3).log()
    yield f"q = 0.9 e_y + 0.1 / 3 = {show(SMOOTHED)}"
    yield f"cross-entropy(q, p) = {show(value)}"
    yield f"H(q) = {show(entropy(SMOOTHED))}"
    yield f"KL(q ‖ p) = {show(value)} − {show(entropy(SMOOTHED))} = {show(kl)}"
    yield f"gradient p − q = {show(gradient)}"
    ratio = SMOOTHED[0] / SMOOTHED[1]
    yield f"log(q_y/q_j) = log {ratio:.0f} = {show(ratio.log())}"
    yield f"−log(0.9 p_y + 0.1 / 3) = {show(noisy)}, not {show(value)}"
    value_of_kl = f"For t = {given(ETA)} its value is KL(t ‖ p) = {show(divergence(ETA, P))}"
    yield f"{value_of_kl}, and its gradient p − t = {show(P - ETA)}"


def proper_scores() -> Lines:
    brier = expected_loss(Brier(), Z, ETA)
    distance, rest = (P - ETA).square().sum(), 1 - ETA.square().sum()
    yield f"η = {given(ETA)}, the expected Brier score = {show(distance)} + {show(rest)} = {show(brier)}"
    for name, z in (("the p above", Z), ("the uniform p", torch.zeros_like(Z))):
        total = Brier().position_loss(z.expand(3, -1), torch.arange(3)).neg().exp().sum()
        yield f"{show(total)} for {name}"
    wrong = vector(0, 8, 0)
    slopes = [show(value_and_gradient(loss, wrong)[1][0]) for loss in (CrossEntropy(), Brier())]
    yield f"z = {given(wrong)} and y is the first"
    yield f"its entry for y is {slopes[0]} with cross-entropy and {slopes[1]} with Brier"


def readings() -> Lines:
    rows: list[tuple[str, Loss]] = [
        ("`cross_entropy`, `brier`", CrossEntropy()),
        ("`cross_entropy`, `brier`", Brier()),
        ("`kl_divergence`, ε = 0.1", KLDivergence(label_smoothing=0.1)),
        ("`focal`, γ = 2", Focal(gamma=2.0)),
        ("`square`, k = 1, M = 1", Square(k=1.0, m=1.0)),
        ("`square`, k = 15, M = 30", Square(k=15.0, m=30.0)),
    ]
    target = torch.tensor([0] * 7 + [1] * 2 + [2])
    for name, loss in rows:
        z = minimiser(loss)
        values = metrics(loss, z.expand(10, -1), target)
        cells = [values["nll"], values["scale"], values["nll_scaled"], values["nll_linked"]]
        yield f"| {name} | {' | '.join(map(show, [z.softmax(dim=-1), *cells]))} |"
    yield f"no nll can be below H(η) = {show(entropy(ETA))}"


SECTIONS = [
    one_output,
    likelihood_of_classes,
    likelihood_of_numbers,
    learned_spread,
    divergences,
    soft_targets,
    proper_scores,
    readings,
]


def pattern(line: str) -> re.Pattern[str]:
    """This text, and no number that goes on before or after it."""
    return re.compile(rf"(?<![\w.−]){re.escape(flat(line))}(?!\w|\.\d)")


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_what_is_computed(section: Callable[[], Lines]) -> None:
    assert [line for line in section() if not pattern(line).search(PAGE)] == []


def test_the_page_has_no_result_that_is_not_computed() -> None:
    rest = re.sub(r"arXiv:[\d.]+", "", PAGE)
    lines = {line for section in SECTIONS for line in section()}
    for line in sorted(lines, key=len, reverse=True):
        rest = pattern(line).sub("", rest)
    assert re.findall(r".{0,30}\d\.\d{3,}", rest) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_page_s_formulas_hold_for_any_logits(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, w = (3 * torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(2))
    p, eta = z.softmax(dim=-1), w.softmax(dim=-1)
    plain, smoothed, kl = (
        value_and_gradient(loss, z)
        for loss in (CrossEntropy(), CrossEntropy(label_smoothing=0.1), KLDivergence(label_smoothing=0.1))
    )
    torch.testing.assert_close(plain[1], p - HOT)
    torch.testing.assert_close(smoothed[1], p - SMOOTHED)
    torch.testing.assert_close(kl[1], p - SMOOTHED)
    torch.testing.assert_close(smoothed[0] - kl[0], entropy(SMOOTHED))
    torch.testing.assert_close(kl[0], divergence(SMOOTHED, p))
    torch.testing.assert_close(expected_loss(CrossEntropy(), z, eta), entropy(eta) + divergence(eta, p))
    brier = (p - eta).square().sum() + 1 - eta.square().sum()
    torch.testing.assert_close(expected_loss(Brier(), z, eta), brier)


def test_the_minimisers_of_the_last_table_are_those_of_the_table_before() -> None:
    for loss in (CrossEntropy(), Brier()):
        torch.testing.assert_close(minimiser(loss).softmax(dim=-1), ETA)
    smoothed = minimiser(KLDivergence(label_smoothing=0.1)).softmax(dim=-1)
    torch.testing.assert_close(smoothed, 0.9 * ETA + 0.1 / 3)
    for k, m in ((1.0, 1.0), (15.0, 30.0)):
        torch.testing.assert_close(minimiser(Square(k=k, m=m)), k * m * ETA / (1 + (k - 1) * ETA))
    weights = [0.5, 1.0, 2.0]
    weighted = minimiser(CrossEntropy(class_weights=weights)).softmax(dim=-1)
    torch.testing.assert_close(weighted, vector(*weights) * ETA / (vector(*weights) * ETA).sum())
