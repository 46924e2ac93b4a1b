"""Metrics that cost more than a pass over the logits: for the last and the best weights, and on test.

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

from losslab.contracts import Features
from losslab.metrics.calibration import BINS, add_to_bins, calibration_error, equal_mass
from losslab.metrics.frequency import FREQUENCY_GROUPS
from losslab.metrics.rows import Rows

EPSILON = 1e-6
_MEANS = ("top5", "mrr", "brier", "entropy", "nll_epsilon", "zeros")
UNIT_METRICS = ("nll_scaled", "nll", "top1")
"""Kept for each unit of test, beside its weight."""
_TOP = 5


class Details:
    """Streaming sums beside those of `ClassMetrics`.

    Args:
        groups: int64 [V], the frequency group of each token (`frequency_groups`); None where train is unknown.
        num_units: how many documents (or windows) have scores of their own; 0 for none.
    """

    def __init__(self, *, groups: Tensor | None = None, num_units: int = 0, device: torch.device | str = "cpu") -> None:
        self.groups = groups
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.sums = torch.zeros(len(_MEANS), dtype=torch.float64, device=device)
        self.bins = torch.zeros(2, 3, BINS, dtype=torch.float64, device=device)
        self.frequency = torch.zeros(2, FREQUENCY_GROUPS, dtype=torch.float64, device=device)
        self.units = torch.zeros(4, num_units, dtype=torch.float64, device=device)

    def states(self) -> list[Tensor]:
        """Tensors that ranks add up."""
        return [self.count, self.sums, self.bins, self.frequency, self.units]

    def receive(self, states: list[Tensor], device: torch.device) -> None:
        """Take states in the order of `states`."""
        self.count, self.sums, self.bins, self.frequency, self.units = states
        self.groups = None if self.groups is None else self.groups.to(device)

    def update(self, features: Features, rows: Rows, scored: Tensor, num_outputs: int) -> None:
        """Add positions.

        Args:
            rows: of a thorough reader.
            scored: float64 [N], the weight of positions that count for nll_scaled.
        """
        assert rows.rank is not None and rows.squares is not None and rows.entropy is not None
        target, weight = features.extras.get("class", features.target), features.weight.double()
        p = rows.log_prob.exp()
        values = {
            "top5": rows.rank <= _TOP,
            "mrr": 1 / rows.rank,
            "brier": rows.squares - 2 * p + 1,
            "entropy": rows.entropy,
            "nll_epsilon": -((p + EPSILON) / (1 + EPSILON * num_outputs)).log(),
            "zeros": p == 0,
        }
        self.count += weight.sum()
        self.sums += torch.stack([(weight * values[name]).sum() for name in _MEANS])
        add_to_bins(self.bins[0], rows.confidence, rows.hit, weight)
        add_to_bins(self.bins[1], rows.scaled_confidence, rows.hit, scored)
        nll_scaled = -rows.scaled_log_prob
        if self.groups is not None:
            self.frequency.index_add_(1, self.groups[target], torch.stack([scored, scored * nll_scaled]))
        if self.units.shape[1]:
            sums = [weight, weight * nll_scaled, -weight * rows.log_prob, weight * rows.hit]
            self.units.index_add_(1, features.extras["unit"].long(), torch.stack(sums))

    def values(self) -> dict[str, float]:
        """Each metric by name; NaN where nothing counted."""
        count = float(self.count)
        values = dict(zip(_MEANS, (self.sums / count).tolist(), strict=True))
        values |= {
            name: calibration_error(equal_mass(bins))
            for name, bins in zip(("ece", "ece_scaled"), self.bins, strict=True)
        }
        if self.groups is not None:
            for k, (weight, nll) in enumerate(self.frequency.T.tolist()):
                values[f"nll_scaled_frequency_{k + 1}"] = nll / weight if weight else math.nan
        return values

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays that the comparison reads beside the record: see `losslab.run_folder.RunFolder.scores`."""
        return {
            "units": self.units.cpu().numpy().astype(np.float32),
            "unit_metrics": np.array(UNIT_METRICS),
            "reliability": torch.stack([equal_mass(bins) for bins in self.bins]).cpu().numpy(),
        }
