"""One row for each variant of each loss in conf/loss, with a reference written from the formula, not from the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.conformance.subject import Subject
from losslab.contracts import Features, TargetKind
from losslab.losses.adaptive_softmax import AdaptiveSoftmax
from losslab.losses.asymmetric import Asymmetric
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.brier import Brier
from losslab.losses.class_balanced import ClassBalanced
from losslab.losses.confidence_penalty import ConfidencePenalty
from losslab.losses.coral import Coral
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.ctc import CTC
from losslab.losses.distillation import Distillation
from losslab.losses.dynamic_fine_tuning import DynamicFineTuning
from losslab.losses.entmax import Entmax
from losslab.losses.focal import Focal
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from losslab.losses.goldfish import Goldfish
from losslab.losses.harmonic import Harmonic
from losslab.losses.hinge import Hinge
from losslab.losses.hl_gauss import HLGauss
from losslab.losses.huber import Huber
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.log_cosh import LogCosh
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.losses.mae import MAE
from losslab.losses.mse import MSE
from losslab.losses.multi_token_prediction import MultiTokenPrediction
from losslab.losses.poly1 import Poly1
from losslab.losses.quantile import Quantile
from losslab.losses.sampled_softmax import SampledSoftmax
from losslab.losses.soft_cross_entropy import SoftCrossEntropy
from losslab.losses.square import Square
from losslab.losses.squentropy import Squentropy
from losslab.losses.stablemax import StableMax
from losslab.losses.sum import Sum
from losslab.losses.supervised_contrastive import SupervisedContrastive
from losslab.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from losslab.losses.token_order import TokenOrder
from losslab.losses.unlikelihood import Unlikelihood

NUM_OUTPUTS, NUM_VALUES = 7, 2
# Powers of two and short fractions: the same number in float32 and float64.
CLASS_WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0, 1.0]

Reference = Callable[[Tensor, Any], Tensor]
Scores = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _softmax(logits: Tensor) -> Tensor:
    exponentials = logits.exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    return (torch.arange(logits.shape[-1]) == target[:, None]).to(logits.dtype)


def smoothed_target(logits: Tensor, target: Tensor, epsilon: float, *, left_out: int = 1, padding: int = -1) -> Tensor:
    """1 − ε at the target, ε / (V − `left_out`) elsewhere, 0 at padding."""
    is_target = _one_hot(logits, target)
    q = (1 - epsilon) * is_target + epsilon / (logits.shape[-1] - left_out) * (1 - is_target)
    return q * (torch.arange(logits.shape[-1]) != padding)


def entropy_to(*, less_own: bool = False, **of_target: Any) -> Reference:
    """−Σ_j q_j log p_j, and less −Σ_j q_j log q_j for a divergence."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        q = smoothed_target(logits, target, **of_target)
        own = torch.xlogy(q, q).sum(dim=-1) if less_own else 0.0
        return own - (q * _softmax(logits).log()).sum(dim=-1)

    return reference


def cross_entropy(*, smoothing: float = 0.0, temperature: float = 1.0, weights: list[float] | None = None) -> Reference:
    """(1 − ε) w_y (−log p_y) + (ε / V) Σ_j w_j (−log p_j), p = softmax(z / T)."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        num_outputs = logits.shape[-1]
        w = torch.ones(num_outputs) if weights is None else torch.tensor(weights)
        costs = -w.to(logits.dtype) * _softmax(logits / temperature).log()
        own = (_one_hot(logits, target) * costs).sum(dim=-1)
        return (1 - smoothing) * own + smoothing / num_outputs * costs.sum(dim=-1)

    return reference


def kl_divergence(*, smoothing: float) -> Reference:
    """Σ_j q_j log(q_j / p_j) with 0 log 0 = 0."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        q = (1 - smoothing) * _one_hot(logits, target) + smoothing / logits.shape[-1]
        return (torch.xlogy(q, q) - q * _softmax(logits).log()).sum(dim=-1)

    return reference


def square(*, k: float, m: float) -> Reference:
    """(1 / V) [k (f_y − M)² + Σ_{j≠y} f_j²]."""

    def reference(scores: Tensor, target: Tensor) -> Tensor:
        is_target = _one_hot(scores, target)
        return ((1 + (k - 1) * is_target) * (scores - m * is_target) ** 2).sum(dim=-1) / scores.shape[-1]

    return reference


