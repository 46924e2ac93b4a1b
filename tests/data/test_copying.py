"""Copying and reversing: what is asked, that splits share nothing, and how answers are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.commands.train import train
from losslab.contracts import Share
from losslab.data.copying import BEGIN, END, MARKS, CopiedSequences
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.projection import OutputProjection
from losslab.records import read
from losslab.tasks.copying import Copying
from losslab.training.network import Network
from runs import find_runs

SMALL: dict[str, Any] = {"length": 4, "symbols": 5, "rows": 60, "eval_rows": 20, "batch_size": 6}


def prepare(tmp_path: Path, task: Copying, **options: Any) -> CopiedSequences:
    data = CopiedSequences(**(SMALL | options))
    data.info = data.prepare(tmp_path, task)
    return data


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_answers_stand_where_the_task_says(tmp_path: Path, causal: bool, reverse: bool) -> None:
    data = prepare(tmp_path, Copying(causal=causal), reverse=reverse)
    batch = data.train_batch(0, Share())
    for tokens, target, weight in zip(batch.inputs["tokens"], batch.target, batch.weight, strict=True):
        source = tokens[1:5]
        answer = source.flip(0) if reverse else source
        assert (source >= MARKS).all()
        expected = [BEGIN, *source.tolist(), END] + (answer[:-1].tolist() if causal else [])
        assert tokens.tolist() == expected
        assert target[weight != 0].tolist() == answer.tolist()
        first = 5 if causal else 1
        assert weight.nonzero()[:, 0].tolist() == list(range(first, first + 4))


def test_no_sequence_is_in_two_splits_and_none_depends_on_the_seed(tmp_path: Path) -> None:
    data = prepare(tmp_path, Copying())
    found = data.datasets()
    every = [tuple(source.tolist()) for split in found.values() for source, _ in split]
    assert len(set(every)) == len(every) == 100
    assert {symbol for sequence in every for symbol in sequence} == set(range(MARKS, MARKS + 5))
    again = CopiedSequences(**SMALL)
    again.seed = 7
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found["test"], again.datasets()["test"], strict=True))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"length": 0}, "data.length must be 1 or above"),
        ({"symbols": 1}, "data.symbols must be 2 or above"),
        ({"length": 2}, "100 sequences are asked for .* there are 25"),
        ({"batch_size": 0}, "data.batch_size must be above 0"),
    ],
)
def test_bad_sizes_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        CopiedSequences(**(SMALL | options))


class Guesses(nn.Module):
    """The answer itself as a one-hot hidden state, but for the second sequence's last symbol."""

    width = MARKS + 5

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["tokens"].clone()
        tokens[1, 4] = MARKS + (tokens[1, 4] - MARKS + 1) % 5
        return nn.functional.one_hot(tokens, self.width).float()

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        return OutputProjection(20 * torch.eye(num_outputs))


def test_one_wrong_symbol_makes_a_sequence_wrong(tmp_path: Path) -> None:
    task = Copying(causal=False)
    data = prepare(tmp_path, task)
    network = Network(backbone=Guesses(), loss=CrossEntropy(), task=task, info=data.info, head_init=torch.Generator())
    meter = task.meter(data.info, "test", {"scale": 1.0}, thorough=False)
    batch = data.train_batch(0, Share())
    for _ in range(2):
        network(batch, observer=meter.update)
    values = meter.values()
    assert values["exact_match"] == pytest.approx(5 / 6)
    assert values["top1"] == pytest.approx(23 / 24)
    assert set(values) <= {metric.name for metric in task.metrics}


def test_the_recipe_runs(workplace: Path) -> None:
    words = ["experiment=copying", "model=lstm", "data.length=4", "data.rows=50", "data.eval_rows=10"]
    words += ["trainer.max_steps=4", "trainer.val_check_interval=4", "model.width=16", "data.batch_size=4"]
    assert train([*words, "loggers=none", "trainer.threads=1", "scheduler.warmup_steps=1"]) == 0
    (run,) = find_runs(Path("outputs/copying"))
    assert 0 <= read(run).metrics["best"]["test/exact_match"] <= 1
