"""Encoder-decoder Transformer: a source is read whole, and each position of a target attends to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from losslab.errors import UserError
from losslab.models.attention import Memory
from losslab.models.cache import AttentionCache
from losslab.models.masks import layout_of
from losslab.models.projection import OutputProjection
from losslab.models.transformer import StackOptions, Transformer

_VECTORS = "vectors"
"""The input of both stacks: embedded tokens."""


class SourceCache:
    """Cache of a decoder for a batch: keys and values of the target so far, and those of the source.

    Args:
        layers: a cache for each layer.
    """

    def __init__(self, layers: list[AttentionCache]) -> None:
        self.layers = layers
        self.memory: Memory | None = None
        """The source, after the first call."""

    @property
    def length(self) -> int:
        """Positions of the target seen."""
        return self.layers[0].length

    def reorder(self, rows: Tensor) -> None:
        """Make the sample `rows[i]` number i, for a search that drops some and goes on from others several times.

        Args:
            rows: int64 [N]; N may be another number than before.
        """
        for layer in self.layers:
            layer.reorder(rows)
        if self.memory is not None and self.memory.allowed is not None:
            self.memory = self.memory._replace(allowed=self.memory.allowed.index_select(0, rows))


class EncoderDecoder(nn.Module):
    """The two stacks of Vaswani et al. 2017 (arXiv:1706.03762), out of the layers of `Encoder` and `Decoder`: those of
    the decoder attend to the positions before, and then to the whole source.

    Initialisation: see `Decoder`; the maps of the decoder that write into the residual stream are drawn from
    N(0, init_std² / (3 · decoder_layers)). The model of 2017 is positions=sinusoidal, norm=layer, norm_placement=post,
    mlp=relu, share_embeddings=true, tie_embeddings=true.

    Args:
        num_layers: layers of the encoder.
        decoder_layers: layers of the decoder; default: num_layers.
        num_heads, width, mlp_width, positions, mlp, norm, norm_placement, embedding_norm, qk_norm, num_kv_heads,
            dropout, drop_path, init_std: of both stacks, see `Decoder`.
        context: the longest source, and the longest target.
        share_embeddings: source and target have one embedding; default: where they have one vocabulary.
        tie_embeddings: the output projection is the target's embedding (Press & Wolf 2017, arXiv:1608.05859).
        vocab_size: V of the target, known once the tokenizer is.
        source_vocab_size: of the source; None: both have one vocabulary.
        generator: the backbone_init stream.

    Raises:
        UserError: for sizes that are not above 0, heads that do not divide the width, and one embedding for two
            vocabularies.
    """

    causal = True
    reads_source = True

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        width: int,
        context: int,
        decoder_layers: int | None = None,
        mlp_width: int | None = None,
        positions: Literal["rotary", "learned", "sinusoidal"] = "rotary",
        mlp: Literal["gelu", "relu", "swiglu"] = "gelu",
        norm: Literal["rms", "layer"] = "rms",
        norm_placement: Literal["pre", "post"] = "pre",
        embedding_norm: bool = False,
        qk_norm: bool = False,
        num_kv_heads: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        share_embeddings: bool | None = None,
        tie_embeddings: bool = True,
        init_std: float = 0.02,
        vocab_size: int,
        source_vocab_size: int | None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if decoder_layers is not None and decoder_layers <= 0:
            raise UserError(f"model.decoder_layers must be above 0, not {decoder_layers}")
        if share_embeddings and source_vocab_size is not None:
            raise UserError(
                "model.share_embeddings=true gives source and target one embedding, and their vocabularies are "
                "separate: leave it null, or give data.joint=true"
            )
        options = StackOptions(
            num_layers=num_layers,
            num_heads=num_heads,
            width=width,
            context=context,
            causal=False,
            mlp_width=mlp_width,
            positions=positions,
            mlp=mlp,
            norm=norm,
            norm_placement=norm_placement,
            embedding_norm=embedding_norm,
            qk_norm=qk_norm,
            num_kv_heads=num_kv_heads,
            dropout=dropout,
            drop_path=drop_path,
            init_std=init_std,
        )
        of_decoder = replace(options, num_layers=decoder_layers or num_layers, causal=True, cross=True)
        self.width = width
        self.context = context
        self.tie_embeddings = tie_embeddings
        self.init_std = init_std
        self.embedding = nn.Embedding(vocab_size, width)
        shared = source_vocab_size is None if share_embeddings is None else share_embeddings
        self.source_embedding = None if shared else nn.Embedding(source_vocab_size or vocab_size, width)
        for embedding in (self.embedding, self.source_embedding):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=init_std, generator=generator)
        self.encoder = Transformer(options, embedding=nn.Identity(), input_name=_VECTORS, generator=generator)
        self.decoder = Transformer(of_decoder, embedding=nn.Identity(), input_name=_VECTORS, generator=generator)

    def forward(self, inputs: dict[str, Tensor], cache: SourceCache | None = None) -> Tensor:
        """Named inputs → hidden states of the target [B, T, D].

        Args:
            inputs: `source`, int64 [B, S]; `source_mask`, bool [B, S], False in the padding, where there is some; and
                `tokens`, int64 [B, T]: the begin of the target, and its tokens but the last. `mask` is not read:
                padding stands behind, where no position before it looks.
            cache: of `new_cache`, for tokens that follow those that it was given before. The source is read in the
                first call alone.

        Raises:
            UserError: for inputs without a source, and sequences longer than the context.
        """
        if cache is not None and cache.memory is not None:
            return self._continue(inputs["tokens"], cache.memory, cache)
        if "source" not in inputs:
            raise UserError(
                f"model: {type(self).__name__} reads two texts, `source` and `tokens`, and this batch has "
                f"{', '.join(inputs)}: task=translation, or model=decoder"
            )
        mask = inputs.get("source_mask")
        return self.decode(inputs["tokens"], self.encode(inputs["source"], mask), mask, cache)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """int64 [B, S] → hidden states of the source [B, S, D], each of which depends on all of it.

        Args:
            source_mask: bool [B, S], False in the padding; None: there is none.
        """
        embedding = self.embedding if self.source_embedding is None else self.source_embedding
        inputs = {_VECTORS: embedding(source)} | ({} if source_mask is None else {"mask": source_mask})
        return self.encoder.run(inputs, None)

    def decode(
        self, tokens: Tensor, memory: Tensor, source_mask: Tensor | None = None, cache: SourceCache | None = None
    ) -> Tensor:
        """int64 [B, T] → hidden states of the target [B, T, D], each of which depends on the source, and on the tokens
        up to its position.

        Args:
            memory: [B, S, D], of `encode`.
            source_mask: as there.
            cache: as of `forward`; after its first call, memory and mask are those that it keeps.
        """
        if cache is not None and cache.memory is not None:
            return self._continue(tokens, cache.memory, cache)
        read = Memory(memory, layout_of(causal=False, window=None, tokens_BT=memory, mask_BT=source_mask).allowed)
        return self._continue(tokens, read, cache)

    def _continue(self, tokens: Tensor, memory: Memory, cache: SourceCache | None) -> Tensor:
        hidden = self.decoder.run({_VECTORS: self.embedding(tokens)}, None if cache is None else cache.layers, memory)
        if cache is not None:
            cache.memory = memory
        return hidden

    def new_cache(self) -> SourceCache:
        """Keys and values of no positions yet, with room for a target of `context` of them."""
        return SourceCache([AttentionCache(self.context) for _ in self.decoder.layers])

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The tied projection, or one of its own out of the head_init stream."""
        if self.tie_embeddings:
            return OutputProjection(self.embedding.weight)
        return OutputProjection.initialised(num_outputs, self.width, self.init_std, generator)

    def blocks(self) -> list[nn.Module]:
        """The layers of the encoder, and then those of the decoder."""
        return [*self.encoder.blocks(), *self.decoder.blocks()]

    def flops_per_sample(self) -> int:
        """Floating-point operations of one forward and backward pass over a source and a target of `context` tokens
        each, without the output projection (`Transformer.flops_per_sample`)."""
        return self.encoder.flops_per_sample() + self.decoder.flops_per_sample()
