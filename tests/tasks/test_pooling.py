"""Pooling by hand: padding never counts, wherever it stands."""

from __future__ import annotations

import pytest
import torch

from losslab.errors import UserError
from losslab.tasks.pooling import Pooling, pooled

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
