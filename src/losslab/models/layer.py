"""One layer of a stack: attention and MLP, each with a norm and a residual connection."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.models.attention import SelfAttention
from losslab.models.cache import AttentionCache
from losslab.models.masks import Layout
from losslab.models.mlp import MLP
from losslab.models.norms import normalise


class TransformerLayer(nn.Module):
    """x + f(norm(x)) for attention and then for the MLP; post-norm: norm(x + f(x)) (Vaswani et al. 2017)."""

    def __init__(
        self,
        *,
        attention: SelfAttention,
        mlp: MLP,
        norms: tuple[nn.Module, nn.Module],
        dropout: float,
        drop_path: float = 0.0,
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention = attention
        self.mlp = mlp
        self.dropout = dropout
        self.drop_path = drop_path
        self.post_norm = post_norm

    def forward(self, hidden_BTD: Tensor, layout: Layout | None = None, cache: AttentionCache | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; arguments: see `SelfAttention.forward`."""
        kept = None if layout is None else layout.kept
        if self.post_norm:
            attended = self._dropped(self.attention(hidden_BTD, layout, cache))
            hidden_BTD = normalise(self.attention_norm, hidden_BTD + attended, kept)
            expanded = self._dropped(self.mlp(hidden_BTD))
            return normalise(self.mlp_norm, hidden_BTD + expanded, kept)
        attended = self.attention(normalise(self.attention_norm, hidden_BTD, kept), layout, cache)
        hidden_BTD = hidden_BTD + self._dropped(attended)
        expanded = self.mlp(normalise(self.mlp_norm, hidden_BTD, kept))
        return hidden_BTD + self._dropped(expanded)

    def _dropped(self, branch_BTD: Tensor) -> Tensor:
        """Dropout, and stochastic depth (Huang et al. 2016): the branch of a sample is left out with the probability
        `drop_path`, and is scaled so that its mean stays. Where that is 0 nothing is drawn."""
        branch_BTD = F.dropout(branch_BTD, self.dropout, self.training)
        if self.drop_path == 0 or not self.training:
            return branch_BTD
        return branch_BTD * F.dropout(torch.ones_like(branch_BTD[:, :1, :1]), self.drop_path, self.training)
