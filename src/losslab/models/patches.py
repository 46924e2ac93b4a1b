"""Bidirectional Transformer over vectors: patches of an image, frames of a sound."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from losslab.models.transformer import StackOptions, Transformer


class PatchEncoder(Transformer):
    """The encoder's stack over a linear map of vectors instead of an embedding of tokens (Dosovitskiy et al. 2020,
    arXiv:2010.11929). It reads `frames`, float [B, T, F].

    Initialisation: the linear map as the other matrices, N(0, init_std²); see `Decoder`.

    Args:
        num_layers, num_heads, width, context, mlp_width, positions, mlp, norm, norm_placement, embedding_norm, qk_norm,
            num_kv_heads, window, dropout, drop_path, init_std: see `Encoder`.
        frame_width: F, known once the data is.
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
        positions: Literal["rotary", "learned", "sinusoidal"] = "learned",
        mlp: Literal["gelu", "relu", "swiglu"] = "gelu",
        norm: Literal["rms", "layer", "batch"] = "layer",
        norm_placement: Literal["pre", "post"] = "pre",
        embedding_norm: bool = False,
        qk_norm: bool = False,
        num_kv_heads: int | None = None,
        window: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        init_std: float = 0.02,
        frame_width: int,
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
            dropout=dropout,
            drop_path=drop_path,
            init_std=init_std,
        )
        super().__init__(options, embedding=nn.Linear(frame_width, width), input_name="frames", generator=generator)
