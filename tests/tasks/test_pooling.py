"""Pooling by hand: padding never counts, wherever it stands."""

from __future__ import annotations

import pytest
import torch

from losslab.contracts import Batch, DataInfo
from losslab.errors import Doubt, UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.models.encoder import Encoder
from losslab.tasks.classification import Classification
from losslab.tasks.pooling import Pooling, pooled
from losslab.training.network import Network
from losslab.training.trial.pooling import longest_text, reads_more_than_the_first

HIDDEN = torch.arange(12.0).reshape(2, 3, 2)


class Model:
    width = 2


def pool(hidden: torch.Tensor, pooling: Pooling, *mask: list[int]) -> list[list[float]]:
    inputs = {"mask": torch.tensor(mask).bool()} if mask else {}
    found: list[list[float]] = pooled(hidden, inputs, pooling, weight=torch.ones(2), backbone=Model()).tolist()
    return found


def test_without_a_mask_every_position_counts() -> None:
    assert pool(HIDDEN, "first") == [[0, 1], [6, 7]]
    assert pool(HIDDEN, "mean") == [[2, 3], [8, 9]]
    assert pool(HIDDEN, "last") == [[4, 5], [10, 11]]


def test_padding_never_counts() -> None:
    """Behind the first text, and before the second."""
    mask = ([1, 1, 0], [0, 1, 1])
    assert pool(HIDDEN, "first", *mask) == [[0, 1], [8, 9]]
    assert pool(HIDDEN, "mean", *mask) == [[1, 2], [9, 10]]
    assert pool(HIDDEN, "last", *mask) == [[2, 3], [10, 11]]


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_a_text_without_a_position_is_finite(pooling: Pooling) -> None:
    assert torch.tensor(pool(HIDDEN, pooling, [0, 0, 0], [1, 1, 1])).isfinite().all()


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_what_a_model_has_pooled_stays(pooling: Pooling) -> None:
    assert pool(HIDDEN[:, 0], pooling, [1, 1, 0], [1, 1, 1]) == [[0, 1], [6, 7]]


def test_another_width_is_refused() -> None:
    with pytest.raises(UserError, match="Model returned hidden states of shape"):
        pool(torch.zeros(2, 3, 5), "mean")


def network_of(model: type[Decoder] | type[Encoder], pooling: Pooling) -> Network:
    generator = torch.Generator().manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 1, "width": 8, "context": 8, "vocab_size": 11}
    backbone = model(**sizes, tie_embeddings=False, generator=generator)  # type: ignore[arg-type]
    info = DataInfo(splits={}, mean_positions=1, num_classes=3)
    task = Classification(pooling=pooling)
    return Network(backbone=backbone, loss=CrossEntropy(), task=task, info=info, head_init=generator)


def batch_of(*texts: list[int]) -> Batch:
    return Classification().collate([{"text": torch.tensor(text), "label": 0} for text in texts])


def test_a_causal_model_whose_first_position_stands_for_the_text_is_told_of() -> None:
    text = longest_text(batch_of([1], [2, 3, 0], [4, 5]))
    assert text is not None and text.inputs["tokens"].tolist() == [[2, 3, 0]]
    with pytest.raises(Doubt, match="depends on its first token alone"):
        reads_more_than_the_first(network_of(Decoder, "first"), text)
    for model, pooling in ((Decoder, "mean"), (Decoder, "last"), (Encoder, "first")):
        network = network_of(model, pooling)  # type: ignore[arg-type]
        assert "more than the first" in reads_more_than_the_first(network, text) and network.training


def test_texts_of_one_token_say_nothing() -> None:
    assert longest_text(batch_of([1], [2])) is None