def of_probability(formula: Callable[[Tensor], Tensor]) -> Reference:
    """A function of p_y."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        return formula((_one_hot(logits, target) * _softmax(logits)).sum(dim=-1))

    return reference


def flsd53(p: Tensor) -> Tensor:
    gamma = torch.tensor([5.0 if value < 0.2 else 3.0 if value < 0.5 else 2.0 for value in p.tolist()])
    return -((1 - p) ** gamma) * p.log()


def brier(logits: Tensor, target: Tensor) -> Tensor:
    """Σ_j (p_j − [j = y])²."""
    return (_softmax(logits) - _one_hot(logits, target)).square().sum(dim=-1)


def confidence_penalty(*, beta: float) -> Reference:
    """−log p_y + β Σ_j p_j log p_j."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        p = _softmax(logits)
        return ((beta * p - _one_hot(logits, target)) * p.log()).sum(dim=-1)

    return reference


def squentropy(logits: Tensor, target: Tensor) -> Tensor:
    """−log p_y + the mean of the other squares."""
    is_target = _one_hot(logits, target)
    own = -(is_target * _softmax(logits).log()).sum(dim=-1)
    return own + ((1 - is_target) * logits.square()).sum(dim=-1) / (logits.shape[-1] - 1)


def stablemax(logits: Tensor, target: Tensor) -> Tensor:
    """−log (s_y / Σ_j s_j), s(z) = z + 1 or 1 / (1 − z)."""
    s = torch.where(logits >= 0, logits.clamp(min=0) + 1, 1 / (1 - logits.clamp(max=0)))
    return -((_one_hot(logits, target) * s).sum(dim=-1) / s.sum(dim=-1)).log()


def entmax(*, alpha: float, smoothing: float = 0.0) -> Reference:
    """max_p p · z + H_α(p), less q · z + H_α(q), with p by plain bisection of Σ [(α − 1) z − τ]₊^(1 / (α − 1)) = 1."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        z = (alpha - 1) * logits.detach()
        low, high = z.amax(dim=-1, keepdim=True) - 1, z.amax(dim=-1, keepdim=True)
        for _ in range(100):
            tau = (low + high) / 2
            above = ((z - tau).clamp(min=0) ** (1 / (alpha - 1))).sum(dim=-1, keepdim=True) > 1
            low, high = torch.where(above, tau, low), torch.where(above, high, tau)
        p = (z - low).clamp(min=0) ** (1 / (alpha - 1))
        q = (1 - smoothing) * _one_hot(logits, target) + smoothing / logits.shape[-1]
        entropy, own = ((d - d**alpha).sum(dim=-1) / (alpha * (alpha - 1)) for d in (p, q))
        return ((p - q) * logits).sum(dim=-1) + entropy - own

    return reference


def hinge(*, margin: float = 1.0, power: int = 1) -> Reference:
    """[m + max_{j≠y} f_j − f_y]₊ to a power."""

    def reference(scores: Tensor, target: Tensor) -> Tensor:
        is_target = _one_hot(scores, target).bool()
        own = scores[is_target]
        rivals = scores[~is_target].reshape(len(scores), -1).max(dim=-1).values
        return (margin + rivals - own).relu() ** power

    return reference


def unlikelihood(*, alpha: float = 1.0, window: int | None = None) -> Reference:
    """−log p_y − α Σ log(1 − p_c) over the set of tokens before, without y."""

    def reference(logits: Tensor, features: Features) -> Tensor:
        p = _softmax(logits)
        rows = []
        for i, y in enumerate(features.target.tolist()):
            before = set(features.extras["previous"][i, :window].tolist()) - {-1, y}
            own = -p[i, y].log() - alpha * sum((1 - p[i, c]).log() for c in before)
            rows.append(own)
        return torch.stack(rows)

    return reference


def distances(exponent: float) -> Scores:
    """−n log ‖h − w_j‖, a bias being one more coordinate of w, where h has 1."""

    def scores(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            weight = torch.cat([weight, bias[:, None]], dim=-1)
            hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=-1)
        return -exponent * (hidden[:, None] - weight).norm(dim=-1).log()

    return scores


def adjusted(tau: float) -> Scores:
    """z + τ log π, for the counts 1, 2, … of these tests, with 1 added."""

    def scores(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        counts = torch.arange(NUM_OUTPUTS) + 2.0
        return F.linear(hidden, weight, bias) + tau * (counts / counts.sum()).log()

    return scores


def distillation(*, divergence: str, temperature: float = 1.0, alpha: float = 0.5, beta: float = 0.5) -> Reference:
    """α T² D + (1 − α) (−log p_y), against the teacher that the kit gives."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(dim=-1)

    def reference(logits: Tensor, features: Features) -> Tensor:
        teacher = Subject(Distillation()).fresh(NUM_OUTPUTS).teacher_log_probs
        assert teacher is not None
        q = _softmax(teacher(features.extras["teacher_hidden"]) / temperature).to(logits.dtype)
        p = _softmax(logits / temperature)
        middle = beta * q + (1 - beta) * p
        soft = {
            "forward": kl(q, p),
            "reverse": kl(p, q),
            "symmetric": (1 - beta) * kl(q, p) + beta * kl(p, q),
            "jensen_shannon": beta * kl(q, middle) + (1 - beta) * kl(p, middle),
            "total_variation": (p - q).abs().sum(dim=-1) / 2 / temperature,
        }[divergence]
        hard = -(_one_hot(logits, features.target) * _softmax(logits).log()).sum(dim=-1)
        return alpha * temperature**2 * soft + (1 - alpha) * hard

    return reference


