"""Kullback-Leibler divergence to the smoothed target."""

from __future__ import annotations

from torch import Tensor

from losslab.contracts import Features, OutputSpec
from losslab.losses.base import Loss
from losslab.losses.smoothing import Convention, Smoothing
from losslab.losses.softmax_stats import SoftmaxStats


class KLDivergence(Loss):
    """Kullback-Leibler divergence: how far the prediction is from the smoothed target.

    Formula:
        ℓ = KL(q ‖ p) = Σ_j q_j (log q_j − log p_j), p = softmax(z), q the smoothed target: by torch's convention
        (1 − ε) onehot(y) + ε / V; the others as in cross_entropy.
    Gradient:
        ∂ℓ/∂z_j = p_j − q_j.
    Source:
        Rush 2018, The Annotated Transformer; the smoothing: Szegedy et al. 2016, arXiv:1512.00567.
    Use:
        Where the value should be 0 at the optimum. Its gradient is that of cross-entropy with the same smoothing, whose
        value is higher by the constant entropy H(q): comparing the two compares nothing.
    Weakness:
        As cross-entropy with smoothing: nll and perplexity get worse as ε grows.
    Prediction:
        softmax(z).
    Posterior:
        η = (p − spread) / extra, q being spread + extra · onehot(y); (p − ε / V) / (1 − ε) by torch's convention.

    Args:
        label_smoothing: ε in [0, 1).
        smoothing_convention: torch, fairseq or annotated_transformer.
        padding_id: the class that annotated_transformer gives no probability; as a target it is ignored.
    Raises:
        UserError: for values outside these ranges, and in `bind` where they do not fit V.
    """

    cost_class = "F2"
    shift_invariant = True

    def __init__(
        self,
        *,
        label_smoothing: float = 0.1,
        smoothing_convention: Convention = "torch",
        padding_id: int | None = None,
    ) -> None:
        super().__init__()
        self.smoothing = Smoothing(label_smoothing, smoothing_convention, padding_id)
        self.is_proper = label_smoothing == 0 and padding_id is None
        self.per_class = padding_id is not None

    def bind(self, spec: OutputSpec) -> None:
        self.smoothing.check(spec.num_outputs)

    def select(self, features: Features) -> Features:
        return self.smoothing.select(features)

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        # Σ_j q_j log p_j needs only log p_y and a sum of logits: q is never built.
        return self.smoothing.spread(num_outputs) if self.smoothing.epsilon else None

    def from_statistics(self, statistics: SoftmaxStats) -> Tensor:
        num_outputs = statistics.num_outputs
        own = -self.smoothing.extra(num_outputs) * statistics.log_prob - self.smoothing.entropy(num_outputs)
        if statistics.linear is None:
            return own
        spread = 1 - self.smoothing.extra(num_outputs)
        return own + (spread * statistics.logsumexp - statistics.linear)

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor:
        return self.smoothing.undone(p)
