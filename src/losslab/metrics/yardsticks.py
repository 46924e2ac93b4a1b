"""The same measures for every loss, as sums and counts over a whole set.

nll            −log p_y of what the model predicts with, nats per token
nll_scaled     the same for softmax(s · z), one s fitted on the fitting half of val; val is scored on the other half
nll_linked     the same through the loss's own link to probabilities, `Loss.posterior`; clipped at 1e-6 / V
perplexity     exp(nll)
bits_per_byte  Σ nll / (ln 2 · UTF-8 bytes of the predicted text)
top1           share of targets with the largest probability
objective      what the loss itself reports; never compared across losses
logit_norm     mean Euclidean norm of a position's logits

At the last and the best weights, and on test, also those of `metrics/details.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.metrics.details import Details
from losslab.metrics.scorer import Scorer
from losslab.types import Features, LossSum, Projection

_LOGITS_AT_ONCE = 2**21
_CLIP = 1e-6
_LARGEST_EXPONENT = 700.0
_SUMS = [
    "count",
    "nll",
    "scaled_count",
    "scaled_nll",
    "linked_count",
    "linked_nll",
    "linked_clipped",
    "top1",
    "logit_norm",
    "bytes",
    "objective",
    "objective_weight",
]


def chunk_rows(num_outputs: int) -> int:
    """How many positions to score at once, so that their logits stay near the processor's caches."""
    return max(128, min(4096, _LOGITS_AT_ONCE // num_outputs))


class Yardsticks:
    """Streaming sums; `update` once a batch, `values` at the end.

    Args:
        scale: s of nll_scaled.
        held_out: score nll_scaled only outside the fitting half (val), or everywhere (test).
        details: the dearer ones, where they are wanted.
    """

    def __init__(
        self, scale: float, *, held_out: bool, device: torch.device | str = "cpu", details: Details | None = None
    ) -> None:
        self.scale = scale
        self.held_out = held_out
        self.details = details
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)

    def states(self) -> list[Tensor]:
        """What ranks add up."""
        return [self.sums, *(self.details.states() if self.details else ())]

    @torch.no_grad()
    def update(self, features: Features | None, loss: Scorer, projection: Projection) -> LossSum:
        """Add a batch's positions, in chunks. Returns the objective's sums."""
        assert features is not None
        features = features.kept()
        objective = torch.zeros(2, dtype=torch.float64, device=self.sums.device)
        for chunk in features.chunks(chunk_rows(projection.weight.shape[0])):
            result = loss(chunk, projection)
            objective += torch.stack([result.total.double(), result.weight.double()])
            with torch.autocast(device_type=chunk.hidden.device.type, enabled=False):
                self._update_chunk(chunk, loss, loss.scores(chunk.hidden, projection))
        self.sums[-2:] += objective
        return LossSum(total=objective[0], weight=objective[1])

    def _update_chunk(self, chunk: Features, loss: Scorer, logits: Tensor) -> None:
        weight = chunk.weight.double()
        scored = weight * (1 - chunk.extras["fit"].double()) if self.held_out else weight
        log_probs = loss.predict_log_probs(logits)
        scaled = logits * self.scale
        normaliser = scaled.logsumexp(dim=-1, keepdim=True)
        new = {
            "count": weight,
            "nll": -weight * _at(log_probs, chunk.target),
            "top1": weight * (log_probs.argmax(dim=-1) == chunk.target),
            "logit_norm": weight * logits.norm(dim=-1).double(),
            "bytes": chunk.extras["bytes"].double(),
            "scaled_count": scored,
            "scaled_nll": scored * (normaliser[:, 0].double() - _at(scaled, chunk.target)),
        }
        posterior = loss.posterior(logits)
        if posterior is not None:
            clip = _CLIP / logits.shape[-1]
            clipped = posterior.clamp(clip, 1.0)
            log_eta = _at(clipped, chunk.target).log() - clipped.sum(dim=-1).double().log()
            new |= {
                "linked_count": weight,
                "linked_nll": -weight * log_eta,
                "linked_clipped": weight * (_at(posterior, chunk.target) < clip),
            }
        for name, value in new.items():
            self.sums[_SUMS.index(name)] += value.sum()
        if self.details is not None:
            self.details.update(chunk, log_probs, scaled - normaliser, scored)

    def values(self) -> dict[str, float]:
        """Each yardstick by name, from the sums (of all ranks, once they are added up)."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        count = sums["count"]
        nll = sums["nll"] / count
        values = {
            "nll": nll,
            "nll_scaled": _ratio(sums["scaled_nll"], sums["scaled_count"]),
            "perplexity": math.exp(nll) if nll < _LARGEST_EXPONENT else math.inf,
            "bits_per_byte": _ratio(sums["nll"] / math.log(2), sums["bytes"]),
            "top1": sums["top1"] / count,
            "objective": _ratio(sums["objective"], sums["objective_weight"]),
            "logit_norm": sums["logit_norm"] / count,
            "scale": self.scale,
        }
        if sums["linked_count"]:
            values["nll_linked"] = sums["linked_nll"] / count
            values["nll_linked_clipped"] = sums["linked_clipped"] / count
        return values | (self.details.values() if self.details else {})


def _at(values: Tensor, target: Tensor) -> Tensor:
    """[N] float64: the entry of each row's target."""
    return values.gather(-1, target[:, None])[:, 0].double()


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
