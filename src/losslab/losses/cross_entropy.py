"""Cross-entropy with label smoothing, class weights and a temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.backends import Backend, run_backend
from losslab.losses.base import Loss
from losslab.losses.smoothing import Convention, Smoothing
from losslab.losses.softmax_stats import SoftmaxStats


class CrossEntropy(Loss):
    """Cross-entropy: the negative log-likelihood of the target, with label smoothing and class weights.

    Formula:
        ℓ = Σ_j q_j w_j (−log p_j), p = softmax(z / T), divided by Σ w_y. q is the smoothed target: by torch's
        convention (1 − ε) onehot(y) + ε / V, by fairseq's 1 − ε at y and ε / (V − 1) elsewhere, by the Annotated
        Transformer's 1 − ε at y, 0 at padding and ε / (V − 2) elsewhere.
    Gradient:
        ∂ℓ/∂z_j = (p_j Σ_i q_i w_i − q_j w_j) / T; p − onehot(y) without options.
    Source:
        Classical; smoothing: Szegedy et al. 2016, arXiv:1512.00567, Müller et al. 2019, arXiv:1906.02629, and Rush
        2018, The Annotated Transformer.
    Use:
        The baseline of every comparison. ε = 0.1 is usual in translation and image classification, 0 in language
        models.
    Weakness:
        Smoothing worsens nll and perplexity, even where it helps accuracy or BLEU, and makes worse teachers; it pushes
        overconfidence away rather than measuring it.
    Prediction:
        softmax(z / T).
    Posterior:
        η_j ∝ (p_j / w_j, normalised, − spread_j) / extra, q being spread + extra · onehot(y); p itself without options.

    Args:
        label_smoothing: ε in [0, 1).
        temperature: T > 0; predictions are made at the same temperature.
        class_weights: w, one number above 0 for each of the V classes.
        smoothing_convention: torch, fairseq or annotated_transformer.
        padding_id: the class that annotated_transformer gives no probability; as a target it is ignored.
        backend: what computes it: auto or chunked is losslab's engine, dense all logits at once, torch
            torch.nn.functional.linear_cross_entropy, liger liger-kernel's. What one of them cannot do, ours does.
    Raises:
        UserError: for values outside these ranges, and in `bind` where they do not fit V.
    """

    cost_class = "F2"
    shift_invariant = True
    forward_sums_scores = True

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        class_weights: list[float] | None = None,
        smoothing_convention: Convention = "torch",
        padding_id: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise UserError(f"loss.temperature must be above 0 and finite, not {temperature}")
        if class_weights is not None and not all(0 < weight < math.inf for weight in class_weights):
            raise UserError("loss.class_weights must all be above 0 and finite")
        self.smoothing = Smoothing(label_smoothing, smoothing_convention, padding_id)
        self.is_proper = label_smoothing == 0 and class_weights is None and padding_id is None
        self.per_class = class_weights is not None or padding_id is not None
        self.temperature = temperature
        self.backend = backend
        self.fallback = ""
        """The reason why `backend` could not compute a batch, once that was so."""
        self.class_weights: Tensor | None  # [V]
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def bind(self, spec: OutputSpec) -> None:
        self.smoothing.check(spec.num_outputs)
        if self.class_weights is not None and len(self.class_weights) != spec.num_outputs:
            raise UserError(f"loss.class_weights has {len(self.class_weights)} numbers for {spec.num_outputs} classes")

    def forward(self, features: Features, projection: Projection) -> LossSum:
        own = run_backend(self, features, projection)
        return super().forward(features, projection) if own is None else own

    def select(self, features: Features) -> Features:
        return self.smoothing.select(features)

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        """spread · w: the smoothed part needs Σ_j spread_j w_j z_j."""
        if self.smoothing.epsilon == 0:
            return None
        spread = self.smoothing.spread(num_outputs)
        return spread if self.class_weights is None else spread.to(self.class_weights.device) * self.class_weights

    def from_statistics(self, statistics: SoftmaxStats) -> Tensor:
        own = -statistics.log_prob
        if self.class_weights is not None:
            own = own * self.class_weights.to(own.dtype)[statistics.target]
        u = self.linear_weights(statistics.num_outputs)
        if u is None or statistics.linear is None:
            return own
        smoothed = u.sum().to(own.dtype) * statistics.logsumexp - statistics.linear
        return self.smoothing.extra(statistics.num_outputs) * own + smoothed

    def position_weight(self, features: Features) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights[features.target]

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor:
        if self.class_weights is not None:
            p = p / self.class_weights.to(p.dtype)
            p = p / p.sum(dim=-1, keepdim=True)
        return self.smoothing.undone(p)
