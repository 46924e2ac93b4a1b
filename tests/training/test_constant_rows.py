"""Hidden states of a constant model: computed once a row, and the same in whatever batch the row comes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import Batch, DataInfo
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.encoder import Encoder
from losslab.tasks.classification import Classification
from losslab.training.constant_rows import ConstantRows
from losslab.training.network import Network

V, C = 23, 3


class Counting(Encoder):
    """Counts the rows that it computes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            num_layers=2, num_heads=2, width=8, context=9, init_std=0.5, vocab_size=V,
            generator=torch.Generator().manual_seed(0), **settings,
        )  # fmt: skip
        self.rows = 0

    def forward(self, inputs: dict[str, Tensor], cache: Any = None) -> Tensor:
        self.rows += len(inputs["tokens"])
        return super().forward(inputs)


def rows(lengths: list[int], *, seed: int = 1) -> dict[str, Tensor]:
    tokens = torch.randint(V, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"tokens": tokens * mask, "mask": mask}


def part(inputs: dict[str, Tensor], chosen: list[int]) -> dict[str, Tensor]:
    longest = int(inputs["mask"][chosen].sum(dim=1).max())
    return {name: value[chosen, :longest] for name, value in inputs.items()}


def test_a_row_is_computed_once_and_differs_from_a_padded_one_by_rounding() -> None:
    model, inputs = Counting().eval().requires_grad_(False), rows([9, 2, 5, 5, 1])
    reader = ConstantRows(model)
    with torch.no_grad():
        expected = model(inputs)
    model.rows = 0
    found = reader(inputs)
    assert model.rows == 5 and not found.requires_grad and found.shape == expected.shape
    kept = inputs["mask"]
    torch.testing.assert_close(found[kept], expected[kept], atol=1e-6, rtol=0)
    assert not found[~kept].any()
    for chosen in ([4], [3, 1], [2, 0, 4]):  # bit for bit, in any batch, and of a reader that begins with it
        again, fresh = reader(part(inputs, chosen)), ConstantRows(model)(part(inputs, chosen))
        assert torch.equal(again, found[chosen, : again.shape[1]]) and torch.equal(again, fresh)
    assert model.rows == 5 + 1 + 2 + 3


def test_rows_that_no_memory_is_left_for_are_computed_each_time() -> None:
    model, inputs = Counting().eval().requires_grad_(False), rows([3, 4])
    reader = ConstantRows(model, most_bytes=3 * 8 * 4)
    first = reader(inputs)
    assert torch.equal(reader(inputs), first) and model.rows == 2 + 1


@pytest.mark.parametrize("kind", ["window", "padding first", "mixed"])
def test_other_inputs_are_read_as_ever(kind: str) -> None:
    class Reading(nn.Module):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            self.shape = inputs["tokens"].shape
            return torch.zeros(*self.shape, 2)

    model, inputs = Reading(), rows([4, 2])
    if kind == "window":
        del inputs["mask"]
    elif kind == "padding first":
        inputs["mask"] = inputs["mask"].flip(1)
    else:
        inputs["mixed_shares"] = torch.ones(2, 4, 2)
    assert ConstantRows(model)(inputs).shape == (2, 4, 2) and model.shape == (2, 4)  # type: ignore[arg-type]


def test_a_model_of_which_something_is_trained_is_not_constant() -> None:
    with pytest.raises(UserError, match="Counting declares constant = True, and"):
        ConstantRows(Counting())


@pytest.mark.parametrize("constant", [True, False])
def test_training_alone_reads_a_constant_model_once_a_row(constant: bool) -> None:
    model = Counting().requires_grad_(not constant)
    model.constant = constant  # type: ignore[assignment]
    network = Network(
        backbone=model, loss=CrossEntropy(), task=Classification(),
        info=DataInfo(splits={}, mean_positions=1, vocab_size=V, num_classes=C),
        head_init=torch.Generator().manual_seed(0),
    )  # fmt: skip
    batch = Batch(rows([9, 2, 5]), torch.tensor([0, 2, 1]), torch.ones(3), {})
    totals = [network(batch).total for _ in range(2)]
    assert model.rows == (3 if constant else 6) and torch.equal(*totals)
    totals[0].backward()
    assert network.projection.weight.grad is not None
    assert (model.embedding.weight.grad is None) == constant
    evaluated = network.eval()(batch).total
    assert model.rows == (6 if constant else 9)
    torch.testing.assert_close(evaluated, totals[0], atol=1e-5, rtol=0)
