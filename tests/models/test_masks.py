"""Padding, documents, windows and shared heads against attention written out; caches against the whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.models.decoder import Decoder
from losslab.models.encoder import Encoder

V, CONTEXT = 13, 12
POSITIONS = ("rotary", "learned", "sinusoidal")
LENGTHS = torch.tensor([12, 7, 1])
MASK = torch.arange(CONTEXT) < LENGTHS[:, None]
SEGMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])


def make(kind: type[Decoder] | type[Encoder], **options: Any) -> Any:
    sizes = {"num_layers": 2, "num_heads": 4, "width": 16, "context": CONTEXT, "vocab_size": V, "init_std": 0.5}
    return kind(**(sizes | options), generator=torch.Generator().manual_seed(0))


def draw(rows: int = 3) -> Tensor:
    return torch.randint(V, (rows, CONTEXT), generator=torch.Generator().manual_seed(2))


def attend(attention: Any, hidden: Tensor, sees: Any) -> Tensor:
    """One window [T, D] in float64: query i over the keys j with sees(i, j), head h with the keys of its group."""
    heads, groups, width = attention.num_heads, attention.num_kv_heads, attention.head_width
    q, k, v = (x.unflatten(-1, (-1, width)) for x in attention.qkv(hidden).split(attention.sizes, dim=-1))
    if attention.rotary is not None:
        q, k = (attention.rotary(x.transpose(0, 1)[None])[0].transpose(0, 1) for x in (q, k))
    mixed = torch.zeros(len(hidden), heads, width, dtype=torch.float64)
    for i in range(len(hidden)):
        keys = [j for j in range(len(hidden)) if sees(i, j)]
        for h in range(heads):
            group = h // (heads // groups)
            scores = torch.stack([q[i, h] @ k[j, group] for j in keys]) / math.sqrt(width)
            mixed[i, h] = scores.softmax(dim=0) @ torch.stack([v[j, group] for j in keys])
    return attention.output(mixed.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 3, 40])
@pytest.mark.parametrize("kind", [Decoder, Encoder])
def test_windows_and_shared_heads_are_those_of_attention_written_out(kind: Any, window: int | None, heads: int) -> None:
    backbone = make(kind, window=window, num_kv_heads=heads, num_layers=1).double()
    hidden = torch.randn(CONTEXT, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def sees(i: int, j: int) -> bool:
        return (kind is Encoder or j <= i) and (window is None or abs(i - j) < window)

    attention = backbone.layers[0].attention
    expected = attend(attention, hidden, sees)
    torch.testing.assert_close(attention(hidden[None])[0], expected, rtol=1e-12, atol=1e-12)
    weights = attention.weights(hidden[None])[0, 0]
    assert [[bool(w) for w in row] for row in weights] == [[sees(i, j) for j in range(CONTEXT)] for i in range(CONTEXT)]


@pytest.mark.parametrize("parts", [(1,) * CONTEXT, (5, 1, 1, 4, 1), (3, 9)], ids=str)
@pytest.mark.parametrize("options", [{"window": 3}, {"num_kv_heads": 2}, {"window": 1}, {"window": 4, "qk_norm": True}])
def test_a_cache_gives_the_whole_pass(options: dict[str, Any], parts: tuple[int, ...]) -> None:
    backbone = make(Decoder, **options).double().eval()
    tokens, cache = draw(), backbone.new_cache()
    inputs = {"tokens": tokens, "segments": SEGMENTS.expand_as(tokens)} if "window" in options else {"tokens": tokens}
    pieces = zip(*(value.split(parts, dim=1) for value in inputs.values()), strict=True)
    with torch.no_grad():
        joined = torch.cat([backbone(dict(zip(inputs, piece, strict=True)), cache) for piece in pieces], dim=1)
        torch.testing.assert_close(joined, backbone(inputs), rtol=1e-12, atol=1e-12)
    if window := options.get("window"):
        k, _ = cache[0]._kept
        assert k.shape[-2] == window - 1, "memory is that of the window"


@pytest.mark.parametrize("options", [{}, {"window": 4}, {"norm": "layer", "norm_placement": "post"}])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", [Decoder, Encoder])
def test_padding_and_the_other_samples_change_no_hidden_state(
    kind: Any, positions: str, options: dict[str, Any]
) -> None:
    backbone = make(kind, positions=positions, **options)
    tokens = draw()
    whole = backbone({"tokens": tokens, "mask": MASK})
    other = backbone({"tokens": torch.where(MASK, tokens, 3), "mask": MASK})
    scale = whole[MASK].abs().max()
    assert (whole - other)[MASK].abs().max() <= 1e-6 * scale
    for i, length in enumerate(LENGTHS.tolist()):
        alone = backbone({"tokens": tokens[i : i + 1, :length]})[0]
        assert (whole[i, :length] - alone).abs().max() <= 1e-6 * scale


def test_a_row_of_padding_alone_is_finite() -> None:
    nothing = torch.zeros(2, CONTEXT, dtype=torch.bool)
    for options in ({}, {"window": 2}):
        assert make(Encoder, **options)({"tokens": draw(2), "mask": nothing}).isfinite().all()
    packed = {"tokens": draw(1), "mask": SEGMENTS < 2, "segments": SEGMENTS}
    assert make(Encoder)(packed).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"num_kv_heads": 1}])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", [Decoder, Encoder])
def test_a_packed_document_is_bitwise_its_own(kind: Any, positions: str, options: dict[str, Any]) -> None:
    backbone = make(kind, positions=positions, **options)
    tokens = draw(1)
    edited = torch.where(SEGMENTS == 0, (tokens + 1) % V, tokens)
    whole, after = (backbone({"tokens": x, "segments": SEGMENTS}) for x in (tokens, edited))
    assert torch.equal(whole[:, 5:], after[:, 5:])
    assert (whole[:, :5] != after[:, :5]).any(dim=-1).all()
    for start, end in ((0, 5), (5, 9), (9, 12)):
        alone = backbone({"tokens": tokens[:, start:end]})
        torch.testing.assert_close(whole[:, start:end], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide model.num_heads=4"),
        ({"num_kv_heads": 0}, "num_kv_heads must be above 0"),
        ({"window": 0}, "window must be above 0"),
        ({"num_types": -1}, "num_types must be 0 or above"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make(Decoder, **options)
