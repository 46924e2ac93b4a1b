"""Attention against a computation in the open, and what positions do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from losslab.models.attention import SelfAttention
from losslab.models.positions import RotaryPositions, sinusoidal_positions

HEADS, HEAD_WIDTH, LENGTH = 2, 8, 12


@pytest.fixture
def rotary() -> RotaryPositions:
    return RotaryPositions(HEAD_WIDTH, LENGTH)


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(3, HEADS, LENGTH, HEAD_WIDTH, generator=torch.Generator().manual_seed(0))


def attend(attention: SelfAttention, hidden: Tensor) -> Tensor:
    """One window [T, D], position by position, each over itself and those before, in float64."""
    weight, output = attention.qkv.weight.double(), attention.output.weight.double()
    q, k, v = (part.unflatten(-1, (HEADS, HEAD_WIDTH)) for part in (hidden.double() @ weight.T).chunk(3, dim=-1))
    mixed = torch.zeros(len(hidden), HEADS, HEAD_WIDTH, dtype=torch.float64)
    for t in range(len(hidden)):
        for h in range(HEADS):
            scores = k[: t + 1, h] @ q[t, h] / math.sqrt(HEAD_WIDTH)
            mixed[t, h] = (scores.exp() / scores.exp().sum()) @ v[: t + 1, h]
    return mixed.flatten(1) @ output.T


def make(*, dropout: float = 0.0) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(
        width=HEADS * HEAD_WIDTH, num_heads=HEADS, context=LENGTH, rotary=False, bias=False, dropout=dropout
    )


@pytest.fixture
def hidden() -> Tensor:
    return 2 * torch.randn(1, LENGTH, HEADS * HEAD_WIDTH, generator=torch.Generator().manual_seed(1))


def test_attention_is_a_softmax_over_the_past(hidden: Tensor) -> None:
    attention = make()
    torch.testing.assert_close(attention(hidden)[0].double(), attend(attention, hidden[0]), rtol=1e-5, atol=1e-6)


def test_dropout_of_attention_weights_is_for_training_only(hidden: Tensor) -> None:
    """The first position attends to itself alone: its one weight is dropped, or doubled."""
    dropping, plain = make(dropout=0.5), make()
    assert torch.equal(dropping.eval()(hidden), plain(hidden))
    dropping.train()
    repeated = hidden[:, :1].expand(200, 1, -1)
    ratio = dropping(repeated)[:, 0] @ torch.linalg.pinv(plain(repeated[:1])[0])
    assert {0.0, 2.0} <= set(ratio.flatten().round(decimals=3).tolist())


def test_rotation_keeps_norms_and_leaves_the_first_position(rotary: RotaryPositions, queries: Tensor) -> None:
    rotated = rotary(queries)
    torch.testing.assert_close(rotated.norm(dim=-1), queries.norm(dim=-1))
    assert torch.equal(rotated[:, :, 0], queries[:, :, 0])
    assert not torch.allclose(rotated[:, :, 1:], queries[:, :, 1:], atol=1e-2)


def test_rotation_turns_pairs_of_halves_by_the_documented_angles(rotary: RotaryPositions, queries: Tensor) -> None:
    """Numbers i and i + C/2 of position t are one complex number, turned by t · 10000^(−2i/C)."""
    half = HEAD_WIDTH // 2
    pairs = torch.complex(queries[..., :half].double(), queries[..., half:].double())
    frequencies = torch.tensor([10_000 ** (-2 * i / HEAD_WIDTH) for i in range(half)], dtype=torch.float64)
    angles = torch.arange(LENGTH)[:, None] * frequencies
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat([turned.real, turned.imag], dim=-1).float()
    torch.testing.assert_close(rotary(queries), expected, rtol=1e-5, atol=1e-6)


def test_scores_depend_only_on_the_distance(rotary: RotaryPositions, queries: Tensor) -> None:
    """The same query and key at all positions: scores[i, j] = scores[i + 1, j + 1], and they are not all the same."""
    query, key = (queries[0, head, 0].expand(1, 1, LENGTH, -1) for head in range(HEADS))
    scores = (rotary(query) @ rotary(key).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=1e-5, atol=1e-5)
    assert scores[0].std() > 0.1


@pytest.mark.parametrize("width", [6, 5])
def test_sinusoidal_table_is_that_of_the_paper(width: int) -> None:
    table = sinusoidal_positions(4, width)
    assert table.shape == (4, width)
    for t in range(4):
        for i in range(width):
            angle = t / 10_000 ** (2 * (i // 2) / width)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert table[t, i].item() == pytest.approx(expected, abs=1e-6)
