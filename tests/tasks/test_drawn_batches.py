"""Hidden tokens in the batches of texts and rows: a function of seed and place, however the batch is shared out; in
evaluation the same for every run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from losslab.contracts import DataModule, Share, Task
from losslab.data.module import TextDataModule
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling
from losslab.tasks.mlm import MaskedLanguageModeling
from runs import make_text

CONTEXT = 16


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataModule]:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    lines = make_text(paragraphs=200).split("\n\n")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": line[: 3 + len(line) % 20]}) for line in lines))

    def prepared(kind: str, task: Task | None = None, *, seed: int = 1, **keys: object) -> DataModule:
        sizes = {"context": CONTEXT, "batch_size": 8, "val_batch_size": 4, "tokenizer": "bytes"}
        data: DataModule
        if kind == "rows":
            data = RowsDataModule(path=str(folder / "rows.jsonl"), **sizes)
        else:
            data = TextDataModule(path=str(folder / "book.txt"), documents="blank_line", rules=2, **sizes, **keys)
        data.seed = seed
        data.info = data.prepare(Path(folder / "cache"), task or MaskedLanguageModeling())
        return data

    return prepared


@pytest.mark.parametrize("kind", ["text", "rows"])
def test_train_draws_by_seed_and_place_however_a_batch_is_shared_out(kind: str, make) -> None:
    data, again, other = make(kind), make(kind), make(kind, seed=2)
    assert data.info.mask == data.info.vocab_size - 1 == 257
    assert data.hash_batches(4) == again.hash_batches(4) != other.hash_batches(4)
    rarer = make(kind, MaskedLanguageModeling(probability=0.05))
    assert rarer.hash_batches(4) != data.hash_batches(4), "the hash covers what is hidden"
    whole = data.train_batch(3, Share())
    assert (whole.inputs["tokens"] == data.info.mask).any()
    parts = [data.train_batch(3, Share(rank, 2, micro, 2)) for micro in range(2) for rank in range(2)]
    for read in (lambda batch: batch.inputs["tokens"], lambda batch: batch.target, lambda batch: batch.weight):
        rows = [row for part in parts for row in read(part)]
        for row, own in zip(rows, read(whole), strict=True):
            assert torch.equal(row, own[: len(row)])  # the rest is padding


@pytest.mark.parametrize("kind", ["text", "rows"])
def test_evaluation_hides_the_same_tokens_in_every_run(kind: str, make) -> None:
    data, other = make(kind), make(kind, seed=2)
    for ours, theirs in zip(data.eval_batches("val", Share()), other.eval_batches("val", Share()), strict=True):
        assert torch.equal(ours.inputs["tokens"], theirs.inputs["tokens"])
        assert torch.equal(ours.weight, theirs.weight)
        assert "bytes" not in ours.extras
    scored = [batch.weight.sum() for batch in data.eval_batches("val", Share())]
    on_ranks = [batch.weight.sum() for rank in range(2) for batch in data.eval_batches("val", Share(rank, 2))]
    assert sum(scored) == sum(on_ranks) > 0


def test_a_task_that_hides_nothing_has_the_batches_of_before(make) -> None:
    plain = make("text", LanguageModeling())
    assert plain.info.mask is None
    assert plain.info.vocab_size == 257
    packed = make("text", LanguageModeling(), packing="documents")
    first, second = plain.train_batch(2, Share()), packed.train_batch(2, Share())
    assert torch.equal(first.target, second.target)
    assert "segments" not in first.inputs
    assert second.inputs["segments"].max() > 0
    assert plain.hash_batches(3) != packed.hash_batches(3)
    lost = plain.info.splits["val"].positions - packed.info.splits["val"].positions
    assert lost == packed.cache.meta["documents"]["val"] - 1
    assert packed.info.splits["val"].words is None
    assert make("text", packing="documents").info.splits["val"].positions == plain.info.splits["val"].positions


def test_a_stride_goes_with_tasks_that_predict_what_follows(make) -> None:
    data = TextDataModule(path=str(Path(__file__)), context=CONTEXT, tokenizer="bytes", eval_stride=4)
    data.check_task(LanguageModeling())
    with pytest.raises(UserError, match=r"data.eval_stride=4 .* task=mlm reads .* both sides"):
        data.check_task(MaskedLanguageModeling())
    with pytest.raises(UserError, match=r"data.eval_stride must be from 1 to data.context=16"):
        TextDataModule(path=str(Path(__file__)), context=CONTEXT, eval_stride=17)
