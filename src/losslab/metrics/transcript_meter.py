"""The meter of tasks whose targets are texts in another length than the inputs: transcripts.

nll               −log p(text | input) under the loss's own prediction, Σ over utterances / Σ characters, in nats
cer, wer          Σ edits / Σ characters or words of the references (`edit_distance.py`), of the decoded texts
wrong_utterances  share of utterances whose text is not right throughout
objective         what the loss itself reports; never compared across losses
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metric import Metric
from losslab.metrics.class_metrics import scoring_rows
from losslab.metrics.edit_distance import count_edits
from losslab.metrics.objective import SUMS, sums_of, value_of

_SHOWN = frozenset({"terminal", "events", "curves"})
TRANSCRIPT_METRICS: tuple[Metric, ...] = (
    Metric("nll", "nll of the text", "nats per character", False, 0.01, _SHOWN | {"checked"}),
    Metric("cer", "character error rate", "", False, 0.005, _SHOWN | {"checked"}),
    Metric("wer", "word error rate", "", False, 0.005, _SHOWN),
    Metric("wrong_utterances", "utterances with an error", "", False, 0.005, frozenset({"terminal"})),
    Metric("objective", "value of the loss itself", "", None, None, frozenset({"terminal"})),
)
UNIT_METRICS = ("nll", "cer")
_SUMS = ("count", "tokens", "nll", "characters", "of_characters", "words", "of_words", "wrong")


class SequenceScorer(Protocol):
    """Objective and predictions of a loss whose targets are sequences; see `losses.base.Loss` for each."""

    def __call__(self, features: Features, projection: Projection) -> LossSum: ...

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor: ...

    def decode(self, logits: Tensor, lengths: Tensor) -> list[Tensor]: ...

    def sequence_log_probs(self, logits: Tensor, features: Features) -> Tensor | None: ...

    def from_scores(
        self, features: Features, projection: Projection, logits: Tensor, logsumexp: Tensor | None
    ) -> LossSum | None: ...


class TranscriptMeter(Meter):
    """Streaming sums of a split.

    Args:
        names: the character of each class.
        num_units: how many utterances, or groups of them, have scores of their own in `arrays`; 0 for none.
    """

    def __init__(self, names: Sequence[str], *, num_units: int = 0) -> None:
        self.names = names
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64)
        self.objective = torch.zeros(SUMS, dtype=torch.float64)
        self.units = torch.zeros(1 + len(UNIT_METRICS), num_units, dtype=torch.float64)
        """The characters of each unit's references, and its sums of nll and of character edits."""

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {name: (getattr(self, name), "sum") for name in ("sums", "objective", "units")}

    @torch.no_grad()
    def update(self, features: Features, loss: SequenceScorer, projection: Projection) -> LossSum:
        """Add S sequences."""
        features = features.kept()
        total = torch.zeros_like(self.objective)
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            for chunk in features.chunks(scoring_rows(len(projection.weight))):
                scores = loss.scores(chunk.hidden, projection)
                part = loss.from_scores(chunk, projection, scores, None)
                total = total + sums_of(loss(chunk, projection) if part is None else part).to(total.device)
                self._add(chunk, loss, scores)
        self.objective = self.objective + total
        return LossSum(total=total[0], weight=total[1])

    def _add(self, chunk: Features, loss: SequenceScorer, scores: Tensor) -> None:
        assert chunk.lengths is not None, "targets that are sequences have lengths"
        found = loss.sequence_log_probs(scores, chunk)
        log_probs = [-math.inf] * len(chunk) if found is None else found.tolist()
        told = [self.text_of(row.tolist()) for row in loss.decode(scores, chunk.lengths)]
        targets = [[c for c in row if c >= 0] for row in chunk.target.tolist()]
        weights = chunk.weight.tolist()
        units = chunk.extras["unit"].tolist() if self.units.shape[1] else [0] * len(chunk)
        sums, by_unit = torch.zeros(len(_SUMS), dtype=torch.float64), torch.zeros_like(self.units, device="cpu")
        for weight, unit, log_prob, target, text in zip(weights, units, log_probs, targets, told, strict=True):
            reference = self.text_of(target)
            edits = count_edits(reference, text)
            row = [1.0, len(target), -log_prob, *edits, float(edits.characters > 0)]
            sums += weight * torch.tensor(row, dtype=torch.float64)
            if by_unit.shape[1]:
                own = [len(target), -log_prob, edits.characters]
                by_unit[:, unit] += weight * torch.tensor(own, dtype=torch.float64)
        self.sums = self.sums + sums.to(self.sums.device)
        self.units = self.units + by_unit.to(self.units.device)

    def text_of(self, classes: Sequence[int]) -> str:
        """The text of a sequence of classes."""
        return "".join(self.names[c] for c in classes)

    def values(self) -> dict[str, float]:
        """Each metric by name; NaN where nothing counted."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        rates = {
            "nll": ("nll", "tokens"),
            "cer": ("characters", "of_characters"),
            "wer": ("words", "of_words"),
            "wrong_utterances": ("wrong", "count"),
        }
        found = {name: sums[a] / sums[b] if sums[b] else math.nan for name, (a, b) in rates.items()}
        return found | {"objective": value_of(*self.objective.tolist())}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`units` [3, U], of each unit the characters of its references and its sums of the `unit_metrics`."""
        if not self.units.shape[1]:
            return {}
        return {"units": self.units.cpu().numpy().astype(np.float32), "unit_metrics": np.array(UNIT_METRICS)}
