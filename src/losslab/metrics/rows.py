"""Statistics of each position that the metrics need, in a few passes over logits in the processor's caches."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from losslab.metrics.scorer import Scorer
from losslab.products import has_quick_exponential

CLIP = 1e-6
"""Times 1 / V: the smallest probability of a posterior."""
_AT_ONCE = {"cpu": 7 * 2**16, "cuda": 3 * 2**26}
"""Logits and intermediate results at once: on a CPU what each core's own cache holds; a GPU needs many."""

_LOG2_E = 1 / math.log(2)
_SAME = 1e-7
"""Two scales that differ by less are one: float32 rounding."""


def piece_rows(num_outputs: int, device: torch.device, arrays: int = 3) -> int:
    """The number of positions whose logits are read at once, the same for each thread.

    Args:
        arrays: how many of the size of the logits are in use, the logits among them.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return threads * max(1, _AT_ONCE.get(device.type, _AT_ONCE["cuda"]) // (arrays * num_outputs))


@dataclass(frozen=True)
class Rows:
    """Statistics of each position, float64 [N]; p is the prediction, q = softmax(s · z)."""

    log_prob: Tensor
    """log p_y."""
    confidence: Tensor
    """log max p."""
    hit: Tensor
    """bool: y is the first of the likeliest."""
    norm: Tensor
    """‖z‖."""
    scaled_log_prob: Tensor
    """log q_y; a number without a meaning where it was not asked for."""
    scaled_confidence: Tensor
    """log max q; likewise."""
    linked: Tensor | None
    """log of the posterior of y, clipped and normalised; None where a loss has none."""
    clipped: Tensor | None
    """bool: that posterior was clipped."""
    rank: Tensor | None
    """Rank of y, 1 for the largest p; half of tied entries stand before it. None, as those below, unless thorough."""
    squares: Tensor | None
    """Σ p²."""
    entropy: Tensor | None
    """Entropy of p, in nats."""


class RowReader:
    """Reads `Rows` out of logits: sums over a position's logits a few positions at a time, the rest of all at once.

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
        self._clip = CLIP / num_outputs
        self._same = self.factor is not None and abs(self.factor - scale) <= _SAME * scale
        self._link = _which_link(loss, self.factor, num_outputs, device)
        arrays = 2 if self.factor is not None and self._link in (None, "proper") else 3
        self.size = piece_rows(num_outputs, device, 1 + arrays)
        self._work = torch.empty(arrays, self.size, num_outputs, dtype=torch.float32, device=device)
        self._parts: list[dict[str, Tensor]] = []

    def add(self, logits: Tensor, target: Tensor, scaled: Tensor) -> Tensor | None:
        """Read positions.

        Args:
            logits: float32 [n, V], which stay as they are.
            target: [n].
            scaled: bool [n]: whether log q_y and log max q are asked for; of the others they may be left out.

        Returns:
            float32 [n]: logsumexp of the logits at the temperature of the prediction; None where that is no softmax.
        """
        own = logits.gather(-1, target[:, None])
        parts = (torch.split(part, self.size) for part in (logits, target[:, None], own))
        wanted = torch.stack([part.any() for part in torch.split(scaled, self.size)]).tolist()
        pieces = [self._sums(*part, scaled=asked) for *part, asked in zip(*parts, wanted, strict=True)]
        sums = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
        sums["own"] = own[:, 0].double()
        part = {name: value for name, value in sums.items() if name in _NAMES} | self._scaled(sums)
        if self.factor is None:
            part["hit"] = sums["hit"] == 1
        else:
            part |= self._softmax(sums, logits, self.factor) | _place(sums, logits, target)
        if self._same:
            part |= {"scaled_log_prob": part["log_prob"], "scaled_confidence": part["confidence"]}
        part |= self._linked(sums)
        self._parts.append(part)
        return None if self.factor is None else (self.factor * sums["largest"] - part["confidence"]).float()

    def rows(self) -> Rows:
        """All positions added so far, in their order."""
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}
        return Rows(**{name: whole.get(name) for name in _NAMES})  # type: ignore[arg-type]

    def _sums(self, logits: Tensor, target: Tensor, own: Tensor, *, scaled: bool) -> dict[str, Tensor]:
        """Sums over the logits of at most `size` positions, float32 [n]; target and own logit [n, 1].

        With x = z − max z: Σ exp(s · x), and with e = exp(factor · x) the sums Σ e, Σ e · x and Σ e².
        """
        x, e, *_ = self._work[:, : len(logits)]
        largest = logits.amax(dim=-1, keepdim=True)
        found = {"largest": largest[:, 0], "norm": torch.linalg.vector_norm(logits, dim=-1)}
        torch.sub(logits, largest, out=x)
        if scaled and not self._same:
            found["scaled_total"] = exponential(x, self.scale, out=e).sum(dim=-1)
        elif not self._same:
            found["scaled_total"] = x.new_ones(len(x))
        if self.factor is None:
            return found | self._prediction(logits, target)
        total = exponential(x, self.factor, out=e if self.thorough or self._link == "softmax" else x).sum(dim=-1)
        found["total"] = total
        if self.thorough:
            other = self._work[2, : len(logits)] if self._link == "softmax" else x  # x is needed no more
            found["summed"] = torch.mul(e, x, out=other).sum(dim=-1)
            found["squared"] = torch.mul(e, e, out=other).sum(dim=-1)
            found["above"] = torch.sub(logits, own, out=other).sign_().sum(dim=-1)
        if self._link == "softmax":
            log_p = (x if self.factor == 1 else x.mul_(self.factor)).sub_(total.log()[:, None])
            p = e.mul_(1 / total[:, None])
            found |= self._posterior(self.loss.posterior_of_softmax(p, log_p), target)
        elif self._link == "own":
            found |= self._posterior(self.loss.posterior(logits), target)
        return found

    def _prediction(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Sums of a prediction that is no softmax."""
        log_p = self.loss.predict_log_probs(logits)
        own = log_p.gather(-1, target)
        largest, first = log_p.max(dim=-1)
        found = {"log_prob": own[:, 0], "confidence": largest, "hit": (first == target[:, 0]).float()}
        _, p, other = self._work[:, : len(log_p)]
        torch.exp(log_p, out=p)
        if self.thorough:
            found["rank"] = _rank(log_p, own)
            found["entropy"] = -torch.mul(p, log_p, out=other).sum(dim=-1)
            odd = found["entropy"].isnan()
            if bool(odd.any()):
                found["entropy"][odd] = torch.special.entr(p[odd]).sum(dim=-1)
            found["squares"] = torch.mul(p, p, out=other).sum(dim=-1)
        if self._link is not None:
            found |= self._posterior(p if self.loss.is_proper else self.loss.posterior(logits), target)
        return found

    def _posterior(self, posterior: Tensor | None, target: Tensor) -> dict[str, Tensor]:
        """The target's part of a posterior [n, V], and the sum of all parts once they are clipped."""
        assert posterior is not None
        own = posterior.gather(-1, target)[:, 0]
        out = posterior if self._link == "softmax" else self._work[2, : len(own)]
        clipped = torch.clamp(posterior, self._clip, 1.0, out=out)
        return {"posterior": own, "linked_total": clipped.sum(dim=-1)}

    def _scaled(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        if self._same:
            return {}
        log_total = sums["scaled_total"].log()
        own = self.scale * (sums["own"] - sums["largest"])
        return {"scaled_log_prob": own - log_total, "scaled_confidence": -log_total}

    def _softmax(self, sums: dict[str, Tensor], logits: Tensor, factor: float) -> dict[str, Tensor]:
        total, own = sums["total"], factor * (sums["own"] - sums["largest"])
        log_total = total.log()
        found = {"log_prob": own - log_total, "confidence": -log_total}
        if self.thorough:
            # H = log Σ e − Σ p · factor · x: both parts are positive, so that no digits cancel.
            entropy = log_total - factor * sums["summed"] / total
            odd = entropy.isnan()
            if bool(odd.any()):  # infinite logits
                entropy[odd] = torch.special.entr((factor * logits[odd]).softmax(dim=-1)).sum(dim=-1).double()
            found |= {"entropy": entropy, "squares": sums["squared"] / total.square()}
        if self._link == "proper":
            # A proper loss is smallest at the prediction, which is its posterior. Clipped, it sums to at most 1 + CLIP,
            # whose logarithm is not worth the passes that would find it.
            sums |= {"posterior": own.exp() / total, "linked_total": torch.ones_like(total)}
        return found

    def _linked(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The posterior of the target, clipped and normalised."""
        if self._link is None:
            return {}
        own = sums["posterior"]
        return {"linked": own.clamp(self._clip, 1.0).log() - sums["linked_total"].log(), "clipped": own < self._clip}


_NAMES = tuple(field.name for field in fields(Rows))


def exponential(x: Tensor, factor: float, *, out: Tensor) -> Tensor:
    """exp(factor · x) into `out`, which may be x. On processors for which MKL has no quick exponential it is a power
    of 2, vectorised everywhere."""
    if x.device.type != "cpu" or has_quick_exponential():
        return torch.exp(x, out=out) if factor == 1 else torch.mul(x, factor, out=out).exp_()
    return torch.mul(x, factor * _LOG2_E, out=out).exp2_()


def _which_link(
    loss: Scorer, factor: float | None, num_outputs: int, device: torch.device
) -> Literal["proper", "softmax", "own"] | None:
    """The way to a loss's posterior; None where it has none."""
    logits = torch.zeros(1, num_outputs, device=device)
    if loss.posterior(logits) is None:
        return None
    if loss.is_proper and factor is not None:
        return "proper"
    return "softmax" if factor is not None and loss.posterior_reads_softmax() else "own"


def _place(sums: dict[str, Tensor], logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Whether y is the first of the largest logits, and its rank where asked for."""
    found: dict[str, Tensor] = {}
    hit = sums["own"] == sums["largest"]
    if "above" in sums:
        found["rank"] = (logits.shape[-1] + 1 + sums["above"]) / 2  # above: how many more are above than below
        if bool((odd := sums["above"].isnan()).any()):  # infinite logits
            found["rank"][odd] = _rank(logits[odd], logits[odd].gather(-1, target[odd, None])).double()
        tied = hit & (found["rank"] != 1)
    else:
        tied = hit.clone()
        tied[hit] = logits[hit].eq_(sums["largest"][hit, None].float()).sum(dim=-1) > 1
    if bool(tied.any()):
        hit[tied] = logits[tied].argmax(dim=-1) == target[tied]
    return found | {"hit": hit}


def _rank(values: Tensor, own: Tensor) -> Tensor:
    """[n]: 1 + how many exceed the target's, and half of those that equal it."""
    return 1 + (values > own).sum(dim=-1) + ((values == own).sum(dim=-1) - 1) / 2
