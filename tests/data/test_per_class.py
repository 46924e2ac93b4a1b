"""A few rows of each class of train, and the token before texts that a pretrained model wants."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from losslab.data.augmentation import Augmentation
from losslab.data.begin_token import begin_of
from losslab.data.columns import restored
from losslab.data.per_class import PerClass
from losslab.data.row_changes import RowChanges
from losslab.data.rows import RowsDataModule
from losslab.data.tokenizer import FileTokenizer, artifacts_of, tokenizer_of
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.tasks.regression import Regression
from tiny_pretrained import save_bert

COUNTS = {"good": 90, "bad": 60, "odd": 5}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = random.Random(0)
    folder = tmp_path_factory.mktemp("rows")
    rows = [("".join(draws.choices("abcdef", k=6)), label) for label, count in COUNTS.items() for _ in range(count)]
    for split, part in (("train", rows), ("val", rows[::9]), ("test", rows[::7])):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    return folder


def prepared(table: Path, tmp_path: Path, *, seed: int = 1, task: Classification | None = None, **keys: object):  # type: ignore[no-untyped-def]
    data = RowsDataModule(path=str(table), context=16, rules=2, **keys)  # type: ignore[arg-type]
    data.seed = seed
    data.info = data.prepare(tmp_path, task or Classification())
    return data


def test_train_has_so_many_rows_of_each_class(table: Path, tmp_path: Path) -> None:
    data = prepared(table, tmp_path, per_class=10)
    assert data.info.splits["train"].samples == 25 and data.info.class_counts.tolist() == [10, 10, 5]
    assert data.info.splits["test"].positions == len(range(0, 155, 7))
    seen = {tuple(row.tolist()) for step in range(2) for row in data.train_batch(step, _whole()).inputs["tokens"]}
    whole = prepared(table, tmp_path)
    assert whole.info.splits["train"].samples == 155 and len(seen) <= 25
    assert "25 of 155 rows of train: 10 of each of 3 classes; 1 classes have fewer" in " ".join(
        line for line, _ in data.introduction(0)
    )
    assert data.summary()["per_class"] == 10 and data.summary()["chosen"] == 25


def _whole():  # type: ignore[no-untyped-def]
    from losslab.contracts import Share

    return Share()


def test_the_choice_is_a_function_of_the_seed(table: Path, tmp_path: Path) -> None:
    one, again, other = (prepared(table, tmp_path, seed=seed, per_class=10).store for seed in (1, 1, 2))
    assert np.array_equal(one.hashes["train"], again.hashes["train"])
    assert not np.array_equal(one.hashes["train"], other.hashes["train"])
    fixed = [prepared(table, tmp_path, seed=seed, per_class=10, per_class_seed=5).store for seed in (1, 2)]
    assert np.array_equal(fixed[0].hashes["train"], fixed[1].hashes["train"])
    fewer = prepared(table, tmp_path, per_class=4).store
    assert set(fewer.hashes["train"]) < set(one.hashes["train"])
    kept = {(*one.row("train", i)["text"].tolist(), one.row("train", i)["label"]) for i in range(25)}
    whole = prepared(table, tmp_path).store
    assert kept <= {(*whole.row("train", i)["text"].tolist(), whole.row("train", i)["label"]) for i in range(155)}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"per_class": 0}, "per_class must be above 0"),
        ({"per_class_seed": 1}, "per_class_seed goes with data.per_class"),
        ({"per_class": 1, "per_class_seed": -1}, "per_class_seed must be 0 or above"),
        ({"special_tokens": True}, "bytes has none"),
    ],
)
def test_values_that_cannot_be_are_refused(keys: dict[str, int], told: str, table: Path) -> None:
    with pytest.raises(UserError, match=told):
        RowsDataModule(path=str(table), context=16, **keys)  # type: ignore[arg-type]


def test_a_task_of_values_has_no_classes_to_count() -> None:
    with pytest.raises(UserError, match="the target of task=regression is none"):
        PerClass(3).check_columns(Regression().columns, "task=regression")


def test_texts_begin_and_end_as_the_pretrained_tokenizer_has_it(table: Path, tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    path = str(tmp_path / "bert/tokenizer.json")
    keys = {"tokenizer": path, "special_tokens": True}
    batch = prepared(table, tmp_path, **keys).train_batch(0, _whole())
    assert set(batch.inputs["tokens"][:, 0].tolist()) == {2}
    assert prepared(table, tmp_path, tokenizer=path).train_batch(0, _whole()).inputs["tokens"][0, 0] != 2

    from tokenizers import Tokenizer

    theirs, ours = Tokenizer.from_file(path), FileTokenizer.read(path, begins=True)
    kept, plain = (tokenizer_of(artifacts_of(each)) for each in (ours, FileTokenizer.read(path)))
    assert (ours.begin, kept and kept.begin, plain and plain.begin) == (2, 2, None)
    task, rows = Classification(pair=True), [{"text": "abc de", "text_pair": "fg", "label": "odd"}]
    for context in (16, 7):
        theirs.enable_truncation(context)
        info = prepared(table, tmp_path, **keys).info
        encoded, longer = restored(task.columns, context, info, task.joined).encode(rows)
        example = {name: column[0] for name, column in encoded.items()}
        inputs = task.collate([example]).inputs
        expected = theirs.encode("abc de", "fg")
        assert inputs["tokens"][0].tolist() == expected.ids and inputs["types"][0].tolist() == expected.type_ids
        assert longer == (context == 7)
        single, _ = restored(Classification().columns, context, info).encode(rows)
        assert single["text"][0].tolist() == theirs.encode("abc de").ids  # type: ignore[union-attr]


def test_augmentation_leaves_the_token_before_a_text_alone(tmp_path: Path) -> None:
    save_bert(tmp_path)
    tokenizer = FileTokenizer.read(str(tmp_path / "tokenizer.json"), begins=True)
    augmentation = Augmentation.of({"masking": 0.9, "deletion": 0.9, "word_swap": 0.5})
    changes = RowChanges(augmentation, {"text": "text", "label": "label"}, tokenizer, 1, context=16)
    tokens = torch.tensor([2, *range(5, 12), 3])
    for place in range(20):
        changed = changes({"text": tokens, "label": 0}, place)["text"]
        assert changed[0] == 2 and changed[-1] == 3


@pytest.mark.parametrize(
    ("processor", "begin"),
    [
        ("null", None),
        ('{"type": "ByteLevel"}', None),
        ('{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}', 2),
        ('{"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}', 0),
        (
            '{"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": '
            '[{"SpecialToken": {"id": "<s>", "type_id": 0}}], "special_tokens": {"<s>": {"ids": [1]}}}]}',
            1,
        ),
        ('{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}], "special_tokens": {}}', None),
    ],
)
def test_the_begin_is_what_the_post_processor_puts_there(processor: str, begin: int | None) -> None:
    assert begin_of(f'{{"post_processor": {processor}}}') == begin
