"""Places of a sample as the classes of a loss: for tasks that point (`Task.points`).

A thing that is looked for, such as the start of an answer, has a vector w. The score of a place with hidden state h is
w · h, and the scores of a sample's places are logits over as many classes as it has places. Positions with equally many
places go to the loss together, their scores as hidden states and the identity as projection, so that a loss computes
what its formula says for that number of classes. No place is masked: none has to be given a score of −∞, over which no
label smoothing could be spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from losslab.contracts import Features, Projection

PLACES = "places"
"""The extra bool [N, T] of features: whether a place is one of those that are chosen from."""


class Identity(NamedTuple):
    """A projection to what it is given."""

    weight: Tensor
    """[C, C]: the identity."""
    bias: None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        return hidden


class Choice(NamedTuple):
    """n samples with C places each, as a loss reads their K positions."""

    rows: Tensor
    """int64 [n]: which samples they are."""
    places: Tensor
    """int64 [n, C]: their places, in order."""
    features: Features
    """n · K positions, sample after sample: scores [n · K, C], classes and weights [n · K]. The K positions of a sample
    share its weight."""
    projection: Projection


def choices(features: Features, projection: Projection) -> Iterator[Choice]:
    """The samples by their number of places, the fewest first.

    Args:
        features: of N samples: hidden states [N, T, D], targets int64 [N, K], weights [N], and the extra PLACES, of
            which each sample has at least one, the targets among them.
        projection: weights [K, D].
    """
    scores = projection(features.hidden.to(projection.weight.dtype))  # [N, T, K]
    is_place = features.extras[PLACES]
    counts, order = is_place.sum(dim=1), is_place.cumsum(dim=1) - 1
    classes = order.gather(1, features.target)
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero()[:, 0]
        places = is_place[rows].nonzero()[:, 1].view(len(rows), count)
        yield Choice(rows, places, *_read(features, scores, classes, rows, places))


def _read(
    features: Features, scores: Tensor, classes: Tensor, rows: Tensor, places: Tensor
) -> tuple[Features, Projection]:
    """Positions of samples with equally many places, and the identity."""
    things = scores.shape[2]
    own = scores[rows].gather(1, places[..., None].expand(-1, -1, things)).transpose(1, 2).flatten(0, 1)
    extras = {
        name: value[rows].repeat_interleave(things, dim=0) for name, value in features.extras.items() if value.ndim == 1
    }
    weight = features.weight[rows].repeat_interleave(things) / things
    identity = torch.eye(places.shape[1], dtype=own.dtype, device=own.device)
    return Features(own, classes[rows].flatten(), weight, extras), Identity(identity)
