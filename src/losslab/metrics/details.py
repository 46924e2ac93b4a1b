"""Yardsticks that cost more than a pass over the logits: for the last and the best weights, and on test.

top5                      share of targets among the five largest probabilities
mrr                       mean of 1 / rank of the target; of tied entries half stand before it
brier                     Σ_j (p_j − [j = y])², between 0 and 2
entropy                   of the prediction, nats
ece, ece_scaled           15 equal-mass groups of confidence: mean |accuracy − confidence|; the latter of softmax(s · z)
nll_epsilon               −log of (p_y + ε) / (1 + ε V), ε = 1e-6: finite where a loss predicts exact zeros
                          (Martins, Marinho & Martins 2020, arXiv 2004.02644)
zeros                     share of targets whose probability is exactly 0
nll_scaled_frequency_k    nll_scaled of the tokens that make up the k-th fifth of train's text, the most frequent first
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.metrics.calibration import BINS, add_to_bins, calibration_error, equal_mass
from losslab.metrics.frequency import FREQUENCY_GROUPS
from losslab.types import Features

EPSILON = 1e-6
MEANS = ("top5", "mrr", "brier", "entropy", "nll_epsilon", "zeros")
DETAILS = (*MEANS, "ece", "ece_scaled", *(f"nll_scaled_frequency_{k + 1}" for k in range(FREQUENCY_GROUPS)))
_TOP = 5


class Details:
    """Streaming sums beside those of `Yardsticks`.

    Args:
        groups: int64 [V], the frequency group of each token (`frequency_groups`); None where train is unknown.
        num_units: how many documents (or windows) have scores of their own; 0 for none.
    """

    def __init__(self, *, groups: Tensor | None = None, num_units: int = 0, device: torch.device | str = "cpu") -> None:
        self.groups = groups
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.sums = torch.zeros(len(MEANS), dtype=torch.float64, device=device)
        self.bins = torch.zeros(2, 3, BINS, dtype=torch.float64, device=device)
        self.frequency = torch.zeros(2, FREQUENCY_GROUPS, dtype=torch.float64, device=device)
        self.units = torch.zeros(4, num_units, dtype=torch.float64, device=device)

    def states(self) -> list[Tensor]:
        """What ranks add up."""
        return [self.count, self.sums, self.bins, self.frequency, self.units]

    def update(self, chunk: Features, log_probs: Tensor, scaled: Tensor, scored: Tensor) -> None:
        """Add positions.

        Args:
            log_probs: [N, V], of what the model predicts with.
            scaled: [N, V], log softmax(s · z).
            scored: float64 [N], the weight of positions that count for nll_scaled.
        """
        target, weight = chunk.target, chunk.weight.double()
        own = log_probs.gather(-1, target[:, None])
        p, p_own = log_probs.exp(), own[:, 0].double().exp()
        rank = 1 + (log_probs > own).sum(dim=-1) + ((log_probs == own).sum(dim=-1) - 1) / 2
        confidence, first = log_probs.max(dim=-1)
        values = {
            "top5": rank <= _TOP,
            "mrr": 1 / rank,
            "brier": p.double().square().sum(dim=-1) - 2 * p_own + 1,
            "entropy": torch.special.entr(p).sum(dim=-1),
            "nll_epsilon": -((p_own + EPSILON) / (1 + EPSILON * p.shape[-1])).log(),
            "zeros": p_own == 0,
        }
        self.count += weight.sum()
        self.sums += torch.stack([(weight * values[name]).sum() for name in MEANS])
        add_to_bins(self.bins[0], confidence, first == target, weight)
        scaled_confidence, scaled_first = scaled.max(dim=-1)
        add_to_bins(self.bins[1], scaled_confidence, scaled_first == target, scored)
        nll_scaled = -scaled.gather(-1, target[:, None])[:, 0].double()
        if self.groups is not None:
            self.frequency.index_add_(1, self.groups[target], torch.stack([scored, scored * nll_scaled]))
        if self.units.shape[1]:
            rows = [weight, weight * nll_scaled, -weight * own[:, 0].double(), weight * (first == target)]
            self.units.index_add_(1, chunk.extras["unit"].long(), torch.stack(rows))

    def values(self) -> dict[str, float]:
        """Each yardstick by name; NaN where nothing counted."""
        count = float(self.count)
        values = dict(zip(MEANS, (self.sums / count).tolist(), strict=True))
        values |= {
            name: calibration_error(equal_mass(bins))
            for name, bins in zip(("ece", "ece_scaled"), self.bins, strict=True)
        }
        if self.groups is not None:
            for k, (weight, nll) in enumerate(self.frequency.T.tolist()):
                values[f"nll_scaled_frequency_{k + 1}"] = nll / weight if weight else math.nan
        return values

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the comparison reads beside the record: see `losslab.records.SCORES`."""
        return {
            "units": self.units.cpu().numpy().astype(np.float32),
            "reliability": torch.stack([equal_mass(bins) for bins in self.bins]).cpu().numpy(),
        }
