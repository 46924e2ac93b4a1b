"""One layer of a stack: attention and MLP, each with a norm and a residual connection."""

from __future__ import annotations

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
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention = attention
        self.mlp = mlp
        self.dropout = dropout
        self.post_norm = post_norm

    def forward(self, hidden_BTD: Tensor, layout: Layout | None = None, cache: AttentionCache | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; arguments: see `SelfAttention.forward`."""
        kept = None if layout is None else layout.kept
        if self.post_norm:
            attended = F.dropout(self.attention(hidden_BTD, layout, cache), self.dropout, self.training)
            hidden_BTD = normalise(self.attention_norm, hidden_BTD + attended, kept)
            expanded = F.dropout(self.mlp(hidden_BTD), self.dropout, self.training)
            return normalise(self.mlp_norm, hidden_BTD + expanded, kept)
        attended = self.attention(normalise(self.attention_norm, hidden_BTD, kept), layout, cache)
        hidden_BTD = hidden_BTD + F.dropout(attended, self.dropout, self.training)
        expanded = self.mlp(normalise(self.mlp_norm, hidden_BTD, kept))
        return hidden_BTD + F.dropout(expanded, self.dropout, self.training)
