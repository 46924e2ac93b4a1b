"""Connectionist temporal classification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

BLANK = 0
"""The output that says nothing; class c is output c + 1."""


class CTC(Loss):
    """CTC: the likelihood of a sequence, over all ways to lay it along a longer one.

    Formula:
        ℓ = −log Σ_π Π_t p_t(π_t), p_t = softmax(z_t) over the classes and a blank, over all paths π of one output a
        position that become the target y₁ … y_U when repeated outputs are merged and blanks are then dropped. The sum
        over a batch is divided by the number of its target classes.
    Gradient:
        ∂ℓ/∂z_tk = p_t(k) − P(π_t = k | y), the share of the paths' mass that has k at position t.
    Source:
        Graves et al. 2006, doi:10.1145/1143844.1143891.
    Use:
        For targets that are in the order of the inputs and shorter, without an alignment: speech, handwriting. A
        sequence needs a position for each target class, and one more between equal neighbours.
    Weakness:
        Positions are independent given the input, so that nothing is learned of which classes follow each other.
        Predictions become peaks between blanks, and their times are not those of the sounds.
    Prediction:
        Of each position the likeliest output; repeated ones are merged, and blanks dropped (best path).
    Posterior:
        None in closed form for a position.

    Raises:
        UserError: with a batch, for a sequence that is too short for its target, so that no path leads to it.
    """

    target_kind = TargetKind.SEQUENCES
    cost_class = "F3"
    shift_invariant = True

    def num_outputs(self, size: int) -> int:
        """The classes and the blank."""
        return size + 1

    def num_classes(self, num_outputs: int) -> int:
        return num_outputs - 1

    def from_logits(self, logits: Tensor, features: Features) -> Tensor:
        """[S], of logits [N, V + 1]."""
        lengths, counts = features.lengths, target_lengths(features.target)
        assert lengths is not None, "targets that are sequences have lengths"
        check_room(features.target, lengths)
        if not len(lengths):
            return logits.sum(dim=-1)  # empty, and a part of the graph
        log_p = logits.log_softmax(dim=-1)
        if log_p.is_cuda and torch.are_deterministic_algorithms_enabled():
            log_p = log_p.cpu()  # CUDA adds the gradients of equal classes in any order
        side_by_side = torch.nn.utils.rnn.pad_sequence(list(torch.split(log_p, lengths.tolist())))
        target = (features.target.clamp(min=-1) + 1).to(log_p.device)
        values = F.ctc_loss(
            side_by_side, target, lengths.to(log_p.device), counts.to(log_p.device), blank=BLANK, reduction="none"
        )
        return values.to(logits.device)

    def position_weight(self, features: Features) -> Tensor:
        """The number of target classes, so that the mean is one a class, whatever the sequences' lengths are."""
        return target_lengths(features.target).clamp(min=1).float()

    def sequence_log_probs(self, logits: Tensor, features: Features) -> Tensor:
        return -self.from_logits(logits, features)

    def decode(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        """The best path's."""
        found = []
        for path in torch.split(logits.argmax(dim=-1), lengths.tolist()):
            merged = torch.unique_consecutive(path)
            found.append(merged[merged != BLANK] - 1)
        return found

    def posterior(self, logits: Tensor) -> None:
        return None


def target_lengths(target: Tensor) -> Tensor:
    """[S]: the classes of each sequence."""
    return (target >= 0).sum(dim=-1)


def needed_positions(target: Tensor) -> Tensor:
    """[S]: the fewest positions that have a path: one for each class, and one more between equal neighbours."""
    repeats = (target[:, 1:] == target[:, :-1]) & (target[:, 1:] >= 0)
    return (target_lengths(target) + repeats.sum(dim=-1)).clamp(min=1)


def check_room(target: Tensor, lengths: Tensor) -> None:
    """Raises UserError for a sequence that is too short for its target, whose loss is infinite."""
    needed = needed_positions(target)
    short = (lengths < needed).nonzero()[:, 0]
    if len(short):
        has, wants = int(lengths[short[0]]), int(needed[short[0]])
        raise UserError(
            f"loss=ctc: {len(short)} of {len(lengths)} sequences are too short for their targets, of which the first "
            f"has {has} positions and needs {wants}: a position for each class, and one more between equal neighbours; "
            "leave such samples out (weight 0), or give the model's output more positions"
        )
