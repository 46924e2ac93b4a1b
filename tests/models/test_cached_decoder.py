"""Generation with a cache computes the hidden states of the whole sequence."""

from __future__ import annotations

import pytest
import torch
from test_decoder import CONTEXT, NORMS, POSITIONS, V, make
from torch import Tensor, nn

from losslab.contracts import cache_of
from losslab.models.decoder import Decoder

PARTS = [(CONTEXT,), (1,) * CONTEXT, (3, 1, 1, 3), (5, 3)]
"""Numbers of tokens that are given at once."""


def run_in_parts(backbone: Decoder, tokens: Tensor, parts: tuple[int, ...]) -> Tensor:
    cache = backbone.new_cache()
    return torch.cat([backbone({"tokens": part}, cache) for part in tokens.split(parts, dim=1)], dim=1)


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_tokens_given_in_parts_have_the_hidden_states_of_the_whole(
    positions: str, norm: str, parts: tuple[int, ...]
) -> None:
    backbone = make(positions=positions, norm=norm, init_std=0.5).eval()
    tokens = torch.randint(V, (3, CONTEXT), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole, joined = backbone({"tokens": tokens}), run_in_parts(backbone, tokens, parts)
    if len(parts) == 1:
        assert torch.equal(joined, whole)
    torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        exact = backbone.double()({"tokens": tokens})
        torch.testing.assert_close(run_in_parts(backbone, tokens, parts), exact, rtol=1e-12, atol=1e-13)


def test_a_model_that_takes_no_cache_gets_none() -> None:
    class WithoutCache(Decoder):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            return super().forward(inputs)

    assert cache_of(WithoutCache(num_layers=1, num_heads=1, width=2, context=2, vocab_size=2)) is None
    assert cache_of(nn.LSTM(2, 2)) is None
    assert len(cache_of(make())) == 2
