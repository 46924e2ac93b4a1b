"""The recurrent baseline: layers of long short-term memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from losslab.errors import UserError
from losslab.models.projection import OutputProjection

State = tuple[Tensor, Tensor]


class Sequences(NamedTuple):
    """The sequences of a batch that are read from a fresh state each: texts without their padding, or the documents of
    packed windows."""

    gather: Tensor
    """int64 [S, L]: positions of the flattened batch; 0 behind the shorter sequences."""
    lengths: Tensor
    """int64 [S], on the CPU."""
    scatter: Tensor
    """int64 [B, T]: where each position is in the flattened [S, L]; those of padding have that of another."""
    kept: Tensor | None
    """bool [B, T]: False in the padding; None: there is none."""


class LSTM(nn.Module):
    """Hochreiter & Schmidhuber 1997, in layers, as the textbooks have it (Jurafsky & Martin, Speech and Language
    Processing, chapter "RNNs and LSTMs"), with dropout between them (Zaremba et al. 2014, arXiv:1409.2329).

    Padding (`mask`) is packed away, so that it changes nothing; a packed document (`segments`) begins with a fresh
    state. Initialisation: embeddings from N(0, 0.02²); weights and biases of a direction of width H uniform in ±1 / √H,
    as PyTorch's, but for the biases of forget gates, which add up to 1 (Jozefowicz et al. 2015).

    Args:
        num_layers: L.
        width: D, of the embedding and of each layer's states; each direction has half of it where there are two.
        bidirectional: each layer reads the text in both directions, for tasks that read a whole text.
        dropout: on the embedding and each layer's output, in [0, 1).
        num_types: see `Decoder`.
        tie_embeddings: the output projection is the token embedding.
        context: the longest sequence that data gives; the model itself reads any.
        vocab_size: V, known once the tokenizer is.
        generator: the backbone_init stream.

    Raises:
        UserError: for sizes that are not above 0, or an odd width for two directions.
    """

    def __init__(
        self,
        *,
        num_layers: int = 2,
        width: int,
        context: int,
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_types: int = 0,
        tie_embeddings: bool = True,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, size in {"num_layers": num_layers, "width": width, "context": context}.items():
            if size <= 0:
                raise UserError(f"model.{name} must be above 0, not {size}")
        if bidirectional and width % 2:
            raise UserError(f"model.bidirectional=true needs an even model.width, half for each direction, not {width}")
        if num_types < 0:
            raise UserError(f"model.num_types must be 0 or above, not {num_types}")
        if not 0 <= dropout < 1:
            raise UserError(f"model.dropout must be in [0, 1), not {dropout}")
        self.width = width
        self.context = context
        self.causal = not bidirectional
        self.dropout = dropout
        self.tie_embeddings = tie_embeddings
        self.embedding = nn.Embedding(vocab_size, width)
        self.types = nn.Embedding(num_types, width) if num_types else None
        self.layers = nn.ModuleList(LSTMLayer(width, bidirectional=bidirectional) for _ in range(num_layers))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights, in the order of the modules, from `generator` alone."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=_EMBEDDING_STD, generator=generator)
            elif isinstance(module, nn.LSTM):
                bound = 1 / math.sqrt(module.hidden_size)
                for name, parameter in module.named_parameters():
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
                    if name.startswith("bias"):
                        with torch.no_grad():  # input, forget, cell and output gates have a quarter each
                            parameter[module.hidden_size : 2 * module.hidden_size].fill_(0.5)

    def forward(self, inputs: dict[str, Tensor], cache: RecurrentCache | None = None) -> Tensor:
        """`tokens`, int64 [B, T] → hidden states [B, T, D]; with `mask`, those of padding are 0.

        Args:
            inputs: `tokens`, and perhaps `mask`, `segments` and `types`, as a `Transformer` reads them.
            cache: of `new_cache`, for tokens that follow those that it was given before.
        """
        tokens_BT = inputs["tokens"]
        hidden = self.embedding(tokens_BT)
        if self.types is not None:
            types = inputs.get("types")
            hidden = hidden + (self.types.weight[0] if types is None else self.types(types))
        hidden = F.dropout(hidden, self.dropout, self.training)
        if cache is not None:
            return self._continued(hidden, inputs.get("segments"), cache)
        sequences = _sequences(inputs.get("mask"), inputs.get("segments"))
        for layer in self.layers:
            hidden = F.dropout(layer(hidden, sequences), self.dropout, self.training)
        return hidden

    def _continued(self, hidden_BTD: Tensor, segments_BT: Tensor | None, cache: RecurrentCache) -> Tensor:
        """Hidden states after those of a cache, one position after the other where documents may begin."""
        length = hidden_BTD.shape[1]
        parts = []
        for t in range(length) if segments_BT is not None else range(1):
            hidden = hidden_BTD if segments_BT is None else hidden_BTD[:, t : t + 1]
            if segments_BT is not None:
                cache.enter(segments_BT[:, t])
            for i, layer in enumerate(self.layers):
                assert isinstance(layer, LSTMLayer)
                hidden, cache.states[i] = layer.recurrent(hidden, cache.states[i])
            parts.append(hidden)
        return torch.cat(parts, dim=1)

    def new_cache(self) -> RecurrentCache | None:
        """The states of no positions yet; None for a model that reads both directions."""
        return RecurrentCache(len(self.layers)) if self.causal else None

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The tied projection, or one of its own out of the head_init stream."""
        if self.tie_embeddings:
            return OutputProjection(self.embedding.weight)
        return OutputProjection.initialised(num_outputs, self.width, _EMBEDDING_STD, generator)

    def blocks(self) -> list[nn.Module]:
        """The layers, in their order."""
        return list(self.layers)

    def flops_per_sample(self) -> int:
        """Floating-point operations of one forward and backward pass over T tokens, without the output projection:
        6 for each weight that multiplies, a token."""
        return 6 * self.context * sum(p.numel() for p in self.layers.parameters() if p.ndim == 2)


