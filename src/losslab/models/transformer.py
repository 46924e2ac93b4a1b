"""The stack that decoder, encoder and the Transformer of 2017 are: embedding, layers, a last norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError
from losslab.models.attention import CrossAttention, Memory, SelfAttention
from losslab.models.cache import AttentionCache
from losslab.models.layer import TransformerLayer
from losslab.models.masks import Layout, layout_of
from losslab.models.mlp import MLP
from losslab.models.norms import make_norm, normalise
from losslab.models.positions import sinusoidal_positions
from losslab.models.projection import OutputProjection


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """The settings of a stack, as `Decoder` and `Encoder` document them.

    Raises:
        UserError: for sizes that are not above 0, and heads that divide nothing.
    """

    num_layers: int
    num_heads: int
    width: int
    context: int
    causal: bool
    mlp_width: int | None = None
    positions: str = "rotary"
    mlp: str = "gelu"
    norm: str = "rms"
    norm_placement: str = "pre"
    embedding_norm: bool = False
    qk_norm: bool = False
    num_kv_heads: int | None = None
    window: int | None = None
    num_types: int = 0
    dropout: float = 0.0
    drop_path: float = 0.0
    tie_embeddings: bool = False
    init_std: float = 0.02
    cross: bool = False
    """Layers attend to a source, too."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("num_layers", "num_heads", "width", "context")}
        sizes |= {name: getattr(self, name) for name in ("mlp_width", "num_kv_heads", "window")}
        for name, size in sizes.items():
            if size is not None and size <= 0:
                raise UserError(f"model.{name} must be above 0, not {size}")
        width, heads = self.width, self.num_heads
        if width % heads:
            raise UserError(f"model.num_heads={heads} does not divide model.width={width}; choose a divisor")
        if self.num_kv_heads is not None and heads % self.num_kv_heads:
            raise UserError(
                f"model.num_kv_heads={self.num_kv_heads} does not divide model.num_heads={heads}; choose a divisor"
            )
        if self.positions == "rotary" and (width // heads) % 2:
            raise UserError(f"rotary positions need an even width per head, not {width} / {heads} = {width // heads}")
        if self.num_types < 0:
            raise UserError(f"model.num_types must be 0 or above, not {self.num_types}")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model.{name} must be in [0, 1), not {getattr(self, name)}")
        if not self.init_std > 0:
            raise UserError(f"model.init_std must be above 0, not {self.init_std}")

    @property
    def bias(self) -> bool:
        """Whether linear maps have additive terms: not beside RMSNorm, which has none either."""
        return self.norm != "rms"

    def layer(self, number: int) -> TransformerLayer:
        """A layer, its weights not drawn; the first is number 1. The last one is dropped most often."""
        mlp_width = 4 * self.width if self.mlp_width is None else self.mlp_width
        return TransformerLayer(
            attention=SelfAttention(
                width=self.width,
                num_heads=self.num_heads,
                context=self.context,
                rotary=self.positions == "rotary",
                bias=self.bias,
                dropout=self.dropout,
                causal=self.causal,
                num_kv_heads=self.num_kv_heads,
                window=self.window,
                qk_norm=self.qk_norm,
            ),
            mlp=MLP(width=self.width, mlp_width=mlp_width, activation=self.mlp, bias=self.bias),
            norms=(make_norm(self.norm, self.width), make_norm(self.norm, self.width)),
            dropout=self.dropout,
            drop_path=self.drop_path * number / self.num_layers,
            post_norm=self.norm_placement == "post",
            cross=(self._cross_attention(), make_norm(self.norm, self.width)) if self.cross else None,
        )

    def _cross_attention(self) -> CrossAttention:
        return CrossAttention(
            width=self.width,
            num_heads=self.num_heads,
            bias=self.bias,
            dropout=self.dropout,
            num_kv_heads=self.num_kv_heads,
            qk_norm=self.qk_norm,
        )


class Transformer(nn.Module):
    """A stack of layers over an embedding.

    Args:
        options: its settings.
        embedding: `input_name` → [B, T, D].
        input_name: the input of the batch that it reads.
        generator: the backbone_init stream.
    """

    def __init__(
        self,
        options: StackOptions,
        *,
        embedding: nn.Module,
        input_name: str = "tokens",
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        width, context = options.width, options.context
        self.options = options
        self.input_name = input_name
        self.width = width
        self.context = context
        self.causal = options.causal
        self.mixes_samples = options.norm == "batch"
        self.num_layers = options.num_layers
        self.tie_embeddings = options.tie_embeddings
        self.init_std = options.init_std
        self.dropout = options.dropout
        self.embedding = embedding
        self.positions = nn.Embedding(context, width) if options.positions == "learned" else None
        self.position_table: Tensor | None
        table = sinusoidal_positions(context, width) if options.positions == "sinusoidal" else None
        self.register_buffer("position_table", table, persistent=False)
        self.types = nn.Embedding(options.num_types, width) if options.num_types else None
        self.embedding_norm = make_norm(options.norm, width) if options.embedding_norm else None
        self.layers = nn.ModuleList(options.layer(i + 1) for i in range(options.num_layers))
        after_each = options.norm_placement == "post"
        self.last_norm = nn.Identity() if after_each else make_norm(options.norm, width)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights, in the order of the modules, from `generator` alone."""
        branches = 3 if self.options.cross else 2
        residual_std = self.init_std / math.sqrt(branches * self.num_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                writes_residual = name.endswith(("attention.output", "mlp.output"))
                nn.init.normal_(
                    module.weight, std=residual_std if writes_residual else self.init_std, generator=generator
                )
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Named inputs → hidden states [B, T, D].

        Args:
            inputs: `tokens`, int64 [B, T] (or the input that this model reads); and, where the data gives them, `mask`
                (bool [B, T], False in the padding, which stands behind), `segments` (int64 [B, T], the document of each
                position in a packed window: attention stays inside it, and positions restart) and `types` (int64
                [B, T]).
        """
        return self.run(inputs, None)

    def run(
        self, inputs: dict[str, Tensor], cache: list[AttentionCache] | None, memory: Memory | None = None
    ) -> Tensor:
        """The stack, for positions that follow those in a cache of `Decoder.new_cache`.

        Args:
            memory: the source, for layers that attend to one.
        """
        start = cache[0].length if cache else 0
        if (length := start + inputs[self.input_name].shape[1]) > self.context:
            raise UserError(
                f"model.context={self.context} is less than the {length} positions of a sample: give model.context="
                f"{length}"
            )
        layout = self._layout(inputs, cache)
        hidden = self._embed(inputs, layout, start)
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, layout, cache[i] if cache else None, memory)
        return normalise(self.last_norm, hidden, layout.kept)

    def _layout(self, inputs: dict[str, Tensor], cache: list[AttentionCache] | None) -> Layout:
        segments, start, first_key = inputs.get("segments"), 0, 0
        if segments is not None and self.mixes_samples:
            raise UserError(
                "model.norm=batch does not go with packed documents (`segments`): statistics over the batch carry one "
                "document into another; choose model.norm=rms or layer"
            )
        if cache:
            start, first_key = cache[0].length, cache[0].first
            if segments is not None:
                before = cache[0].segments
                segments = segments if before is None else torch.cat([before, segments], dim=1)
                cache[0].segments = segments
        return layout_of(
            causal=self.causal,
            window=self.options.window,
            tokens_BT=inputs[self.input_name],
            mask_BT=inputs.get("mask"),
            segments_BS=segments,
            start=start,
            first_key=first_key,
        )

    def _embed(self, inputs: dict[str, Tensor], layout: Layout, start: int) -> Tensor:
        """[B, T, D]: inputs, positions and types, after dropout."""
        read = inputs[self.input_name]
        hidden: Tensor = self.embedding(read)
        rows: Tensor | slice = slice(start, start + read.shape[1])
        if layout.positions is not None:
            rows = layout.positions
        if self.positions is not None:
            hidden = hidden + self.positions.weight[rows]
        if self.position_table is not None:
            # The table's entries are of size 1; the embedding's must be too (Vaswani et al. 2017, section 3.4).
            hidden = hidden / self.init_std + self.position_table[rows]
        if self.types is not None:
            types = inputs.get("types")
            hidden = hidden + (self.types.weight[0] if types is None else self.types(types))
        if self.embedding_norm is not None:
            hidden = normalise(self.embedding_norm, hidden, layout.kept)
        return F.dropout(hidden, self.dropout, self.training)

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The tied projection, or one of its own out of the head_init stream."""
        if self.tie_embeddings:
            return OutputProjection(self.embedding.weight)  # type: ignore[arg-type]
        return OutputProjection.initialised(num_outputs, self.width, self.init_std, generator)

    def blocks(self) -> list[nn.Module]:
        """The layers, in their order."""
        return list(self.layers)

    def flops_per_sample(self) -> int:
        """Floating-point operations of one forward and backward pass over T tokens, and as many of a source, without
        the output projection: 6 for each weight that multiplies, and 12 · L · D for each key of a query, a token."""
        multiplying = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        of_source = 2 * self.context if self.options.cross else 0
        scores = 6 * self.num_layers * self.width * (self._keys_of_two_queries() + of_source)
        return self.context * (6 * multiplying + scores)

    def _keys_of_two_queries(self) -> int:
        """Twice the number of keys that a query has on average: T for the causal half, 2 · T in both directions, and no
        more than a window has."""
        directions = 1 if self.causal else 2
        window = self.options.window
        return directions * self.context if window is None else min(directions * self.context, 2 * directions * window)
