"""Bidirectional Transformer: token ids → hidden states, each of which depends on the whole text."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from losslab.models.transformer import StackOptions, Transformer


class Encoder(Transformer):
    """The decoder's stack, in which positions attend to both sides (Devlin et al. 2018, arXiv:1810.04805).

    Padding (`mask`) and other documents (`segments`) are attended to by no position. Initialisation: see `Decoder`.
    BERT is positions=learned, norm=layer, norm_placement=post, embedding_norm=true, num_types=2.

    Args:
        num_layers, num_heads, width, context, mlp_width, positions, mlp, norm_placement, embedding_norm, qk_norm,
            num_kv_heads, num_types, dropout, drop_path, tie_embeddings, init_std: see `Decoder`.
        norm: rms, layer, or batch: over the positions of a batch (Ioffe & Szegedy 2015), for one process without
            accumulation.
        window: a position attends to itself and window − 1 on either side; default: to all.
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
        norm: Literal["rms", "layer", "batch"] = "rms",
        norm_placement: Literal["pre", "post"] = "pre",
        embedding_norm: bool = False,
        qk_norm: bool = False,
        num_kv_heads: int | None = None,
        window: int | None = None,
        num_types: int = 0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        tie_embeddings: bool = False,
        init_std: float = 0.02,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
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
            window=window,
            num_types=num_types,
            dropout=dropout,
            drop_path=drop_path,
            tie_embeddings=tie_embeddings,
            init_std=init_std,
        )
        super().__init__(options, embedding=nn.Embedding(vocab_size, width), generator=generator)
