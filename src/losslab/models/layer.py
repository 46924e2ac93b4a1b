"""One layer of a stack: attention and MLP, each with a norm and a residual connection."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.models.attention import CrossAttention, Memory, SelfAttention
from losslab.models.cache import AttentionCache
from losslab.models.masks import Layout
from losslab.models.mlp import MLP
from losslab.models.norms import normalise


class TransformerLayer(nn.Module):
    """x + f(norm(x)) for attention, attention to a source where there is one, and the MLP; post-norm: norm(x + f(x))
    (Vaswani et al. 2017)."""

    def __init__(
        self,
        *,
        attention: SelfAttention,
        mlp: MLP,
        norms: tuple[nn.Module, nn.Module],
        dropout: float,
        drop_path: float = 0.0,
        post_norm: bool = False,
        cross: tuple[CrossAttention, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention = attention
        self.cross_attention = None if cross is None else cross[0]
        self.cross_norm = None if cross is None else cross[1]
        self.mlp = mlp
        self.dropout = dropout
        self.drop_path = drop_path
        self.post_norm = post_norm

    def forward(
        self,
        hidden_BTD: Tensor,
        layout: Layout | None = None,
        cache: AttentionCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """[B, T, D] → [B, T, D].

        Args:
            layout, cache: see `SelfAttention.forward`.
            memory: the source, for a layer that attends to one.
        """
        kept = None if layout is None else layout.kept
        attended = self.attention(self._read(self.attention_norm, hidden_BTD, kept), layout, cache)
        hidden_BTD = self._added(self.attention_norm, hidden_BTD, attended, kept)
        if self.cross_attention is not None and self.cross_norm is not None:
            assert memory is not None
            attended = self.cross_attention(self._read(self.cross_norm, hidden_BTD, kept), memory, cache)
            hidden_BTD = self._added(self.cross_norm, hidden_BTD, attended, kept)
        expanded = self.mlp(self._read(self.mlp_norm, hidden_BTD, kept))
        return self._added(self.mlp_norm, hidden_BTD, expanded, kept)

    def _read(self, norm: nn.Module, hidden_BTD: Tensor, kept_BT: Tensor | None) -> Tensor:
        """The input of a branch."""
        return hidden_BTD if self.post_norm else normalise(norm, hidden_BTD, kept_BT)

    def _added(self, norm: nn.Module, hidden_BTD: Tensor, branch_BTD: Tensor, kept_BT: Tensor | None) -> Tensor:
        """The hidden states with a branch added to them."""
        hidden_BTD = hidden_BTD + self._dropped(branch_BTD)
        return normalise(norm, hidden_BTD, kept_BT) if self.post_norm else hidden_BTD

    def _dropped(self, branch_BTD: Tensor) -> Tensor:
        """Dropout, and stochastic depth (Huang et al. 2016): the branch of a sample is left out with the probability
        `drop_path`, and is scaled so that its mean stays. Where that is 0 nothing is drawn."""
        branch_BTD = F.dropout(branch_BTD, self.dropout, self.training)
        if self.drop_path == 0 or not self.training:
            return branch_BTD
        return branch_BTD * F.dropout(torch.ones_like(branch_BTD[:, :1, :1]), self.drop_path, self.training)