def weighted_sum(logits: Tensor, target: Tensor) -> Tensor:
    """−log p_y + ½ of the Brier score."""
    return cross_entropy()(logits, target) + 0.5 * brier(logits, target)


def of_residual(formula: Callable[[Tensor], Tensor]) -> Reference:
    """The mean over a position's values of a function of ŷ − y."""

    def reference(predicted: Tensor, target: Tensor) -> Tensor:
        return formula(predicted - target).mean(dim=-1)

    return reference


def huber(*, delta: float) -> Reference:
    return of_residual(lambda e: torch.where(e.abs() <= delta, e**2 / 2, delta * (e.abs() - delta / 2)))


def gaussian_nll(*, beta: float = 0.0, floor: float = 1e-6) -> Reference:
    """½ (log σ² + (y − μ)² / σ²), times σ^{2β} as a constant."""

    def reference(outputs: Tensor, target: Tensor) -> Tensor:
        num_values = target.shape[-1]
        mean, variance = outputs[:, :num_values], outputs[:, num_values:].exp() + floor
        return (variance.detach() ** beta * (variance.log() + (target - mean) ** 2 / variance) / 2).mean(dim=-1)

    return reference


def quantile(*, levels: list[float]) -> Reference:
    """max(τ e, (τ − 1) e), e = y − ŷ, of each level of each value."""

    def reference(outputs: Tensor, target: Tensor) -> Tensor:
        rows = []
        for predicted, wanted in zip(outputs, target, strict=True):
            pairs = [(y, level) for y in wanted for level in levels]
            errors = [(y - own, level) for own, (y, level) in zip(predicted, pairs, strict=True)]
            rows.append(sum(torch.max(level * e, (level - 1) * e) for e, level in errors) / len(errors))
        return torch.stack(rows)

    return reference


def hl_gauss(*, num_bins: int, low: float, high: float, sigma: float) -> Reference:
    """−Σ_b q_b log p_b, q_b the normal distribution's mass in bin b, renormalised."""

    def reference(outputs: Tensor, target: Tensor) -> Tensor:
        edges = torch.linspace(low, high, num_bins + 1, dtype=torch.float64)
        y = target.double().clamp(low, high)[..., None]
        phi = torch.distributions.Normal(y, sigma * (high - low) / num_bins).cdf(edges)
        q = phi[..., 1:] - phi[..., :-1]
        q = q / q.sum(dim=-1, keepdim=True)
        p = _softmax(outputs.reshape(*target.shape, num_bins))
        return -(q * p.log()).sum(dim=-1).mean(dim=-1)

    return reference


def binary_cross_entropy(*, weight: float = 1.0) -> Reference:
    """−Σ_j [w y_j log s(z_j) + (1 − y_j) log(1 − s(z_j))]."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        yes, no = 1 / (1 + (-logits).exp()), 1 / (1 + logits.exp())
        return -(weight * target * yes.log() + (1 - target) * no.log()).sum(dim=-1)

    return reference


def asymmetric(*, positive: float = 0.0, negative: float = 4.0, clip: float = 0.05) -> Reference:
    """−Σ_j [y_j (1 − p)^γ₊ log p + (1 − y_j) q^γ₋ log(1 − q)], q = max(p − m, 0)."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        p, rest = 1 / (1 + (-logits).exp()), 1 / (1 + logits.exp())
        present = rest**positive * p.log()
        absent = (p - clip).clamp(min=0) ** negative * (rest + clip).clamp(max=1).log()
        return -(target * present + (1 - target) * absent).sum(dim=-1)

    return reference


