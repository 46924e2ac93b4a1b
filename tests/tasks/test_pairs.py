"""Pairs of texts: one sequence, cut longest-first, and told apart by types."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import losslab
from losslab.data.text_columns import encode_texts, longest_cut
from losslab.data.tokenizer import ByteTokenizer
from losslab.errors import UserError
from losslab.tasks.pairs import text_inputs
from runs import only_run

END = ByteTokenizer().end


def cut_one_by_one(lengths: list[int], room: int) -> list[int]:
    """The longest loses a token, the first of several, until all fit."""
    kept = list(lengths)
    while sum(kept) > room:
        kept[kept.index(max(kept))] -= 1
    return kept


@pytest.mark.parametrize("room", [2, 3, 6, 7, 11, 30])
@pytest.mark.parametrize("lengths", [[5, 5], [1, 9], [9, 1], [0, 8], [8, 3], [4, 7, 9], [3]])
def test_the_longest_are_cut_first(lengths: list[int], room: int) -> None:
    kept = longest_cut(lengths, room)
    assert sum(kept) == min(sum(lengths), room)
    assert sorted(kept) == sorted(cut_one_by_one(lengths, room))
    assert all(k <= n for k, n in zip(kept, lengths, strict=True))


def test_each_text_of_a_pair_keeps_its_end_and_a_text_alone_does_not() -> None:
    rows = [{"a": "abcdef", "b": "xy", "c": "0123456789"}, {"a": "a", "b": "b", "c": ""}]
    found, longer = encode_texts(["a", "b", "c"], ["a", "b"], rows, ByteTokenizer(), 8)
    by_row = {name: np.split(tokens.values, tokens.counts.cumsum()[:-1]) for name, tokens in found.items()}
    assert [tokens.tolist() for tokens in by_row["a"]] == [[*b"abcd", END], [*b"a", END]]
    assert [tokens.tolist() for tokens in by_row["b"]] == [[*b"xy", END], [*b"b", END]]
    assert [tokens.tolist() for tokens in by_row["c"]] == [[*b"01234567"], [END]]
    assert longer == 2
    with pytest.raises(UserError, match="context=3 has no room for a and b"):
        encode_texts(["a", "b", "c"], ["a", "b"], rows, ByteTokenizer(), 3)


def test_types_are_1_in_the_second_text_alone() -> None:
    examples = [
        {"text": torch.tensor([1, 2]), "text_pair": torch.tensor([3])},
        {"text": torch.tensor([4]), "text_pair": torch.tensor([5, 6, 7])},
    ]
    inputs = text_inputs(examples, pair=True)
    assert inputs["tokens"].tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]
    assert inputs["types"].tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]
    assert inputs["mask"].tolist() == [[True, True, True, False], [True, True, True, True]]
    assert text_inputs(examples, pair=False).keys() == {"tokens", "mask"}


def test_pairs_are_trained_on_and_predicted(run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with Path("pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["premise", "hypothesis", "label"])
        writer.writerows([f"a{i}", "word " * (i % 12), "yes" if i % 3 else "no"] for i in range(300))
    words = ["task=classification", "task.pair=true", "data=csv", "data.path=pairs.csv", "data.columns.text=premise"]
    assert run_tiny(*words) == 2
    assert "no such column, but 'premise', 'hypothesis', 'label'" in capsys.readouterr().err
    assert run_tiny(*words, "data.columns.text_pair=hypothesis", "trainer.max_steps=4") == 0
    assert "sequences are longer than data.context=32 and were cut off" in capsys.readouterr().err
    path, record = only_run(Path("outputs/runs"))
    assert record.status == "completed"
    rows = [{"premise": "a1", "hypothesis": "word"}, {"premise": "", "hypothesis": "word " * 20}]
    told = losslab.load(path).predict(rows)
    assert {row["predicted"] for row in told} <= {"yes", "no"}
    with pytest.raises(UserError, match="row 1 has no column 'hypothesis'"):
        losslab.load(path).predict([{"premise": "a"}])
