"""Pre-norm causal Transformer: token ids → hidden states. It depends on no loss."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError
from losslab.models.attention import AttentionCache, CausalSelfAttention, sinusoidal_positions
from losslab.models.projection import OutputProjection


class Decoder(nn.Module):
    """A GPT-style stack (Radford et al. 2019): x + attention(norm(x)), then x + mlp(norm(x)), a last norm.

    Initialisation: embeddings and linear weights from N(0, init_std²), the two maps that write into the residual
    stream from N(0, init_std² / (2 · num_layers)) (GPT-2), norms 1, biases 0. `norm=layer` has biases in the linear
    maps, as GPT-2; `norm=rms` (Zhang & Sennrich 2019, arXiv:1910.07467) has none, as Llama.

    Args:
        num_layers: L.
        num_heads: heads, a divisor of width.
        width: D.
        context: T, the longest sequence.
        mlp_width: hidden width of the MLP; default 4 · width.
        positions: rotary, learned or sinusoidal.
        mlp: gelu, relu or swiglu (Shazeer 2020, arXiv:2002.05202).
        norm: rms or layer.
        dropout: on embeddings, attention weights and both residual branches, in [0, 1).
        tie_embeddings: the output projection is the token embedding (Press & Wolf 2017, arXiv:1608.05859).
        init_std: above 0.
        vocab_size: V, known once the tokenizer is.
        generator: the backbone_init stream.

    Raises:
        UserError: for sizes that are not above 0, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        width: int,
        context: int,
        mlp_width: int | None = None,
        positions: Literal["rotary", "learned", "sinusoidal"] = "rotary",
        mlp: Literal["gelu", "relu", "swiglu"] = "gelu",
        norm: Literal["rms", "layer"] = "rms",
        dropout: float = 0.0,
        tie_embeddings: bool = True,
        init_std: float = 0.02,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        mlp_width = 4 * width if mlp_width is None else mlp_width
        sizes = {"num_layers": num_layers, "num_heads": num_heads, "width": width, "context": context}
        _check_sizes(sizes | {"mlp_width": mlp_width}, positions=positions, dropout=dropout, init_std=init_std)
        self.width = width
        self.context = context
        self.num_layers = num_layers
        self.tie_embeddings = tie_embeddings
        self.init_std = init_std
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width) if positions == "learned" else None
        self.position_table: Tensor | None
        table = sinusoidal_positions(context, width) if positions == "sinusoidal" else None
        self.register_buffer("position_table", table, persistent=False)
        bias = norm == "layer"
        self.layers = nn.ModuleList(
            DecoderLayer(
                attention=CausalSelfAttention(
                    width=width,
                    num_heads=num_heads,
                    context=context,
                    rotary=positions == "rotary",
                    bias=bias,
                    dropout=dropout,
                ),
                mlp=MLP(width=width, mlp_width=mlp_width, activation=mlp, bias=bias),
                norms=(_norm(norm, width), _norm(norm, width)),
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.last_norm = _norm(norm, width)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights, in the order of the modules, from `generator` alone."""
        residual_std = self.init_std / math.sqrt(2 * self.num_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                writes_residual = name.endswith(("attention.output", "mlp.output"))
                nn.init.normal_(
                    module.weight, std=residual_std if writes_residual else self.init_std, generator=generator
                )
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, inputs: dict[str, Tensor], cache: list[AttentionCache] | None = None) -> Tensor:
        """`tokens`, int64 [B, T] → hidden states [B, T, D].

        Args:
            cache: of `new_cache`, for tokens that follow those that it was given before.
        """
        tokens_BT = inputs["tokens"]
        start = cache[0].length if cache else 0
        end = start + tokens_BT.shape[1]
        hidden = self.embedding(tokens_BT)
        if self.positions is not None:
            hidden = hidden + self.positions.weight[start:end]
        if self.position_table is not None:
            # The table's entries are of size 1; the embedding's must be too (Vaswani et al. 2017, section 3.4).
            hidden = hidden / self.init_std + self.position_table[start:end]
        hidden = F.dropout(hidden, self.dropout, self.training)
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, cache[i]) if cache else layer(hidden)
        output: Tensor = self.last_norm(hidden)
        return output

    def new_cache(self) -> list[AttentionCache]:
        """Keys and values of no positions yet, with room for `context` of them."""
        return [AttentionCache(self.context) for _ in self.layers]

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The tied projection, or one of its own out of the head_init stream."""
        if self.tie_embeddings:
            return OutputProjection(self.embedding.weight)
        return OutputProjection.initialised(num_outputs, self.width, self.init_std, generator)

    def blocks(self) -> list[nn.Module]:
        """The layers, in their order."""
        return list(self.layers)

    def flops_per_sample(self) -> int:
        """Floating-point operations of one forward and backward pass over T tokens, without the output projection:
        6 for each weight that multiplies, and 6 · L · D · T for the causal half of the attention scores, a token."""
        multiplying = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        return self.context * (6 * multiplying + 6 * self.num_layers * self.width * self.context)


class DecoderLayer(nn.Module):
    """One pre-norm block."""

    def __init__(
        self, *, attention: CausalSelfAttention, mlp: MLP, norms: tuple[nn.Module, nn.Module], dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention = attention
        self.mlp = mlp
        self.dropout = dropout

    def forward(self, hidden_BTD: Tensor, cache: AttentionCache | None = None) -> Tensor:
        attended = self.attention(self.attention_norm(hidden_BTD), cache)
        hidden_BTD = hidden_BTD + F.dropout(attended, self.dropout, self.training)
        expanded = self.mlp(self.mlp_norm(hidden_BTD))
        return hidden_BTD + F.dropout(expanded, self.dropout, self.training)


class MLP(nn.Module):
    """Position-wise two-layer network; swiglu gates one half of the input map with the other."""

    def __init__(self, *, width: int, mlp_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.input = nn.Linear(width, 2 * mlp_width if activation == "swiglu" else mlp_width, bias=bias)
        self.output = nn.Linear(mlp_width, width, bias=bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        x = self.input(hidden_BTD)
        if self.activation == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        else:
            x = F.gelu(x) if self.activation == "gelu" else F.relu(x)
        output: Tensor = self.output(x)
        return output


def _norm(kind: str, width: int) -> nn.Module:
    return nn.RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width)


def _check_sizes(sizes: dict[str, int], *, positions: str, dropout: float, init_std: float) -> None:
    for name, size in sizes.items():
        if size <= 0:
            raise UserError(f"model.{name} must be above 0, not {size}")
    width, heads = sizes["width"], sizes["num_heads"]
    if width % heads:
        raise UserError(f"model.num_heads={heads} does not divide model.width={width}; choose a divisor")
    if positions == "rotary" and (width // heads) % 2:
        raise UserError(f"rotary positions need an even width per head, not {width} / {heads} = {width // heads}")
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout must be in [0, 1), not {dropout}")
    if not init_std > 0:
        raise UserError(f"model.init_std must be above 0, not {init_std}")