def effective_weights(beta: float) -> list[float]:
    """(1 − β) / (1 − β^n) for the counts 1, 2, … of these tests, with the mean 1; as float32 has them."""
    weights = [(1 - beta) / (1 - beta**count) for count in range(1, NUM_OUTPUTS + 1)]
    return torch.tensor([NUM_OUTPUTS * weight / sum(weights) for weight in weights], dtype=torch.float32).tolist()


def class_balanced(inner: Reference, beta: float) -> Reference:
    def reference(logits: Tensor, target: Tensor) -> Tensor:
        return torch.tensor(effective_weights(beta), dtype=logits.dtype)[target] * inner(logits, target)

    return reference


def clusters(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """log p of the most frequent class, of the next, a cluster, and of the other five; class 6 is the most frequent."""
    loss = Subject(AdaptiveSoftmax()).fresh(NUM_OUTPUTS)
    assert isinstance(loss, AdaptiveSoftmax)
    head = F.linear(hidden, weight, bias).log_softmax(dim=-1)
    parts = [head[:, :1]]
    for i in range(2):
        inner = hidden @ loss.narrow[i].to(hidden.dtype).T
        parts.append(head[:, 1 + i : 2 + i] + (inner @ loss.wide[i].to(hidden.dtype).T).log_softmax(dim=-1))
    return torch.cat(parts, dim=-1).flip(-1)


def thresholds(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """log P(y = k) of P(y > k) = s(f + b_k), with the b_k under which f = 0 predicts every class alike."""
    score = F.linear(hidden, weight, bias).double()
    share = torch.arange(1, NUM_OUTPUTS, dtype=torch.float64) / NUM_OUTPUTS
    biases = (1 / share - 1).log().float().double()
    above = 1 / (1 + (-(score + biases)).exp())
    edges = torch.cat([torch.ones_like(score), above, torch.zeros_like(score)], dim=-1)
    return (edges[:, :-1] - edges[:, 1:]).log()


def coral(logits: Tensor, target: Tensor) -> Tensor:
    """−Σ_k ([y > k] log P(y > k) + [y ≤ k] log P(y ≤ k))."""
    p, classes = _softmax(logits), torch.arange(logits.shape[-1])
    rows = []
    for k in range(logits.shape[-1] - 1):
        above, below = (p * (classes > k)).sum(dim=-1), (p * (classes <= k)).sum(dim=-1)
        rows.append(-torch.where(target > k, above, below).log())
    return torch.stack(rows).sum(dim=0)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """−Σ_j q_j log p_j."""
    return -(target * _softmax(logits).log()).sum(dim=-1)


def ctc(logits: Tensor, features: Features) -> Tensor:
    """−log Σ_π Π_t p_t(π_t) by the forward recursion over the target with blanks between its classes, in plain
    probabilities."""
    assert features.lengths is not None
    values, start = [], 0
    for classes, length in zip(features.target.tolist(), features.lengths.tolist(), strict=True):
        p, start = _softmax(logits[start : start + length]), start + length
        states = [0]
        for c in (c for c in classes if c >= 0):
            states += [c + 1, 0]
        zero = p.new_zeros(())
        alpha = [p[0, state] if s < 2 else zero for s, state in enumerate(states)]
        for t in range(1, length):
            before, alpha = alpha, []
            for s, state in enumerate(states):
                skips = s > 1 and state != 0 and state != states[s - 2]
                reach = before[s] + (before[s - 1] if s else zero) + (before[s - 2] if skips else zero)
                alpha.append(p[t, state] * reach)
        values.append(-sum(alpha[-2:], zero).log())
    return torch.stack(values)


@dataclass(frozen=True)
class Case:
    """A variant of a loss.

    Args:
        name: of the yaml in conf/loss.
        variant: tells apart the cases of one name.
        reference: scores, target → the loss of each position, in the precision of the scores.
        sees_features: the reference takes the features instead of the target.
        scores: hidden states, weight and bias → what the reference takes; the projection, mostly.
        class_weights: each position's share in the denominator, by class.
        is_softmax: adding a constant to all logits of a row changes nothing, and every row has a gradient.
        is_sparse: predictions may be exactly 0.
        keeps_order: the class of the largest score is the likeliest, and so on down.
        has_detached: part of the formula is meant to have no gradient, which then is not that of the value.
    """

    name: str
    variant: str
    loss: type[Loss]
    reference: Reference
    kwargs: dict[str, Any] = field(default_factory=dict)
    class_weights: list[float] | None = None
    is_softmax: bool = True
    is_sparse: bool = False
    keeps_order: bool = True
    has_detached: bool = False
    sees_features: bool = False
    scores: Scores = F.linear

    def make(self) -> Loss:
        return self.loss(**self.kwargs)

    @property
    def size(self) -> int:
        """Classes, or values a position."""
        return NUM_VALUES if self.loss.target_kind is TargetKind.VALUES else NUM_OUTPUTS

    def values(self, scores: Tensor, features: Features) -> Tensor:
        return self.reference(scores, features if self.sees_features else features.target)

    def share(self, features: Features) -> Tensor:
        """In the denominator."""
        if self.class_weights is None:
            return torch.ones(len(features), dtype=torch.float64)
        return torch.tensor(self.class_weights, dtype=torch.float64)[features.target]

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}"


def _cross_entropy_case(
    variant: str, *, smoothing: float = 0.0, temperature: float = 1.0, weights: list[float] | None = None
) -> Case:
    kwargs = {"label_smoothing": smoothing, "temperature": temperature, "class_weights": weights}
    reference = cross_entropy(smoothing=smoothing, temperature=temperature, weights=weights)
    return Case("cross_entropy", variant, CrossEntropy, reference, kwargs, class_weights=weights)


def _class_balanced_case(variant: str, inner: Loss, reference: Reference, beta: float) -> Case:
    kwargs = {"inner": inner, "beta": beta}
    weights = effective_weights(beta)
    return Case("class_balanced", variant, ClassBalanced, class_balanced(reference, beta), kwargs, weights)


def _beta_nll_case(beta: float) -> Case:
    reference = gaussian_nll(beta=beta)
    return Case(
        "gaussian_nll", f"beta {beta}", GaussianNLL, reference, {"beta": beta}, is_softmax=False, has_detached=True
    )


def _hl_gauss_case(variant: str, **kwargs: Any) -> Case:
    options = {"num_bins": 100, "low": -4.0, "high": 4.0, "sigma": 0.75} | kwargs
    return Case("hl_gauss", variant, HLGauss, hl_gauss(**options), kwargs)


FAIRSEQ = {"label_smoothing": 0.2, "smoothing_convention": "fairseq"}
ANNOTATED = {"label_smoothing": 0.2, "smoothing_convention": "annotated_transformer", "padding_id": 3}
RUSH = {"left_out": 2, "padding": 3}
MIXED = {"first": CrossEntropy(), "second": Brier(), "weights": {"second": 0.5}}
GCE = GeneralisedCrossEntropy
CASES = [
    Case("cross_entropy", "defaults", CrossEntropy, cross_entropy()),
    _cross_entropy_case("smoothed", smoothing=0.1),
    _cross_entropy_case("temperature", temperature=2.0),
    _cross_entropy_case("weighted", weights=CLASS_WEIGHTS),
    _cross_entropy_case("all options", smoothing=0.1, temperature=2.0, weights=CLASS_WEIGHTS),
    Case("cross_entropy", "fairseq", CrossEntropy, entropy_to(epsilon=0.2), FAIRSEQ),
    Case("cross_entropy", "annotated transformer", CrossEntropy, entropy_to(epsilon=0.2, **RUSH), ANNOTATED),
    Case("kl_divergence", "fairseq", KLDivergence, entropy_to(epsilon=0.2, less_own=True), FAIRSEQ),
    Case(
        "kl_divergence",
        "annotated transformer",
        KLDivergence,
        entropy_to(epsilon=0.2, less_own=True, **RUSH),
        ANNOTATED,
    ),
    Case("kl_divergence", "defaults", KLDivergence, kl_divergence(smoothing=0.1)),
    Case("kl_divergence", "hard targets", KLDivergence, kl_divergence(smoothing=0.0), {"label_smoothing": 0.0}),
    Case("kl_divergence", "very smooth", KLDivergence, kl_divergence(smoothing=0.75), {"label_smoothing": 0.75}),
    Case("square", "defaults", Square, square(k=15.0, m=30.0), is_softmax=False),
    Case("square", "few classes", Square, square(k=1.0, m=1.0), {"k": 1.0, "m": 1.0}, is_softmax=False),
    Case("square", "wide target", Square, square(k=1.0, m=15.0), {"k": 1.0, "m": 15.0}, is_softmax=False),
    Case("focal", "defaults", Focal, of_probability(lambda p: -((1 - p) ** 2) * p.log())),
    Case("focal", "none", Focal, of_probability(lambda p: -p.log()), {"gamma": 0.0}),
    Case("focal", "below one", Focal, of_probability(lambda p: -((1 - p) ** 0.5) * p.log()), {"gamma": 0.5}),
    Case("focal", "sample dependent", Focal, of_probability(flsd53), {"sample_dependent": True}),
    Case("poly1", "defaults", Poly1, of_probability(lambda p: -p.log() + 1 - p)),
    Case("poly1", "none", Poly1, of_probability(lambda p: -p.log()), {"epsilon": 0.0}),
    Case("poly1", "negative", Poly1, of_probability(lambda p: -p.log() - 0.5 * (1 - p)), {"epsilon": -0.5}),
    Case("generalised_cross_entropy", "defaults", GCE, of_probability(lambda p: (1 - p**0.7) / 0.7)),
    Case("generalised_cross_entropy", "linear", GCE, of_probability(lambda p: 1 - p), {"q": 1.0}),
    Case(
        "generalised_cross_entropy",
        "truncated",
        GCE,
        of_probability(lambda p: torch.where(p > 0.1, (1 - p**0.7) / 0.7, (1 - 0.1**0.7) / 0.7)),
        {"truncation": 0.1},
        is_softmax=False,
    ),
    Case(
        "symmetric_cross_entropy",
        "defaults",
        SymmetricCrossEntropy,
        of_probability(lambda p: -0.1 * p.log() + 4 * (1 - p)),
    ),
    Case(
        "dynamic_fine_tuning",
        "defaults",
        DynamicFineTuning,
        of_probability(lambda p: -p.detach() * p.log()),
        has_detached=True,
    ),
    Case("brier", "defaults", Brier, brier),
    Case("confidence_penalty", "defaults", ConfidencePenalty, confidence_penalty(beta=0.1)),
    Case("confidence_penalty", "none", ConfidencePenalty, confidence_penalty(beta=0.0), {"beta": 0.0}),
    Case("squentropy", "defaults", Squentropy, squentropy, is_softmax=False),
    Case("stablemax", "defaults", StableMax, stablemax, is_softmax=False),
    Case("entmax", "defaults", Entmax, entmax(alpha=1.5), is_sparse=True),
    Case("entmax", "sparsemax", Entmax, entmax(alpha=2.0), {"alpha": 2.0}, is_sparse=True),
    Case("entmax", "bisected", Entmax, entmax(alpha=1.3), {"alpha": 1.3}, is_sparse=True),
    *(
        Case("entmax", f"smoothed {alpha}", Entmax, entmax(alpha=alpha, smoothing=0.1), options, is_sparse=True)
        for alpha in (1.3, 1.5, 2.0)
        for options in [{"alpha": alpha, "label_smoothing": 0.1}]
    ),
    Case("goldfish", "defaults", Goldfish, cross_entropy()),
    Case("goldfish", "every other", Goldfish, cross_entropy(), {"k": 2, "context": 1}),
    Case("unlikelihood", "defaults", Unlikelihood, unlikelihood(), sees_features=True),
    Case(
        "unlikelihood",
        "of two tokens",
        Unlikelihood,
        unlikelihood(alpha=0.5, window=2),
        {"alpha": 0.5, "window": 2},
        sees_features=True,
    ),
    Case("harmonic", "defaults", Harmonic, cross_entropy(), scores=distances(6**0.5)),
    Case("harmonic", "steep", Harmonic, cross_entropy(), {"exponent": 9.0}, scores=distances(9.0)),
    Case("logit_adjustment", "defaults", LogitAdjustment, cross_entropy(), scores=adjusted(1.0), keeps_order=False),
    Case("logit_adjustment", "none", LogitAdjustment, cross_entropy(), {"tau": 0.0}, scores=adjusted(0.0)),
    *(
        Case("distillation", divergence, Distillation, distillation(**options), options, sees_features=True)
        for divergence in ("forward", "reverse", "symmetric", "jensen_shannon", "total_variation")
        for options in [{"divergence": divergence, "temperature": 2.0, "alpha": 0.7, "beta": 0.3}]
    ),
    Case("distillation", "defaults", Distillation, distillation(divergence="forward"), sees_features=True),
    Case(
        "sum", "weighted", Sum, weighted_sum, {"first": CrossEntropy(), "second": Brier(), "weights": {"second": 0.5}}
    ),
    Case("hinge", "defaults", Hinge, hinge(), is_softmax=False),
    Case("hinge", "squared", Hinge, hinge(margin=2.0, power=2), {"margin": 2.0, "squared": True}, is_softmax=False),
    Case("mse", "defaults", MSE, of_residual(torch.square), is_softmax=False),
    Case("mae", "defaults", MAE, of_residual(torch.abs), is_softmax=False),
    Case("huber", "defaults", Huber, huber(delta=1.0), is_softmax=False),
    Case("huber", "narrow", Huber, huber(delta=0.25), {"delta": 0.25}, is_softmax=False),
    Case("log_cosh", "defaults", LogCosh, of_residual(lambda e: ((e.exp() + (-e).exp()) / 2).log()), is_softmax=False),
    Case("gaussian_nll", "defaults", GaussianNLL, gaussian_nll(), is_softmax=False),
    Case("gaussian_nll", "high floor", GaussianNLL, gaussian_nll(floor=0.5), {"variance_floor": 0.5}, is_softmax=False),
    _beta_nll_case(0.5),
    _beta_nll_case(1.0),
    Case("quantile", "defaults", Quantile, quantile(levels=[0.1, 0.5, 0.9]), is_softmax=False),
    Case("quantile", "one level", Quantile, quantile(levels=[0.75]), {"levels": [0.75]}, is_softmax=False),
    _hl_gauss_case("defaults"),
    _hl_gauss_case("cut off", num_bins=5, low=-1.0, high=0.5),
    _hl_gauss_case("wide", num_bins=8, sigma=2.0),
    Case("binary_cross_entropy", "defaults", BinaryCrossEntropy, binary_cross_entropy(), is_softmax=False),
    Case(
        "binary_cross_entropy",
        "weighted",
        BinaryCrossEntropy,
        binary_cross_entropy(weight=4.0),
        {"positive_weight": 4.0},
        is_softmax=False,
    ),
    Case("adaptive_softmax", "defaults", AdaptiveSoftmax, cross_entropy(), scores=clusters),
    Case("sampled_softmax", "defaults", SampledSoftmax, cross_entropy()),
    Case("supervised_contrastive", "cross-entropy alone", SupervisedContrastive, cross_entropy(), {"share": 0.0}),
    # With more than these they are no function of the logits alone: test_further_tokens_oracles.py.
    Case("multi_token", "one head", MultiTokenPrediction, cross_entropy(), {"heads": 1}),
    Case("token_order", "without the order", TokenOrder, cross_entropy(), {"alpha": 0.0}),
    Case("coral", "defaults", Coral, coral, scores=thresholds),
    Case("asymmetric", "defaults", Asymmetric, asymmetric(), is_softmax=False),
    Case(
        "asymmetric",
        "focused on both sides",
        Asymmetric,
        asymmetric(positive=0.5, negative=2.0, clip=0.0),
        {"gamma_positive": 0.5, "gamma_negative": 2.0, "clip": 0.0},
        is_softmax=False,
    ),
    _class_balanced_case("cross_entropy", CrossEntropy(), cross_entropy(), 0.999),
    _class_balanced_case("smoothed", CrossEntropy(label_smoothing=0.1), cross_entropy(smoothing=0.1), 0.9),
    _class_balanced_case("focal", Focal(), of_probability(lambda p: -((1 - p) ** 2) * p.log()), 0.9),
    Case("soft_cross_entropy", "defaults", SoftCrossEntropy, soft_cross_entropy),
]

SEQUENCE_CASES = [Case("ctc", "defaults", CTC, ctc, sees_features=True)]
"""Losses whose targets are sequences: `test_sequence_oracles.py`."""
