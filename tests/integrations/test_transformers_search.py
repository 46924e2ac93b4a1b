"""Beam search over a tiny seq2seq model of transformers, against its own `generate`. A module apart, for the import of
transformers takes seconds."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor

from losslab.training.generation.search import search


class ModelSteps:
    """Steps of a seq2seq model of transformers, without a cache: every step reads the whole text again."""

    def __init__(self, model: object, source: Tensor, mask: Tensor) -> None:
        self.model, self.source, self.mask = model, source, mask
        self.text: Tensor | None = None

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        before = tokens.new_empty(len(tokens), 0) if self.text is None else self.text[rows]
        self.source, self.mask = self.source[rows], self.mask[rows]
        self.text = torch.cat([before, tokens[:, None]], dim=1)
        logits = self.model(input_ids=self.source, attention_mask=self.mask, decoder_input_ids=self.text).logits  # type: ignore[operator]
        return logits[:, -1].log_softmax(dim=-1)


@pytest.mark.parametrize(
    ("beams", "penalty", "exact"), [(1, 1.0, True), (4, 1.0, False), (3, 0.6, True), (5, 0.0, False)]
)
def test_transformers_finds_the_same_texts(beams: int, penalty: float, exact: bool) -> None:
    """50 sources of unequal length in one batch, the same random weights and settings."""
    vocab_size, longest = 23, 12
    torch.manual_seed(1)
    config = transformers.BartConfig(
        vocab_size=vocab_size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, pad_token_id=1,
        bos_token_id=2, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None, init_std=0.8,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration(config).double().eval()
    lengths = torch.randint(1, 10, (50,))
    source = torch.randint(3, vocab_size, (50, 9))
    mask = (torch.arange(9) < lengths[:, None]).long()
    source = torch.where(mask.bool(), source, 1)
    theirs = model.generate(
        source, attention_mask=mask, num_beams=beams, length_penalty=penalty, max_new_tokens=longest, do_sample=False,
        early_stopping="never" if exact else False, return_dict_in_generate=True, output_scores=True, use_cache=False,
    )  # fmt: skip
    ours = search(
        ModelSteps(model, source, mask), torch.full((50,), 2), 2, longest=torch.full((50,), longest), beams=beams,
        length_penalty=penalty, exact=exact,
    )  # fmt: skip
    texts = [[token for token in row[1:] if token != 1] for row in theirs.sequences.tolist()]
    assert [[*found.tokens, *([2] if found.ended else [])] for (found,) in ours] == texts
    assert len({tuple(text) for text in texts}) > 10 and len({len(text) for text in texts}) > 4
    if beams > 1:
        scores = torch.tensor([found.score for (found,) in ours], dtype=torch.float64)
        assert torch.allclose(scores, theirs.sequences_scores.double(), atol=1e-6)
