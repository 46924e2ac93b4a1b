"""Causal Transformer: token ids → hidden states. It depends on no loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from losslab.models.cache import AttentionCache
from losslab.models.transformer import StackOptions, Transformer


class Decoder(Transformer):
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
        norm_placement: pre, or post: norm(x + attention(x)), and no last norm (Vaswani et al. 2017).
        embedding_norm: a norm after the embedding, as BERT has.
        qk_norm: an RMSNorm for each head's queries and keys (Henry et al. 2020, arXiv:2010.04245).
        num_kv_heads: heads of keys and values, a divisor of num_heads; default: num_heads (Ainslie et al. 2023).
        window: a position attends to itself and window − 1 before it (Beltagy et al. 2020); default: to all.
        num_types: an embedding for this many kinds of position (`types`: the first and second text of a pair), added to
            the token's; without `types`, all are of kind 0. 0: no such embedding, and `types` are not read.
        dropout: on embeddings, attention weights and both residual branches, in [0, 1).
        drop_path: the probability with which a sample skips a branch of the last layer, in [0, 1); that of layer l is
            l / num_layers of it (Huang et al. 2016, arXiv:1603.09382).
        tie_embeddings: the output projection is the token embedding (Press & Wolf 2017, arXiv:1608.05859).
        init_std: above 0.
        vocab_size: V, known once the tokenizer is.
        generator: the backbone_init stream.

    Raises:
        UserError: for sizes that are not above 0, or heads that do not divide the width.
    """

    embedding: nn.Embedding

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
        norm_placement: Literal["pre", "post"] = "pre",
        embedding_norm: bool = False,
        qk_norm: bool = False,
        num_kv_heads: int | None = None,
        window: int | None = None,
        num_types: int = 0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        tie_embeddings: bool = True,
        init_std: float = 0.02,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        options = StackOptions(
            num_layers=num_layers,
            num_heads=num_heads,
            width=width,
            context=context,
            causal=True,
            mlp_width=mlp_width,
            positions=positions,
            mlp=mlp,
            norm=norm,
            norm_placement=norm_placement,
            embedding_norm=embedding_norm,
            qk_norm=qk_norm,
            num_kv_heads=num_kv_heads,
            window=window,
            num_types=num_types,
            dropout=dropout,
            drop_path=drop_path,
            tie_embeddings=tie_embeddings,
            init_std=init_std,
        )
        super().__init__(options, embedding=nn.Embedding(vocab_size, width), generator=generator)

    def forward(self, inputs: dict[str, Tensor], cache: list[AttentionCache] | None = None) -> Tensor:
        """`tokens`, int64 [B, T] → hidden states [B, T, D]; `segments` and `types`: see `Transformer.forward`. `mask`
        is not read: padding stands behind, where no position before it looks.

        Args:
            cache: of `new_cache`, for tokens that follow those that it was given before.
        """
        return self.run(inputs, cache)

    def new_cache(self) -> list[AttentionCache]:
        """Keys and values of no positions yet, with room for `context` of them, or the window's."""
        return [AttentionCache(self.context, self.options.window) for _ in self.layers]
