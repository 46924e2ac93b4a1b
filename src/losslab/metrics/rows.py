"""What the metrics need of each position, in a few passes over logits that stay in the processor's caches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from losslab.metrics.scorer import Scorer

CLIP = 1e-6
"""Times 1 / V: the smallest probability of a posterior."""
_AT_ONCE = {"cpu": 2**18, "cuda": 2**26}
"""Logits read at once: on a CPU they stay in a core's own cache, with the intermediate results; a GPU wants many."""

_SAME = 1e-7
"""Of two scales: float32 rounding of one."""


def piece_rows(num_outputs: int, device: torch.device) -> int:
    """How many positions' logits to read at once."""
    return max(1, _AT_ONCE.get(device.type, _AT_ONCE["cuda"]) // num_outputs)


@dataclass(frozen=True)
class Rows:
    """Of each position, float64 [N]; p is what the model predicts with, q = softmax(s · z)."""

    log_prob: Tensor
    """log p_y."""
    confidence: Tensor
    """log max p."""
    hit: Tensor
    """bool: y is the first of the likeliest."""
    norm: Tensor
    """‖z‖."""
    scaled_log_prob: Tensor
    """log q_y."""
    scaled_confidence: Tensor
    """log max q."""
    linked: Tensor | None
    """log of the posterior of y, clipped and normalised; None where a loss has none."""
    clipped: Tensor | None
    """bool: that posterior was clipped."""
    rank: Tensor | None
    """Of y, 1 for the largest p; of tied entries half stand before it. None, as those below, unless thorough."""
    squares: Tensor | None
    """Σ p²."""
    entropy: Tensor | None
    """Of p, in nats."""


class RowReader:
    """Reads `Rows` out of logits, a few positions at a time.

    Args:
        scale: s.
        thorough: give rank, squares and entropy too.
        num_outputs: V.
    """

    def __init__(self, loss: Scorer, scale: float, *, thorough: bool, num_outputs: int, device: torch.device) -> None:
        self.loss = loss
        self.scale = scale
        self.thorough = thorough
        self.factor = loss.softmax_factor()
        self.size = piece_rows(num_outputs, device)
        self._clip = CLIP / num_outputs
        self._work = torch.empty(2, self.size, num_outputs, dtype=torch.float32, device=device)
        self._parts: list[dict[str, Tensor]] = []
        self._has_link: bool | None = None

    def add(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Read positions, at most `size` at once: logits float32 [n, V], which stay as they are, and target [n].

        Returns:
            float32 [n]: logsumexp of the logits at the temperature of the prediction; None where that is no softmax.
        """
        column = target[:, None]
        largest, own = logits.amax(dim=-1, keepdim=True), logits.gather(-1, column)
        if self._has_link is None:
            self._has_link = self.loss.posterior(logits[:1]) is not None
        part = {"norm": torch.linalg.vector_norm(logits, dim=-1).double()}
        logsumexp = None
        if self.factor is None:
            part |= self._prediction(self.loss.predict_log_probs(logits), target)
        else:
            part |= self._softmax(logits, largest, own, self.factor)
            part |= self._place(logits, largest, own, target)
            logsumexp = (self.factor * largest[:, 0].double() - part["confidence"]).float()
        if self._has_link and not self.loss.is_proper:
            posterior = self.loss.posterior(logits)
            assert posterior is not None
            part |= self._link(posterior, posterior.gather(-1, column), 1.0, self._clip)
        part["scaled_log_prob"], part["scaled_confidence"] = self._scaled(logits, largest, own, part)
        self._parts.append(part)
        return logsumexp

    def rows(self) -> Rows:
        """All positions added so far, in their order."""
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}
        return Rows(**{name: whole.get(name) for name in Rows.__dataclass_fields__})  # type: ignore[arg-type]

    def _softmax(self, logits: Tensor, largest: Tensor, own: Tensor, factor: float) -> dict[str, Tensor]:
        """Of p = softmax(factor · z): with e = exp(factor · (z − max z)) and S = Σ e, p = e / S."""
        e, other = self._work[:, : len(logits)]
        exponent = torch.sub(logits, largest, out=other if self.thorough else e)
        if factor != 1:
            exponent *= factor
        torch.exp(exponent, out=e)
        total = e.sum(dim=-1, keepdim=True)
        log_total = total[:, 0].double().log()
        own_exponent = factor * (own - largest)[:, 0].double()
        found = {"log_prob": own_exponent - log_total, "confidence": -log_total}
        if self.thorough:
            # H = log S − Σ p · exponent: both parts are positive, so that no digits cancel.
            summed = torch.mul(e, exponent, out=other).sum(dim=-1).double()
            found["entropy"] = _entropy(log_total - summed / total[:, 0].double(), e, total)
            found["squares"] = torch.mul(e, e, out=other).sum(dim=-1).double() / total[:, 0].double().square()
        if self._has_link and self.loss.is_proper:  # a proper loss is smallest at the prediction: it is the posterior
            found |= self._link(e, own_exponent.exp()[:, None], total, total * self._clip)
        return found

    def _prediction(self, log_probs: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Of a prediction of any kind; log_probs [n, V]."""
        own = log_probs.gather(-1, target[:, None])
        largest, first = log_probs.max(dim=-1)
        found = {"log_prob": own[:, 0].double(), "confidence": largest.double(), "hit": first == target}
        p, other = self._work[:, : len(log_probs)]
        torch.exp(log_probs, out=p)
        if self.thorough:
            found["rank"] = _rank(log_probs, own)
            summed = torch.mul(p, log_probs, out=other).sum(dim=-1).double()
            found["entropy"] = _entropy(-summed, p, torch.ones_like(own))
            found["squares"] = torch.mul(p, p, out=other).sum(dim=-1).double()
        if self._has_link and self.loss.is_proper:
            found |= self._link(p, p.gather(-1, target[:, None]), 1.0, self._clip)
        return found

    def _place(self, logits: Tensor, largest: Tensor, own: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Whether y is the first of the largest logits, and its rank."""
        found: dict[str, Tensor] = {}
        hit = (own == largest)[:, 0]
        other = self._work[1, : len(logits)]
        if self.thorough:
            above = torch.sub(logits, own, out=other).sign_().sum(dim=-1).double()  # how many more are above than below
            found["rank"] = (logits.shape[-1] + 1 + above) / 2
            if bool((odd := above.isnan()).any()):  # infinite logits
                found["rank"][odd] = _rank(logits[odd], own[odd])
            tied = hit & (found["rank"] != 1)
        else:
            tied = hit & (torch.eq(logits, largest, out=other).sum(dim=-1) > 1)
        if bool(tied.any()):
            hit = hit.clone()
            hit[tied] = logits[tied].argmax(dim=-1) == target[tied]
        return found | {"hit": hit}

    def _link(self, posterior: Tensor, own: Tensor, total: Tensor | float, clip: Tensor | float) -> dict[str, Tensor]:
        """Of the posterior, unnormalised as it is, with `total` instead of 1: clipped from below and normalised."""
        other = self._work[1, : len(posterior)]
        own = own[:, 0].double()
        lowest = clip.double()[:, 0] if isinstance(clip, Tensor) else torch.full_like(own, clip)
        most = total.double()[:, 0] if isinstance(total, Tensor) else torch.full_like(own, total)
        clipped = torch.clamp(posterior, clip, total, out=other)  # type: ignore[arg-type]
        summed = clipped.sum(dim=-1).double()
        return {"linked": own.clamp(lowest, most).log() - summed.log(), "clipped": own < lowest}

    def _scaled(self, logits: Tensor, largest: Tensor, own: Tensor, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """log q_y and log max q."""
        if self.factor is not None and abs(self.factor - self.scale) <= _SAME * self.scale:
            return part["log_prob"], part["confidence"]
        work = self._work[0, : len(logits)]
        log_total = torch.sub(logits, largest, out=work).mul_(self.scale).exp_().sum(dim=-1).double().log()
        return self.scale * (own - largest)[:, 0].double() - log_total, -log_total


def _rank(values: Tensor, own: Tensor) -> Tensor:
    """float64 [n]: 1 + how many exceed the target's, and half of those that equal it."""
    return 1 + (values > own).sum(dim=-1).double() + ((values == own).sum(dim=-1).double() - 1) / 2


def _entropy(entropy: Tensor, p: Tensor, total: Tensor) -> Tensor:
    """The entropy [n]; where an infinite logit made it NaN, from p / total [n, V] itself."""
    odd = entropy.isnan()
    if bool(odd.any()):
        entropy[odd] = torch.special.entr(p[odd] / total[odd]).sum(dim=-1).double()
    return entropy
