"""Entities in sequences of tags, and the counts of which precision, recall and F1 are made.

The rule is that of the CoNLL evaluation script and of seqeval's default mode. It reads BIO, IOB1 and IOBES alike: an
entity begins at B or S, at a word of another type than the one before, and at I or E after O, E or S; so an I without a
B begins one. It ends before the next beginning, and before O.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.metric import Metric

_SHOWN = frozenset({"terminal", "events", "curves"})
ENTITY_METRICS: tuple[Metric, ...] = (
    Metric("entity_f1", "F1 of entities", "", True, 0.005, _SHOWN),
    Metric("entity_precision", "precision of entities", "", True, 0.005, frozenset({"terminal"})),
    Metric("entity_recall", "recall of entities", "", True, 0.005, frozenset({"terminal"})),
)
_OUTSIDE = "O"
_PREFIXES = (_OUTSIDE, "B", "I", "E", "S")
_O, _B, _I, _E, _S = range(len(_PREFIXES))


class EntityRule:
    """Finds entities in classes that stand for tags.

    Args:
        tags: of each class, in their order: O, or B, I, E or S, a hyphen and a type.

    Raises:
        UserError: for other tags.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        parts = [tag.partition("-") for tag in tags]
        wrong = [
            tag for tag, (prefix, _, kind) in zip(tags, parts, strict=True)
            if prefix not in _PREFIXES or (prefix == _OUTSIDE and kind)
        ]  # fmt: skip
        if wrong:
            shown = ", ".join(map(repr, wrong[:4])) + (", …" if len(wrong) > 4 else "")
            raise UserError(
                f"tags that mark entities are O and B-, I-, E- or S- before a type, and train has {shown}: set "
                "task.entities=false for tags that mark none"
            )
        self.types = sorted({kind for _, _, kind in parts})
        """Types of entities, [K]; the empty one is that of O, and of tags without a type."""
        self.prefix = torch.tensor([_PREFIXES.index(prefix) for prefix, _, _ in parts])
        self.kind = torch.tensor([self.types.index(kind) for _, _, kind in parts])

    def count_by_type(self, predicted: Tensor, target: Tensor, sentence: Tensor) -> Tensor:
        """float64 [3, K]: of each type the entities that are right in both ends and type, those predicted, and those
        there are.

        Args:
            predicted, target: int64 [N], classes of words, sentence after sentence.
            sentence: int [N], another number than before where a sentence begins.
        """
        if not len(target):
            return torch.zeros(3, len(self.types), dtype=torch.float64, device=target.device)
        first = torch.ones_like(target, dtype=torch.bool)
        first[1:] = sentence[1:] != sentence[:-1]
        (ours, our_ends, our_kinds), (theirs, their_ends, their_kinds) = (
            self._spans(classes, first) for classes in (predicted, target)
        )
        right = ours & theirs & (our_ends == their_ends) & (our_kinds == their_kinds)
        of_type = ((our_kinds, right), (our_kinds, ours), (their_kinds, theirs))
        counts = [torch.bincount(kinds[which], minlength=len(self.types)) for kinds, which in of_type]
        return torch.stack(counts).double()

    def _spans(self, classes: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each [N]: whether an entity begins at a word, the word before which it ends, and its type."""
        prefix, kind = self.prefix.to(classes.device)[classes], self.kind.to(classes.device)[classes]
        before = torch.where(first, _O, prefix.roll(1))
        inside = prefix != _O
        starts = inside & (
            (prefix == _B) | (prefix == _S) | (before == _O) | (before == _E) | (before == _S) | (kind != kind.roll(1))
        )
        count = len(classes)
        places = torch.arange(count, device=classes.device)
        borders = torch.where(starts | ~inside | first, places, count)
        following = torch.cat([borders[1:], borders.new_tensor([count])])
        return starts, following.flip(0).cummin(dim=0).values.flip(0), kind


def scores(right: float, predicted: float, there: float) -> dict[str, float]:
    """F1, precision and recall by name; 0 where nothing divides, as seqeval has it."""
    precision = right / predicted if predicted else 0.0
    recall = right / there if there else 0.0
    f1 = 2 * right / (predicted + there) if right else 0.0
    return {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}
