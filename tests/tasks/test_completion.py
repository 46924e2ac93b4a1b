"""Language modelling over prompts: what is predicted, what is cut, and that prompts weigh nothing."""

from __future__ import annotations

import json

import pytest
import torch

from losslab.contracts import Batch, Share
from losslab.data.rows import RowsDataModule
from losslab.tasks.completion import Completion

END = 256
ROWS = [
    {"prompt": "ab", "completion": "xyz"},
    {"prompt": "", "completion": "q"},
    {"prompt": "abcdefgh", "completion": "xy"},
    {"prompt": "abcdefghijklmno", "completion": ""},
    {"prompt": "a", "completion": "uvwxyzuvwxyz"},
]


def prepared(tmp_path, task: Completion) -> RowsDataModule:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    path = str(tmp_path / "rows.jsonl")
    data = RowsDataModule(path=path, val_path=path, test_path=path, context=8, batch_size=5, val_batch_size=5)
    data.info = data.prepare(tmp_path / "cache", task)
    return data


def spelt(batch: Batch) -> list[tuple[str, str]]:
    """The text that the model reads of each row, and the one that it predicts; $ is the end of text."""
    rows = []
    for tokens, mask, target, weight in zip(
        batch.inputs["tokens"], batch.inputs["mask"], batch.target, batch.weight, strict=True
    ):
        rows.append(tuple("".join("$" if t == END else chr(t) for t in part.tolist())
                          for part in (tokens[mask], target[weight != 0])))  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("cut", "wanted"),
    [
        (
            "left",
            [("$abxyz", "xyz$"), ("$q", "q$"), ("cdefghxy", "xy$"), ("hijklmno", "$"), ("yzuvwxyz", "zuvwxyz$")],
        ),
        (
            "right",
            [("$abxyz", "xyz$"), ("$q", "q$"), ("$abcdefg", ""), ("$abcdefg", ""), ("$auvwxyz", "uvwxyzu")],
        ),
    ],
)
def test_the_completion_and_its_end_are_predicted_and_the_prompt_is_not(cut, wanted, tmp_path) -> None:
    data = prepared(tmp_path, Completion(cut=cut))
    (batch,) = data.eval_batches("test", Share())
    found = spelt(batch)
    assert found == wanted
    assert data.store.meta["truncated"]["test"] == 3
    lines = [line for line, is_note in data.introduction(0) if is_note]
    assert any("3 test sequences are longer than data.context=8" in line for line in lines)
    assert any("2 of 5 test rows have nothing to predict" in line for line in lines) == (cut == "right")
    assert torch.equal(batch.inputs["mask"].sum(dim=1), torch.tensor([len(read) for read, _ in found]))
