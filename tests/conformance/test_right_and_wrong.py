"""Right losses pass; of wrong ones the cause is named."""

from __future__ import annotations

import re

import pytest
import torch
from right_losses import RIGHT
from wrong_losses import WRONG, ReturnsMean

from losslab.conformance import check
from losslab.conformance.kit import examine
from losslab.losses.base import Loss
from losslab.losses.entmax import entmax


@pytest.mark.parametrize("loss", RIGHT, ids=lambda loss: loss.__name__)
def test_right_ones_pass(loss: type[Loss]) -> None:
    check(loss())


@pytest.mark.parametrize(("loss", "name", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_the_cause_of_wrong_ones_is_named(loss: type[Loss], name: str, said: str) -> None:
    faults = {result.check: result.said for result in examine(loss()) if not result.passed}
    assert re.search(said, faults.get(name, "")), faults


def test_where_the_first_fails_the_others_do_not_repeat_it() -> None:
    assert len(examine(ReturnsMean())) == 1


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_entmax_of_nan_is_nan(alpha: float) -> None:
    p = entmax(torch.tensor([[0.0, 1.0, 2.0], [0.0, torch.nan, 2.0]]), alpha)
    assert p.isnan().tolist() == [[False] * 3, [True] * 3]
    assert entmax(torch.full((1, 3), torch.nan), alpha).isnan().all()
