"""Promises of each kind of model: padding, documents, caches, batch norm, and the tasks that it is refused for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import Batch, TargetKind, cache_of, mixes_samples, reads_ahead
from losslab.errors import UserError
from losslab.models.encoder import Encoder
from losslab.models.lstm import LSTM
from losslab.models.norms import BatchNorm
from losslab.models.patches import PatchEncoder
from losslab.models.transformer_2017 import Transformer2017
from losslab.tasks.tagging import Tagging
from losslab.training.trial.model import ModelTrial, batch_composition, padding

V, CONTEXT, WIDTH = 13, 12, 16
LENGTHS = torch.tensor([12, 7, 1])
MASK = torch.arange(CONTEXT) < LENGTHS[:, None]
SEGMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
HEADS: dict[str, Any] = {"num_heads": 2}
KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "lstm": (LSTM, {}),
    "two directions": (LSTM, {"bidirectional": True}),
    "2017": (Transformer2017, HEADS),
    "2017 both sides": (Transformer2017, HEADS | {"bidirectional": True}),
    "patches": (PatchEncoder, HEADS),
    "rotary patches": (PatchEncoder, HEADS | {"positions": "rotary", "window": 4}),
}
CAUSAL = [name for name in KINDS if name in ("lstm", "2017")]


def make(name: str, **options: Any) -> nn.Module:
    kind, own = KINDS[name]
    size = {"frame_width": 5} if kind is PatchEncoder else {"vocab_size": V}
    sizes = {"num_layers": 2, "width": WIDTH, "context": CONTEXT} | size
    return kind(**(sizes | own | options), generator=torch.Generator().manual_seed(0)).eval()


def draw(backbone: nn.Module, rows: int = 3, seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(backbone, PatchEncoder):
        return {"frames": torch.randn(rows, CONTEXT, 5, generator=generator)}
    return {"tokens": torch.randint(V, (rows, CONTEXT), generator=generator)}


@pytest.mark.parametrize("name", KINDS)
def test_padding_and_the_other_samples_change_no_hidden_state(name: str) -> None:
    backbone = make(name)
    inputs, others = draw(backbone), draw(backbone, seed=3)
    edited = {key: torch.where(MASK if x.ndim == 2 else MASK[..., None], x, others[key]) for key, x in inputs.items()}
    whole, other = (backbone(given | {"mask": MASK}) for given in (inputs, edited))
    scale = whole[MASK].abs().max()
    assert (whole - other)[MASK].abs().max() <= 1e-6 * scale
    for i, length in enumerate(LENGTHS.tolist()):
        alone = backbone({key: value[i : i + 1, :length] for key, value in inputs.items()})[0]
        assert (whole[i, :length] - alone).abs().max() <= 1e-6 * scale
    nothing = backbone(inputs | {"mask": torch.zeros_like(MASK)})
    assert nothing.shape == whole.shape
    assert nothing.isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_a_packed_document_is_bitwise_its_own(name: str) -> None:
    backbone = make(name)
    inputs, others = draw(backbone, 1), draw(backbone, 1, seed=3)
    here = SEGMENTS == 0
    edited = {key: torch.where(here if x.ndim == 2 else here[..., None], others[key], x) for key, x in inputs.items()}
    whole, after = (backbone(given | {"segments": SEGMENTS}) for given in (inputs, edited))
    assert torch.equal(whole[:, 5:], after[:, 5:])
    assert not torch.equal(whole[:, :5], after[:, :5])
    for start, end in ((0, 5), (5, 9), (9, 12)):
        alone = backbone({key: value[:, start:end] for key, value in inputs.items()})
        torch.testing.assert_close(whole[:, start:end], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_model_says_whether_it_reads_ahead(name: str) -> None:
    backbone = make(name)
    inputs, others = draw(backbone), draw(backbone, seed=3)
    later = {key: torch.cat([x[:, :6], others[key][:, 6:]], dim=1) for key, x in inputs.items()}
    changed = not torch.equal(backbone(inputs)[:, :6], backbone(later)[:, :6])
    assert changed == reads_ahead(backbone) == (name not in CAUSAL)


@pytest.mark.parametrize("packed", [False, True])
def test_the_state_of_an_lstm_is_its_cache(packed: bool) -> None:
    backbone = make("lstm").double()
    tokens = draw(backbone)["tokens"]
    inputs = {"tokens": tokens} | ({"segments": SEGMENTS.expand_as(tokens)} if packed else {})
    cache = cache_of(backbone)
    pieces = zip(*(value.split((4, 1, 2, 5), dim=1) for value in inputs.values()), strict=True)
    joined = torch.cat([backbone(dict(zip(inputs, piece, strict=True)), cache) for piece in pieces], dim=1)
    torch.testing.assert_close(joined, backbone(inputs), rtol=1e-12, atol=1e-12)
    assert cache_of(make("two directions")) is None


def test_types_are_told_apart_and_the_first_stands_for_none() -> None:
    for name in ("2017", "lstm"):
        backbone = make(name, num_types=2)
        inputs = draw(backbone)
        first = torch.zeros(3, CONTEXT, dtype=torch.int64)
        plain = backbone(inputs)
        assert torch.equal(plain, backbone(inputs | {"types": first}))
        assert not torch.equal(plain, backbone(inputs | {"types": first + 1}))
        assert torch.equal(*(make(name)(given) for given in (inputs, inputs | {"types": first + 1}))), "not read"


def test_batch_norm_is_that_of_torch_over_the_kept_positions() -> None:
    ours, theirs = BatchNorm(WIDTH), nn.BatchNorm1d(WIDTH)
    for seed in (0, 1):
        hidden = torch.randn(3, CONTEXT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        torch.testing.assert_close(ours(hidden, MASK)[MASK], theirs(hidden[MASK]))
        torch.testing.assert_close(ours(hidden).flatten(0, 1), theirs(hidden.flatten(0, 1)))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(hidden, MASK)[MASK], theirs.eval()(hidden[MASK]))


def test_batch_norm_refuses_packed_documents() -> None:
    backbone = Encoder(num_layers=1, width=16, context=CONTEXT, norm="batch", vocab_size=V, **HEADS)
    assert mixes_samples(backbone)
    assert backbone({"tokens": SEGMENTS, "mask": SEGMENTS < 2}).isfinite().all()
    with pytest.raises(UserError, match="norm=batch does not go with packed documents"):
        backbone({"tokens": SEGMENTS, "segments": SEGMENTS})


def test_the_kit_takes_a_model_that_declares_it_at_its_word() -> None:
    def fresh(seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        return Encoder(
            num_layers=1, width=16, context=CONTEXT, norm="batch", vocab_size=V, generator=generator, **HEADS
        )

    inputs = draw(fresh(1)) | {"mask": MASK}
    batch = Batch(inputs, inputs["tokens"], MASK.float(), {})
    trial = ModelTrial(fresh, batch, Tagging(entities=False), TargetKind.CLASSES, V, V)
    assert batch_composition(trial) == "in training alone, as mixes_samples declares"
    assert padding(trial) == "excluded positions change nothing"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_layers": 0}, "num_layers must be above 0"),
        ({"bidirectional": True, "width": 7}, "needs an even model.width"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"num_types": -1}, "num_types must be 0 or above"),
    ],
)
def test_bad_sizes_of_an_lstm_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make("lstm", **options)


@pytest.mark.parametrize(
    ("options", "per_layer", "keys"),
    [
        # qkv 16 · (16 + 2 · 16), output 16², and the MLP's 2 · 16 · 64; keys of a query, twice.
        ({}, 768 + 256 + 2048, 2 * CONTEXT),
        ({"num_kv_heads": 1}, 512 + 256 + 2048, 2 * CONTEXT),
        ({"window": 3}, 768 + 256 + 2048, 12),
        ({"window": 50}, 768 + 256 + 2048, 2 * CONTEXT),
    ],
)
def test_flops_of_an_encoder_are_those_counted_by_hand(options: dict[str, Any], per_layer: int, keys: int) -> None:
    backbone = Encoder(num_layers=2, width=16, context=CONTEXT, vocab_size=V, **HEADS, **options)
    assert backbone.flops_per_sample() == CONTEXT * 2 * (6 * per_layer + 6 * 16 * keys)


def test_flops_of_an_lstm_are_those_of_its_gates() -> None:
    assert make("lstm").flops_per_sample() == 6 * CONTEXT * 2 * (4 * 16 * 16 * 2)  # type: ignore[operator]
    assert make("two directions").flops_per_sample() == 6 * CONTEXT * 2 * 2 * (4 * 8 * (16 + 8))  # type: ignore[operator]


def test_a_sample_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match=r"context=12 is less than the 13 positions of a sample"):
        make("2017")({"tokens": torch.zeros(1, 13, dtype=torch.int64)})
