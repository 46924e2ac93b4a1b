"""Stochastic depth: whole branches of a sample are left out in training, more often in later layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.models.decoder import Decoder

SIZES = {"num_layers": 4, "num_heads": 2, "width": 8, "context": 6, "vocab_size": 11}


def model(**options: float) -> Decoder:
    return Decoder(**SIZES, **options, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens() -> dict[str, Tensor]:
    return {"tokens": torch.arange(24).reshape(4, 6) % 11}


def test_the_probability_grows_linearly_with_depth() -> None:
    assert [layer.drop_path for layer in model(drop_path=0.4).layers] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_branch_is_whole_or_absent_for_each_sample_and_keeps_its_mean() -> None:
    layer = model(drop_path=0.8).layers[1]
    torch.manual_seed(0)
    scaled = layer._dropped(torch.ones(4000, 3, 2))
    rows = scaled.flatten(1)
    assert (rows == rows[:, :1]).all()
    assert sorted(set(rows[:, 0].tolist())) == pytest.approx([0, 1 / 0.6])
    assert rows[:, 0].mean().item() == pytest.approx(1, abs=0.05)


def test_an_evaluation_drops_nothing_and_without_it_nothing_is_drawn(tokens: dict[str, Tensor]) -> None:
    plain, deep = model(), model(drop_path=0.9)
    assert torch.equal(plain.eval()(tokens), deep.eval()(tokens))
    before = torch.get_rng_state()
    plain.train()(tokens)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(deep.train()(tokens), plain(tokens))


def test_training_follows_the_dropout_stream(tokens: dict[str, Tensor]) -> None:
    deep = model(drop_path=0.5).train()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(deep(tokens))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_probability_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"model\.drop_path must be"):
        model(drop_path=value)