_EMBEDDING_STD = 0.02


class LSTMLayer(nn.Module):
    """One recurrent layer, in one or both directions."""

    def __init__(self, width: int, *, bidirectional: bool) -> None:
        super().__init__()
        each = width // 2 if bidirectional else width
        self.recurrent = nn.LSTM(width, each, batch_first=True, bidirectional=bidirectional)

    def forward(self, hidden_BTD: Tensor, sequences: Sequences | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; 0 at positions that no sequence has."""
        if sequences is None:
            output: Tensor = self.recurrent(hidden_BTD)[0]
            return output
        rows = hidden_BTD.flatten(0, 1)[sequences.gather]
        packed = pack_padded_sequence(rows, sequences.lengths, batch_first=True, enforce_sorted=False)
        padded, _ = pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=sequences.gather.shape[1]
        )
        read = padded.flatten(0, 1)[sequences.scatter]
        return read if sequences.kept is None else read * sequences.kept[..., None]


class RecurrentCache:
    """The state of each layer after the positions that it has seen.

    Args:
        num_layers: L.
    """

    def __init__(self, num_layers: int) -> None:
        self.states: list[State | None] = [None] * num_layers
        self._segments: Tensor | None = None

    def enter(self, segments_B: Tensor) -> None:
        """Forget the states of rows whose next position is in another document than the last."""
        if self._segments is not None:
            same = (self._segments == segments_B)[None, :, None]
            self.states = [None if state is None else (state[0] * same, state[1] * same) for state in self.states]
        self._segments = segments_B


def _sequences(mask_BT: Tensor | None, segments_BT: Tensor | None) -> Sequences | None:
    """The sequences of a batch; None where each row is one. Where all is padding, one position is read in vain."""
    if mask_BT is None and segments_BT is None:
        return None
    given = mask_BT if segments_BT is None else segments_BT
    assert given is not None
    kept = torch.ones_like(given, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
    here = kept.cpu()
    begins = here.clone()
    begins[:, 1:] &= ~here[:, :-1]
    if segments_BT is not None:
        segments = segments_BT.cpu()
        begins[:, 1:] |= here[:, 1:] & (segments[:, 1:] != segments[:, :-1])
    positions = here.flatten().nonzero()[:, 0]
    if not len(positions):
        positions, begins = torch.zeros(1, dtype=torch.int64), torch.ones_like(begins)
    number = begins.flatten()[positions].long().cumsum(0) - 1
    lengths = number.bincount()
    column = torch.arange(len(positions)) - (lengths.cumsum(0) - lengths)[number]
    gather = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.int64)
    gather[number, column] = positions
    scatter = torch.zeros(here.numel(), dtype=torch.int64)
    scatter[positions] = number * gather.shape[1] + column
    device = given.device
    return Sequences(gather.to(device), lengths, scatter.view(here.shape).to(device), None if mask_BT is None else kept)
