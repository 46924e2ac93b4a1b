"""The same measures for every loss, as sums and counts over a whole set.

nll            −log p_y of what the model predicts with, nats per token
nll_scaled     the same for softmax(s · z), one s fitted on the fitting half of val; val is scored on the other half
nll_linked     the same through the loss's own link to probabilities, `Loss.posterior`; clipped at 1e-6 / V
perplexity     exp(nll)
bits_per_byte  Σ nll / (ln 2 · UTF-8 bytes of the predicted text); word_perplexity: text_units.py
top1           share of targets with the largest probability
objective      what the loss itself reports; never compared across losses
logit_norm     mean Euclidean norm of a position's logits

At the last and the best weights, and on test, also those of `metrics/extended.py`; where a task asks for it, those of
`metrics/confusion.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection
from losslab.metrics.confusion import Confusion
from losslab.metrics.extended import Details
from losslab.metrics.objective import SUMS, sums_in_chunks, sums_of, value_of
from losslab.metrics.rows import RowReader, Rows
from losslab.metrics.scorer import Scorer

_LOGITS_AT_ONCE, _MOST_LOGITS = 2**21, 2**24
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
    "penalty",
    "penalty_weight",
]


def scoring_rows(num_outputs: int) -> int:
    """The number of positions to score at once: few, so that their logits stay near the processor's caches, yet so many
    that the matrix product runs at full speed."""
    fewest = 256 if 256 * num_outputs <= _MOST_LOGITS else 128
    return max(fewest, min(4096, _LOGITS_AT_ONCE // num_outputs))


class ClassMetrics:
    """Streaming sums; `update` once a batch, `values` at the end.

    Args:
        scale: s of nll_scaled.
        held_out: score nll_scaled only outside the fitting half (val), or everywhere (test).
        details: the extended metrics, where they are wanted.
        confusion: metrics of each class, where they are wanted.
    """

    def __init__(
        self,
        scale: float,
        *,
        held_out: bool,
        device: torch.device | str = "cpu",
        details: Details | None = None,
        confusion: Confusion | None = None,
    ) -> None:
        self.scale = scale
        self.held_out = held_out
        self.details = details
        self.confusion = confusion
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)

    def states(self) -> list[Tensor]:
        """Tensors that ranks add up."""
        parts = [part.states() for part in (self.confusion, self.details) if part is not None]
        return [self.sums, *(state for part in parts for state in part)]

    def receive(self, states: list[Tensor]) -> None:
        """Take states in the order of `states`, from all ranks together or for another device."""
        self.sums, *others = states
        if self.confusion is not None:
            self.confusion.receive(others[:2])
            others = others[2:]
        if self.details is not None:
            self.details.receive(others, self.sums.device)

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        """Add a batch's positions, in chunks. Returns the objective's sums."""
        features = features.kept()
        num_outputs, device = loss.num_classes(len(projection.weight)), features.hidden.device
        rows = scoring_rows(num_outputs)
        reader = RowReader(loss, self.scale, thorough=self.details is not None, num_outputs=num_outputs, device=device)
        scored = self._scored(features)
        chunks = zip(features.chunks(rows), torch.split(scored, rows), strict=True) if len(features) else ()
        objective: Tensor | None = torch.zeros(SUMS, dtype=torch.float64, device=self.sums.device)
        with torch.autocast(device_type=device.type, enabled=False):
            for chunk, share in chunks:
                logits = loss.scores(chunk.hidden, projection)
                logsumexp = reader.add(logits, classes_of(chunk), share != 0)
                if self.confusion is not None:
                    scores = logits if reader.factor is not None else loss.predict_log_probs(logits)
                    self.confusion.update(classes_of(chunk), scores.argmax(dim=-1), chunk.weight)
                if objective is not None:
                    part = loss.from_scores(chunk, projection, logits, logsumexp)
                    objective = None if part is None else objective + sums_of(part)
        if objective is None:  # the loss needs more than scores
            objective = sums_in_chunks(loss, features, projection, rows)
        if len(features):
            self._add(features, reader.rows(), scored, num_outputs)
        self.sums[-SUMS:] += objective
        return LossSum(total=objective[0], weight=objective[1])

    def _scored(self, features: Features) -> Tensor:
        """float64 [N]: the weight of each position for nll_scaled."""
        weight, fit = features.weight.double(), features.extras.get("fit")
        return weight if fit is None or not self.held_out else weight * (1 - fit.double())

    def _add(self, features: Features, rows: Rows, scored: Tensor, num_outputs: int) -> None:
        weight = features.weight.double()
        sizes = features.extras.get("bytes")
        new = {
            "count": weight,
            "nll": -weight * rows.log_prob,
            "top1": weight * rows.hit,
            "logit_norm": weight * rows.norm,
            "bytes": torch.zeros_like(weight) if sizes is None else sizes.double(),
            "scaled_count": scored,
            "scaled_nll": -scored * rows.scaled_log_prob,
        }
        if rows.linked is not None and rows.clipped is not None:
            new |= {
                "linked_count": weight,
                "linked_nll": -weight * rows.linked,
                "linked_clipped": weight * rows.clipped,
            }
        for name, value in new.items():
            self.sums[_SUMS.index(name)] += value.sum()
        if self.details is not None:
            self.details.update(features, rows, scored, num_outputs)

    def values(self) -> dict[str, float]:
        """Each metric by name, from the sums (of all ranks, once they are added up)."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        count = sums["count"]
        nll = sums["nll"] / count
        values = {
            "nll": nll,
            "nll_scaled": _ratio(sums["scaled_nll"], sums["scaled_count"]),
            "perplexity": math.exp(nll) if nll < _LARGEST_EXPONENT else math.inf,
            "bits_per_byte": _ratio(sums["nll"] / math.log(2), sums["bytes"]),
            "top1": sums["top1"] / count,
            "objective": value_of(*(sums[name] for name in _SUMS[-SUMS:])),
            "logit_norm": sums["logit_norm"] / count,
            "scale": self.scale,
        }
        if sums["linked_count"]:
            values["nll_linked"] = sums["linked_nll"] / count
            values["nll_linked_clipped"] = sums["linked_clipped"] / count
        if self.confusion is not None:
            values |= self.confusion.values()
        return values | (self.details.values() if self.details else {})


def classes_of(features: Features) -> Tensor:
    """int64 [N]: the target's class, also where a loss expects its targets in another form."""
    return features.extras.get("class", features.target)


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
