"""The meter of tasks whose targets are labels that do not exclude one another: each is a yes-or-no decision.

nll                   −log of the probability of what is true, mean over labels and rows, nats per label
nll_scaled            the same for σ(s · z + b), s and b fitted on the fitting half of val; val is scored on the other
nll_linked            the same through the loss's own link to probabilities, `Loss.posterior`, clipped to 1e-6
micro_f1, macro_f1    labels hold whose probability is above 0.5: F1 of all decisions together, mean of the labels' F1
…_fitted              the same above the one threshold that gives the best micro-F1 on the fitting half
subset_accuracy       share of rows of which every label is right
hamming_loss          share of decisions that are wrong
brier                 mean of (p − y)²
ece, ece_scaled       15 equal-mass groups of all decisions: mean |share that holds − mean probability|
average_precision, auroc   `ranking.py`, mean over the labels for which they are defined
objective             what the loss itself reports; never compared across losses

F1 is scikit-learn's `f1_score(average=…, zero_division=0)` over all labels of train: one that neither holds nor is
predicted counts 0. From brier to auroc only where thorough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import DataInfo, Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metrics.calibration import BINS, add_to_bins, calibration_error, equal_mass
from losslab.metrics.class_metrics import scoring_rows
from losslab.metrics.confusion import class_table
from losslab.metrics.objective import SUMS, sums_in_chunks, sums_of, value_of
from losslab.metrics.ranking import average_precision_and_auroc
from losslab.metrics.rows import CLIP
from losslab.metrics.scorer import Scorer

MOST_RANKED = 2**25
"""Decisions of a split, rows times labels, up to which all scores are kept (5 bytes each) and ranked; of more there is
no average_precision and no auroc."""
UNIT_METRICS = ("nll_scaled", "nll", "subset_accuracy")
_MEANS = ("nll", "brier", "hamming_loss", "subset_accuracy")
_LINKED = ("nll_linked", "nll_linked_clipped")


class LabelMeter(Meter):
    """Streaming sums of a split.

    Args:
        split: of val the fitted numbers are scored on the half that did not fit them; of test each unit is kept apart.
        calibration: `scale`, `shift` and `threshold` of `LabelCalibration`.
    """

    def __init__(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> None:
        assert info.num_classes is not None, "its column of labels has classes"
        self.size = info.num_classes
        self.calibration = dict(calibration)
        self.held_out = split == "val"
        self.thorough = thorough
        self.class_names = info.class_names
        self.counts = torch.zeros(2, dtype=torch.float64)
        """Weight of all rows, and of those that score what was fitted."""
        self.sums = torch.zeros(len(_MEANS), dtype=torch.float64)
        self.linked = torch.zeros(1 + len(_LINKED), dtype=torch.float64)
        self.scaled = torch.zeros(1, dtype=torch.float64)
        self.objective = torch.zeros(SUMS, dtype=torch.float64)
        self.by_label = torch.zeros(2, 3, self.size, dtype=torch.float64)
        """At 0.5 and at the fitted threshold: weight of each label among hits, targets and predictions."""
        self.bins = torch.zeros(2, 3, BINS if thorough else 0, dtype=torch.float64)
        positions = info.splits[split].units if split == "test" and thorough else 0
        self.units = torch.zeros(1 + len(UNIT_METRICS), positions, dtype=torch.float64)
        self.ranks = thorough and info.splits[split].positions * self.size <= MOST_RANKED
        self.kept = [(torch.zeros(0, self.size), torch.zeros(0, self.size).bool(), torch.zeros(0, 2).double())]
        """Scores of each batch [N, C], labels [N, C], and the sample and the weight of each row."""

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        names = ("counts", "sums", "linked", "scaled", "objective", "by_label", "bins", "units")
        found: dict[str, tuple[Tensor, Combined]] = {name: (getattr(self, name), "sum") for name in names}
        if self.ranks:
            scores, labels, rows = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
            found |= {"scores": (scores, "cat"), "labels": (labels, "cat"), "rows": (rows, "cat")}
        return found

    def combine(self, states: dict[str, Tensor]) -> None:
        if self.ranks:
            self.kept = [(states["scores"], states["labels"], states["rows"])]
        super().combine({name: value for name, value in states.items() if name not in ("scores", "labels", "rows")})

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        features = features.kept()
        objective: Tensor | None = torch.zeros_like(self.objective)
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            for chunk in features.chunks(scoring_rows(self.size)):
                z = loss.scores(chunk.hidden, projection)
                self._add(chunk, z, loss)
                if objective is not None:
                    part = loss.from_scores(chunk, projection, z, None)
                    objective = None if part is None else objective + sums_of(part)
        if objective is None:  # the loss needs more than scores
            objective = sums_in_chunks(loss, features, projection, scoring_rows(self.size))
        self.objective = self.objective + objective
        return LossSum(total=objective[0], weight=objective[1])

    def _add(self, rows: Features, z: Tensor, loss: Scorer) -> None:
        y, weight = rows.target.double(), rows.weight.double()
        fit = rows.extras.get("fit")
        scored = weight if fit is None or not self.held_out else weight * (1 - fit.double())
        log_p = loss.predict_log_probs(z.double()).double()
        p = log_p.exp()
        holds, said = y > 0.5, p > 0.5
        x = self.calibration["scale"] * z.double() + self.calibration["shift"]
        nll, scaled = _nll(log_p, y).mean(dim=-1), (F.softplus(x) - y * x).mean(dim=-1)
        right = (holds == said).double()
        means = {"nll": nll, "brier": (p - y).square().mean(dim=-1), "hamming_loss": 1 - right.mean(dim=-1)}
        means["subset_accuracy"] = right.amin(dim=-1)
        self.counts += torch.stack([weight.sum(), scored.sum()])
        self.sums += torch.stack([(weight * means[name]).sum() for name in _MEANS])
        self.scaled += (scored * scaled).sum()
        for place, (decided, share) in enumerate(((said, weight), (p > self.calibration["threshold"], scored))):
            table = torch.stack([decided & holds, holds, decided]).double()
            self.by_label[place] += torch.einsum("knc,n->kc", table, share)
        posterior = loss.posterior(z.double())
        if posterior is not None:
            self._add_linked(posterior.double(), y, weight)
        if self.thorough:
            for place, (log_q, share) in enumerate(((log_p, weight), (F.logsigmoid(x), scored))):
                add_to_bins(self.bins[place], log_q.flatten(), y.flatten(), share[:, None].expand_as(y).flatten())
        if self.units.shape[1]:
            sums = torch.stack([weight, weight * scaled, weight * nll, weight * means["subset_accuracy"]])
            self.units.index_add_(1, rows.extras["unit"].long(), sums)
        if self.ranks:
            number = rows.extras["id"].double() if "id" in rows.extras else torch.zeros_like(weight)
            self.kept.append((z.float(), holds, torch.stack([number, weight], dim=1)))

    def _add_linked(self, posterior: Tensor, y: Tensor, weight: Tensor) -> None:
        own = torch.where(y > 0.5, posterior, 1 - posterior)
        nll = _nll(posterior.clamp(CLIP, 1 - CLIP).log(), y).mean(dim=-1)
        clipped = (own < CLIP).double().mean(dim=-1)
        self.linked += torch.stack([weight.sum(), (weight * nll).sum(), (weight * clipped).sum()])

    def values(self) -> dict[str, float]:
        """Each metric by name; NaN where nothing counted, or where no label has both kinds of rows."""
        count, scored = self.counts.tolist()
        values = dict(zip(_MEANS, (self.sums / count).tolist(), strict=True)) | self.calibration
        values["nll_scaled"] = float(self.scaled) / scored if scored else math.nan
        values["objective"] = value_of(*self.objective.tolist())
        if linked := float(self.linked[0]):
            values |= dict(zip(_LINKED, (self.linked[1:] / linked).tolist(), strict=True))
        for sums, weight, ending in zip(self.by_label, (count, scored), ("", "_fitted"), strict=True):
            hits, support, predicted = sums.sum(dim=1).tolist()
            micro = 2 * hits / (support + predicted) if support + predicted else 0.0
            values[f"micro_f1{ending}"] = micro if weight else math.nan
            values[f"macro_f1{ending}"] = float(class_table(sums)[2].mean()) if weight else math.nan
        if not self.thorough:
            del values["brier"]
            return values
        for bins, name in zip(self.bins, ("ece", "ece_scaled"), strict=True):
            values[name] = calibration_error(equal_mass(bins))
        if self.ranks:
            precision, area = self._ranking().nanmean(dim=1).tolist()
            values |= {"average_precision": precision, "auroc": area}
        return values

    def _ranking(self) -> Tensor:
        """float64 [2, C]: average precision and area of each label. Rows are sorted by sample first: the order of ranks
        changes no sum."""
        scores, labels, rows = (torch.cat(parts).cpu() for parts in zip(*self.kept, strict=True))
        order = rows[:, 0].argsort(stable=True)
        scores, labels, weight = scores[order], labels[order], rows[order, 1]
        found = [average_precision_and_auroc(scores[:, j], labels[:, j], weight) for j in range(self.size)]
        return torch.tensor(found, dtype=torch.float64).T

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`units` and `reliability`; `class_metrics` [4, C]: precision, recall and F1 at 0.5, and support, of each
        label; `ranking` [2, C]: average precision and area under the ROC curve; `class_names`."""
        found: dict[str, NDArray[Any]] = {
            "units": self.units.cpu().numpy().astype(np.float32),
            "unit_metrics": np.array(UNIT_METRICS),
            "reliability": torch.stack([equal_mass(bins) for bins in self.bins]).cpu().numpy(),
            "class_metrics": class_table(self.by_label[0]).cpu().numpy(),
        }
        if self.ranks:
            found["ranking"] = self._ranking().numpy()
        if self.class_names is not None:
            found["class_names"] = np.array(self.class_names, dtype=np.str_)
        return found


def _nll(log_p: Tensor, y: Tensor) -> Tensor:
    """−y log p − (1 − y) log(1 − p), where nothing that does not count is infinite."""
    zero = torch.zeros_like(log_p)
    rest = (-torch.expm1(log_p)).log()
    return -torch.where(y > 0, y * log_p, zero) - torch.where(y < 1, (1 - y) * rest, zero)
