"""Regularizers, which join any loss of the softmax by one key each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Features, LossSum, OutputSpec, PenaltySum, Projection, TargetKind, Values
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.denominator import share_of, share_of_step, weighs_positions
from losslab.losses.softmax_stats import SoftmaxStats
from losslab.losses.targets import check_targets

_OF_STATISTICS = ("from_log_prob", "from_statistics")
_OF_SOFTMAX = (TargetKind.CLASSES, TargetKind.DISTRIBUTIONS)
_OF_LOGITS = ("position_loss", "from_logits")


def regularize(loss: Loss, settings: dict[str, float | None]) -> Loss:
    """The loss itself where all of `settings` (as the keys of `regularizers`) are off, else `Regularized`.

    Raises:
        UserError: for a value out of range, and for a loss that is not one of the softmax.
    """
    return loss if settings == Regularized.__init__.__kwdefaults__ else Regularized(loss, **settings)  # type: ignore[arg-type]


class Regularized(Loss):
    """A loss of p = softmax(z) with penalties, each logged apart. They are means over positions, whatever the loss
    divides by: class weights, which change its denominator, do not change theirs.

    z_loss: adds λ (logsumexp z)², with the gradient 2 λ p_j logsumexp z: the level of the logits, which softmax does
        not see, stays near 0. Chowdhery et al. 2022, arXiv:2204.02311.
    confidence_penalty: subtracts β H(p), with the gradient β p_j (log p_j + H(p)): certainty costs something, and the
        predictions get too cautious. Pereyra et al. 2017, arXiv:1701.06548.
    mu_loss: adds λ ‖mean_j w_j‖², of the projection's rows, each of which gets the gradient 2 λ mean_i w_i / V: against
        the same drift, without a look at the logits. Stollenwerk et al. 2026, arXiv:2601.02031.
    soft_cap: makes z into c tanh(z / c) before anything else, for predictions too, and so multiplies the gradient by
        1 − tanh²(z / c): no logit exceeds c, and those near it hardly learn. Gemma 2, 2024, arXiv:2408.00118.

    Args:
        loss: not bound yet; any that predicts softmax(z), z being the product of hidden states and projection.
        z_loss: λ, 0 or above; PaLM and OLMo have 1e-4.
        confidence_penalty: β, 0 or above.
        mu_loss: λ, 0 or above; 1e-4 is usual.
        soft_cap: c, above 0; Gemma 2 has 30. None: no cap.
    Raises:
        UserError: for values outside these ranges, and for another loss.
    """

    forward_sums_scores = True

    def __init__(
        self,
        loss: Loss,
        *,
        z_loss: float = 0.0,
        confidence_penalty: float = 0.0,
        mu_loss: float = 0.0,
        soft_cap: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"z_loss": z_loss, "confidence_penalty": confidence_penalty, "mu_loss": mu_loss}.items():
            if not 0 <= value < math.inf:
                raise UserError(f"regularizers.{name} must be 0 or above and finite, not {value}")
        if soft_cap is not None and not 0 < soft_cap < math.inf:
            raise UserError(f"regularizers.soft_cap must be above 0 and finite, not {soft_cap}")
        _check_softmax(loss)
        self.loss = loss
        self.z_loss = z_loss
        self.confidence_penalty = confidence_penalty
        self.mu_loss = mu_loss
        self.soft_cap = soft_cap
        for name in ("target_kind", "position_wise", "has_detached", "exact_products", "temperature"):
            setattr(self, name, getattr(loss, name))
        for name in ("agrees", "reads_teacher", "teacher"):
            setattr(self, name, getattr(loss, name))
        self.per_class = loss.per_class or bool(mu_loss)
        self.needs = dict(loss.needs)  # a read-only view, the default, cannot be copied
        check_backend(loss)
        penalties = {"z_loss": z_loss, "confidence_penalty": confidence_penalty, "mu_loss": mu_loss}
        added = tuple(name for name, value in penalties.items() if value)
        if taken := sorted({*loss.terms} & {*added}):
            raise UserError(f"the loss has a term named {taken[0]} itself; leave out regularizers.{taken[0]}")
        self.terms = (*(loss.terms or ("loss",)), *added)
        self.shift_invariant = loss.shift_invariant and not z_loss and soft_cap is None
        self.is_proper = loss.is_proper and not confidence_penalty
        needs_logits = confidence_penalty or soft_cap is not None or loss.written_as() in _OF_LOGITS
        self.cost_class = "F3" if needs_logits else loss.cost_class
        self._way = "from_logits" if needs_logits else "from_statistics"
        self._shared = tuple(name for name in added if name != "mu_loss")
        self.reads_step = bool(self._shared) and weighs_positions(loss)
        self._step_share: Tensor | None = None
        self._share: Tensor | None = None

    def bind(self, spec: OutputSpec) -> None:
        self.loss.bind(spec)

    def num_outputs(self, size: int) -> int:
        return self.loss.num_outputs(size)

    def num_classes(self, num_outputs: int) -> int:
        return self.loss.num_classes(num_outputs)

    def begin_step(self, step: int, max_steps: int) -> None:
        self.loss.begin_step(step, max_steps)

    def teach(self, log_probs: Callable[[Tensor], Tensor]) -> None:
        self.loss.teach(log_probs)

    def written_as(self) -> str:
        return self._way

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        return self.loss.linear_weights(num_outputs)

    def from_statistics(self, statistics: SoftmaxStats) -> Values:
        return self._penalised(self.loss.from_statistics(statistics), statistics.logsumexp)

    def from_logits(self, logits: Tensor, features: Features) -> Values:
        tempered = logits if self.temperature == 1 else logits / self.temperature
        logsumexp = tempered.logsumexp(dim=-1)
        values = self._penalised(self.loss.from_logits(logits, features), logsumexp)
        if self.confidence_penalty:
            log_p = tempered - logsumexp[:, None]
            values["confidence_penalty"] = self._shared_out(self.confidence_penalty * (log_p.exp() * log_p).sum(dim=-1))
        return values

    def _penalised(self, values: Values, logsumexp: Tensor) -> dict[str, Tensor]:
        terms = {"loss": values} if isinstance(values, Tensor) else dict(values)
        if self.z_loss:
            terms["z_loss"] = self._shared_out(self.z_loss * logsumexp.square())
        return terms

    def _shared_out(self, penalty: Tensor) -> Tensor:
        return penalty if self._share is None else self._share * penalty

    def prepare_step(self, target: Tensor, weight: Tensor) -> None:
        self._step_share = share_of_step(self.loss, target, weight)

    @contextmanager
    def _sharing(self, features: Features, num_outputs: int) -> Iterator[Tensor | None]:
        """Multiply penalties so that the loss's own denominator gives their mean over positions; yields how many those
        are, or None where both denominators are the same."""
        if not self.reads_step:
            yield None
            return
        check_targets(features.kept().target, self, num_outputs)
        share, positions = share_of(self.loss, features)
        if self.training and self._step_share is not None:
            share = self._step_share
        self._share = share
        try:
            yield positions
        finally:
            self._share = None

    def forward(self, features: Features, projection: Projection) -> LossSum:
        with self._sharing(features, self.num_classes(len(projection.weight))) as positions:
            share = self._share
            result = super().forward(features, projection)
        if positions is not None and share is not None:
            total = torch.stack([result.terms[name] for name in self._shared]).sum() / share
            result = replace(result, penalty=PenaltySum(total.detach(), positions, share))
        if not self.mu_loss:
            return result
        penalty = result.weight * self._off_centre(projection)
        return replace(result, total=result.total + penalty, terms={**result.terms, "mu_loss": penalty.detach()})

    def from_scores(
        self, features: Features, projection: Projection, logits: Tensor, logsumexp: Tensor | None
    ) -> LossSum | None:
        """None where a penalty is of the weights, or the loss divides by weights of its own: `forward` joins those."""
        if self.mu_loss or self.loss.position_weight(features) is not None:
            return None
        return super().from_scores(features, projection, logits, logsumexp)

    def values(self, features: Features, projection: Projection) -> Values:
        with self._sharing(features, self.num_classes(len(projection.weight))):
            values = super().values(features, projection)
        if not self.mu_loss or isinstance(values, Tensor):
            return values
        return {**values, "mu_loss": self._off_centre(projection).expand(len(features))}

    def _off_centre(self, projection: Projection) -> Tensor:
        with torch.autocast(device_type=projection.weight.device.type, enabled=False):
            return self.mu_loss * projection.weight.float().mean(dim=0).square().sum()

    def select(self, features: Features) -> Features:
        return self.loss.select(features)

    def adapt(self, hidden: Tensor, projection: Projection) -> tuple[Tensor, Projection]:
        return self.loss.adapt(hidden, projection)

    def map_logits(self, logits: Tensor) -> Tensor:
        logits = self.loss.map_logits(logits)
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def position_weight(self, features: Features) -> Tensor | None:
        return self.loss.position_weight(features)

    def calibrate(self, scale: float) -> None:
        self.loss.calibrate(scale)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return self.loss.predict_log_probs(logits)

    def softmax_factor(self) -> float | None:
        return self.loss.softmax_factor()

    def posterior(self, logits: Tensor) -> Tensor | None:
        return None if self.confidence_penalty else self.loss.posterior(logits)


def check_backend(loss: Loss) -> None:
    """Raises UserError for a backend that is not ours: those compute plain cross-entropy alone."""
    backend = getattr(loss, "backend", "auto")
    if backend not in ("auto", "chunked"):
        raise UserError(f"loss.backend={backend} computes plain cross-entropy alone; leave it out beside anything else")


def _check_softmax(loss: Loss) -> None:
    kind = type(loss)
    if (
        not loss.predicts_softmax()
        or loss.trains_otherwise
        or loss.target_kind not in _OF_SOFTMAX
        or loss.written_as() not in _OF_STATISTICS + _OF_LOGITS
    ):
        raise UserError(
            f"regularizers join single losses that predict softmax(z), and {chosen('loss', kind)} is none; leave out "
            "regularizers.*"
        )
