"""The Transformer of 2017: post-norm, sinusoidal positions, relu, scaled embeddings."""

from __future__ import annotations

import torch
from torch import nn

from losslab.models.transformer import StackOptions, Transformer


class Transformer2017(Transformer):
    """One stack of Vaswani et al. 2017 (arXiv:1706.03762): norm(x + attention(x)), then norm(x + mlp(x)), LayerNorm,
    biases, relu, sines and cosines added to √D · embedding. Its layers are those of torch.nn.TransformerEncoderLayer.

    Initialisation: embeddings from N(0, 1 / D), so that they are of size 1 once they are scaled; matrices by Glorot &
    Bengio 2010, uniform; norms 1, biases 0. An output projection of its own: N(0, 1 / D).

    Args:
        num_layers, num_heads, width, context, mlp_width, num_types, drop_path, tie_embeddings: see `Decoder`.
        dropout: on embeddings, attention weights and both branches, in [0, 1); 0.1 in the paper.
        bidirectional: positions attend to both sides, as in the paper's encoder; otherwise to those before, as in its
            decoder.
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
        bidirectional: bool = False,
        num_types: int = 0,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        tie_embeddings: bool = True,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        options = StackOptions(
            num_layers=num_layers,
            num_heads=num_heads,
            width=width,
            context=context,
            causal=not bidirectional,
            mlp_width=mlp_width,
            positions="sinusoidal",
            mlp="relu",
            norm="layer",
            norm_placement="post",
            num_types=num_types,
            dropout=dropout,
            drop_path=drop_path,
            tie_embeddings=tie_embeddings,
            init_std=max(width, 1) ** -0.5,
        )
        super().__init__(options, embedding=nn.Embedding(vocab_size, width), generator=generator)

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights, in the order of the modules, from `generator` alone."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.init_std, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
