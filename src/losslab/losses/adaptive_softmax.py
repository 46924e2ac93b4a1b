"""Adaptive softmax: rare classes in clusters, of which only the target's is computed."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.products import linear


class AdaptiveSoftmax(Loss):
    """Adaptive softmax: frequent classes first, rare ones in clusters of less width, of which one is computed.

    Formula:
        ℓ = −log softmax(z)_y for a frequent class; ℓ = −log softmax(z)_c − log softmax(V_c U_c h)_y for one of cluster
        c. z = W h has an entry for each frequent class and for each cluster; clusters go by the counts in train.
    Gradient:
        That of one or two cross-entropies, into W, U_c, V_c and h.
    Source:
        Grave et al. 2016, arXiv:1609.04309.
    Use:
        For vocabularies of tens of thousands and more, where the projection is most of a step: rare words cost little.
    Weakness:
        Rare classes have fewer weights, and are predicted worse. It cannot be tied to the embedding
        (model.tie_embeddings=false), and an evaluation needs the probabilities of all classes after all.
    Prediction:
        p of all classes, by the formula; they sum to 1.
    Posterior:
        η = p.

    Args:
        cutoffs: how many of the most frequent classes stand before each cluster, ascending; null: a tenth of all, and
            two fifths.
        reduction: the width of cluster i is D / reduction^i, i from 1; 1 or above.
    Raises:
        UserError: for values outside these ranges, and where the last cutoff leaves the last cluster no class.
    """

    per_class = True
    cost_class = "F6"
    is_proper = True

    def __init__(self, *, cutoffs: list[int] | None = None, reduction: float = 4.0) -> None:
        super().__init__()
        if cutoffs is not None and (not cutoffs or cutoffs[0] < 1 or sorted(set(cutoffs)) != cutoffs):
            raise UserError(f"loss.cutoffs must be numbers of classes from 1, each above the last, not {cutoffs}")
        if not 1 <= reduction < math.inf:
            raise UserError(f"loss.reduction must be 1 or above and finite, not {reduction}")
        self.cutoffs = cutoffs
        self.reduction = reduction
        self.rank: Tensor  # int64 [V]: the place of each class by frequency, from 0
        self.narrow = nn.ParameterList()
        """U_c, [width of cluster c, D]."""
        self.wide = nn.ParameterList()
        """V_c, [classes of cluster c, its width]."""

    def num_outputs(self, size: int) -> int:
        """Frequent classes and clusters."""
        cuts = self._cuts(size)
        return cuts[0] + len(cuts) - 1

    def num_classes(self, num_outputs: int) -> int:
        return len(self.rank)

    def _cuts(self, size: int) -> list[int]:
        """The ends of the frequent classes and of each cluster."""
        if self.cutoffs is None:
            first = max(1, size // 10)
            return [cut for cut in (first, max(first + 1, 2 * size // 5)) if cut < size] + [size]
        if self.cutoffs[-1] >= size:
            raise UserError(f"loss.cutoffs ends with {self.cutoffs[-1]:,}, and there are {size:,} classes")
        return [*self.cutoffs, size]

    def bind(self, spec: OutputSpec) -> None:
        """Make the clusters' weights. Without counts the order is left to the checkpoint that is about to be read."""
        size, width = spec.num_classes, spec.hidden_size
        if self.num_outputs(size) != spec.num_outputs:
            raise UserError(
                f"{type(self).__name__} needs {self.num_outputs(size):,} outputs for {size:,} classes, and the "
                f"projection has {spec.num_outputs:,}"
            )
        order = torch.arange(size)
        if spec.class_counts is not None:
            order = spec.class_counts.cpu().argsort(descending=True, stable=True)
        self.register_buffer("rank", order.argsort())
        cuts = self._cuts(size)
        for i, (start, end) in enumerate(pairwise(cuts), start=1):
            inner = max(1, int(width / self.reduction**i))
            self.narrow.append(_normal(inner, width, width**-0.5, spec.generator))
            self.wide.append(_normal(end - start, inner, 0.02, spec.generator))

    def values(self, features: Features, projection: Projection) -> Tensor:
        """One softmax for every position, and one more for those whose target is in a cluster."""
        rank, cuts = self.rank[features.target], self._cuts(len(self.rank))
        head = projection(features.hidden).float().log_softmax(dim=-1)
        chosen = torch.bucketize(rank, torch.tensor(cuts, device=rank.device), right=True)  # 0: the frequent classes
        entry = torch.where(chosen == 0, rank, cuts[0] + chosen - 1)
        found = -head.gather(-1, entry[:, None])[:, 0]
        for i, start in enumerate(cuts[:-1]):
            rows = (chosen == i + 1).nonzero()[:, 0]
            own = self._cluster(i, features.hidden[rows]).gather(-1, (rank[rows] - start)[:, None])[:, 0]
            found = found.index_add(0, rows, -own)
        return found

    def _cluster(self, i: int, hidden: Tensor) -> Tensor:
        """log softmax [n, classes] within cluster i."""
        inner = linear(hidden, self.narrow[i].to(hidden.dtype))
        return linear(inner, self.wide[i].to(hidden.dtype)).float().log_softmax(dim=-1)

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor:
        """log p [N, V]."""
        hidden = hidden.to(projection.weight.dtype)
        head, first = projection(hidden).float().log_softmax(dim=-1), self._cuts(len(self.rank))[0]
        clusters = [
            head[:, first + i, None] + self._cluster(i, hidden) for i in range(len(self.narrow))
        ]  # in the order of frequency
        return torch.cat([head[:, :first], *clusters], dim=-1).index_select(-1, self.rank)

    def from_scores(
        self, features: Features, projection: Projection, logits: Tensor, logsumexp: Tensor | None
    ) -> LossSum:
        weight = features.weight.float()
        return LossSum(-(weight * logits.gather(-1, features.target[:, None])[:, 0]).sum(), weight.sum())

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


def _normal(rows: int, columns: int, std: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns).normal_(std=std, generator=generator))
