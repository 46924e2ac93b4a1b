"""The data module for rows: kinds of columns, splits by hash, vocabularies of train, batches and refusals."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from losslab.contracts import Batch, Share, padded
from losslab.data.row_splits import split_rows
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling
from losslab.tasks.tagging import Tagging

COLORS = ("red", "green", "blue")


class Rows(LanguageModeling):
    """A task of rows; of its batches the tests read inputs, targets and weights alone."""

    of_stream = False
    columns: Mapping[str, Any] = {"text": "text", "label": "label"}

    def collate(self, examples: Sequence[Any]) -> Batch:
        tokens, mask = padded([example["text"] for example in examples])
        target = torch.tensor([example["label"] for example in examples])
        return Batch({"tokens": tokens, "mask": mask}, target, torch.ones(len(examples)), {})


class Tags(Rows):
    columns: Mapping[str, Any] = {"words": "words", "tags": "tags"}

    def collate(self, examples: Sequence[Any]) -> Batch:
        words, mask = padded([example["words"] for example in examples])
        tags, _ = padded([example["tags"] for example in examples])
        return Batch({"tokens": words, "mask": mask}, tags, mask.float(), {})


class Values(Rows):
    columns: Mapping[str, Any] = {"text": "text", "score": "value"}

    def collate(self, examples: Sequence[Any]) -> Batch:
        tokens, mask = padded([example["text"] for example in examples])
        target = torch.tensor([[example["score"]] for example in examples])
        return Batch({"tokens": tokens, "mask": mask}, target, torch.ones(len(examples)), {})


def row(i: int) -> dict[str, Any]:
    return {
        "text": f"row {i} is {COLORS[i % 3]}",
        "label": COLORS[i % 3],
        "score": i / 8,
        "words": [f"w{i % 7}", *["and", COLORS[i % 3]][: i % 3]],
        "tags": ["N", *["O", "A"][: i % 3]],
    }


@pytest.fixture
def write(tmp_path: Path):
    """Write rows as JSON lines; returns the path."""

    def write_rows(rows: Iterable[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(found) + "\n" for found in rows))
        return str(path)

    return write_rows


def prepare(path: str, cache: Path, task: Any = None, **settings: Any) -> RowsDataModule:
    data = RowsDataModule(path=path, **({"context": 64, "batch_size": 6, "val_batch_size": 4} | settings))
    task = task or Rows()
    data.check_task(task)
    data.seed = 3
    data.info = data.prepare(cache, task)
    return data


def texts(data: RowsDataModule, batches: Iterable[Batch]) -> list[str]:
    return [
        bytes(t for t in tokens[mask].tolist() if t < 256).decode()
        for batch in batches
        for tokens, mask in zip(batch.inputs["tokens"], batch.inputs["mask"], strict=True)
    ]


def everything(data: RowsDataModule) -> dict[str, list[str]]:
    train = [data.store.row("train", i)["text"] for i in range(data.store.count("train"))]
    found = {"train": [bytes(t for t in tokens.tolist() if t < 256).decode() for tokens in train]}
    return found | {split: texts(data, data.eval_batches(split, Share())) for split in ("val", "test")}


def test_every_row_is_in_one_split(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path)
    found = everything(data)
    assert Counter(text for split in found.values() for text in split) == Counter(row(i)["text"] for i in range(300))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 150, "val": 75, "test": 75}
    assert data.info.splits["val"]._replace(words=None) == (75, 75, "sample", None, None)


def test_labels_are_classes_in_the_order_of_their_names(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path)
    assert data.info.num_classes == 3
    assert json.loads(data.info.artifacts["labels.json"]) == {"label": ["blue", "green", "red"]}
    for batch in data.eval_batches("test", Share()):
        for text, target in zip(texts(data, [batch]), batch.target.tolist(), strict=True):
            assert text.endswith(["blue", "green", "red"][target])
    counts = Counter(text.rpartition(" ")[2] for text in everything(data)["train"])
    assert data.info.class_counts is not None
    assert data.info.class_counts.tolist() == [counts[name] for name in ("blue", "green", "red")]
    assert data.info.class_counts.dtype == torch.float64


def test_whole_numbers_are_ordered_by_size(write, tmp_path) -> None:
    data = prepare(write({"text": f"t{i}", "label": i % 12} for i in range(400)), tmp_path)
    assert json.loads(data.info.artifacts["labels.json"])["label"] == [str(i) for i in range(12)]


def test_own_splits_are_kept_and_copies_counted(write, tmp_path) -> None:
    train = write(map(row, range(100)))
    val, test = write(map(row, range(90, 110)), "val.jsonl"), write(map(row, range(105, 125)), "test.jsonl")
    data = prepare(train, tmp_path, val_path=val, test_path=test)
    found = everything(data)
    assert found["train"] == [row(i)["text"] for i in range(100)]
    assert found["val"] == [row(i)["text"] for i in range(90, 110)]
    assert data.store.meta["copies"] == {"val": 10, "test": 5}
    lines = list(data.introduction(0))
    assert ("10 of 20 val rows have inputs that an earlier split has as well", True) in lines
    assert data.summary()["copies"] == {"val": 10, "test": 5}


def test_equal_inputs_fall_into_one_split_whatever_their_label(write, tmp_path) -> None:
    rows = [{"text": f"t{i % 100}", "label": str(i % 2)} for i in range(400)]
    found = everything(prepare(write(rows), tmp_path, val_fraction=0.2, test_fraction=0.1))
    sets = {split: set(found[split]) for split in found}
    assert not (sets["train"] & sets["val"] or sets["train"] & sets["test"] or sets["val"] & sets["test"])
    assert sum(map(len, found.values())) == 400 and 80 <= len(found["val"]) <= 90 and 40 <= len(found["test"]) <= 50


def test_splits_follow_the_hash_and_not_the_order() -> None:
    hashes = [(i * 7919) % 1009 for i in range(1000)]
    split = split_rows(hashes, {"val": None, "test": 0.25})
    assert Counter(split) == {"val": 100, "test": 250, "train": 650}
    assert split_rows(hashes[::-1], {"val": None, "test": 0.25}) == split[::-1]


def test_a_pass_over_train_visits_each_row_once_and_the_next_in_another_order(write, tmp_path) -> None:
    data = prepare(write(map(row, range(240))), tmp_path)
    assert data.store.count("train") == 120
    passes = [[data.train_batch(20 * n + k, Share()) for k in range(20)] for n in range(2)]
    first, second = (texts(data, batches) for batches in passes)
    assert sorted(first) == sorted(second) == sorted(everything(data)["train"])
    assert first != second
    data.seed = 4
    assert texts(data, [data.train_batch(0, Share())]) != first[:6]


@pytest.mark.parametrize(("ranks", "micros"), [(2, 1), (3, 1), (1, 3), (3, 2)])
def test_ranks_and_micro_batches_share_a_step(ranks: int, micros: int, write, tmp_path) -> None:
    data = prepare(write(map(row, range(240))), tmp_path)
    whole = texts(data, [data.train_batch(7, Share())])
    parts = [data.train_batch(7, Share(r, ranks, m, micros)) for m in range(micros) for r in range(ranks)]
    assert texts(data, parts) == whole


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_row_is_scored_once(ranks: int, write, tmp_path) -> None:
    data = prepare(write(map(row, range(240))), tmp_path)
    batches = [batch for r in range(ranks) for batch in data.eval_batches("val", Share(r, ranks))]
    ids = [i for batch in batches for i in batch.extras["id"].tolist()]
    assert sorted(ids) == list(range(60))
    assert sum(int(batch.extras["fit"].sum()) for batch in batches) == 30
    assert all(batch.extras["unit"].tolist() == batch.extras["id"].tolist() for batch in batches)
    fit = {i for b in data.eval_batches("val", Share(), "fit") for i in b.extras["id"].tolist()}
    assert fit == {
        i for b in batches for i, f in zip(b.extras["id"].tolist(), b.extras["fit"].tolist(), strict=True) if f
    }


def test_a_part_is_a_part_of_more(write, tmp_path) -> None:
    data = prepare(write(map(row, range(240))), tmp_path)
    parts = [
        {i for batch in data.eval_batches("val", Share(), "all", most) for i in batch.extras["id"].tolist()}
        for most in (1, 10, 30, None)
    ]
    assert [len(part) for part in parts] == [2, 10, 30, 60]
    assert all(less <= more for less, more in itertools.pairwise(parts))


def test_tags_go_with_words(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path, Tags())
    words = json.loads(data.info.artifacts["words.json"])
    assert data.info.vocab_size == len(words) + 1 and words[0] == "and"
    assert data.info.num_classes == 3 and json.loads(data.info.artifacts["labels.json"]) == {"tags": ["A", "N", "O"]}
    sizes = [1 + i % 3 for i in range(300)]
    assert data.info.splits["val"].positions + data.info.splits["test"].positions < sum(sizes)
    assert 1 < data.info.mean_positions < 3
    for batch in data.eval_batches("val", Share()):
        inside = batch.weight != 0
        assert batch.extras["id"].shape == batch.weight.shape
        for word, tag in zip(batch.inputs["tokens"][inside].tolist(), batch.target[inside].tolist(), strict=True):
            name = "unknown" if word == 0 else words[word - 1]
            assert "ANO"[tag] == ("O" if name == "and" else "A" if name in COLORS else "N")


def test_words_that_have_no_id_are_unknown(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path, Tags(), vocab_size=3)
    assert data.info.vocab_size == 3
    batch = data.train_batch(0, Share())
    assert set(batch.inputs["tokens"][batch.weight != 0].tolist()) == {0, 1, 2}


def test_values_are_numbers(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path, Values())
    assert (data.info.num_values, data.info.num_classes, data.info.class_counts) == (1, None, None)
    for batch in data.eval_batches("val", Share()):
        numbers = [int(text.split()[1]) / 8 for text in texts(data, [batch])]
        assert batch.target.flatten().tolist() == numbers


def test_long_text_is_cut_and_counted(write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path, context=12)
    assert sum(data.store.meta["truncated"].values()) == sum(len(row(i)["text"]) + 1 > 12 for i in range(300))
    assert max(batch.inputs["tokens"].shape[1] for batch in data.eval_batches("val", Share())) == 12
    assert any("longer than data.context=12" in line and is_note for line, is_note in data.introduction(0))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_tokenizer_is_an_artifact(tokenizer: str, write, tmp_path) -> None:
    data = prepare(write(map(row, range(300))), tmp_path, tokenizer=tokenizer, vocab_size=280)
    assert data.info.vocab_size == {"bytes": 257, "bpe": 280}[tokenizer]
    name = {"bytes": "tokenizer.bytes", "bpe": "tokenizer.json"}[tokenizer]
    assert set(data.info.artifacts) == {name, "labels.json"}


def test_what_was_encoded_is_opened_and_rows_are_not_read_again(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.stamps._SETTLED", 0)
    path = write(map(row, range(240)))
    first = prepare(path, tmp_path)
    batches = first.hash_batches(5)
    monkeypatch.setattr("losslab.data.row_files.rows_of", None)
    again = prepare(path, tmp_path)
    assert again.hash_batches(5) == batches
    assert again.info.splits == first.info.splits and again.info.artifacts == first.info.artifacts


def test_hashes_are_of_the_content(write, tmp_path) -> None:
    one, two = write(map(row, range(240))), write(map(row, range(240)), "copy.jsonl")
    other = write(map(row, range(241)), "other.jsonl")
    hashes = [RowsDataModule(path=path, context=8).content_hashes(Rows()) for path in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    with_val = RowsDataModule(path=one, val_path=two, context=8).content_hashes(Rows())
    assert with_val.keys() == {"data.path", "data.val_path"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": None}, "data.path is missing"),
        ({"context": 0}, "data.context must be above 0"),
        ({"batch_size": 0}, "data.batch_size must be above 0"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"val_fraction": 1.0}, "data.val_fraction must be above 0 and below 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"columns": {"text": 3}}, "data.columns.text must be the name of a column, not 3"),
        ({"delimiter": ",,"}, "one character"),
        ({"tokenizer": "none.json"}, "none.json"),
        ({"val_path": "none.csv"}, "data.val_path=none.csv does not exist"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], sentence: str, write) -> None:
    with pytest.raises(UserError, match=sentence):
        RowsDataModule(**({"path": write([row(0)]), "context": 8} | changes))


class Stranger(Rows):
    columns: Mapping[str, Any] = {"text": "text", "label": "class"}


class Both(Rows):
    columns: Mapping[str, Any] = {"text": "text", "words": "words"}


class Unread(Rows):
    columns: Mapping[str, Any] = {"label": "label"}


class Wordless(Rows):
    columns: Mapping[str, Any] = {"text": "text", "tags": "tags"}


@pytest.mark.parametrize(
    ("task", "settings", "sentence"),
    [
        (LanguageModeling(), {}, "task=lm reads no rows"),
        (Rows(), {"columns": {"txt": "text"}}, "no key 'data.columns.txt': task=Rows has data.columns.text, data.col"),
        (Rows(), {"columns": {"label": "kind"}}, "data.columns.label=kind: .*'text', 'label'"),
        (Stranger(), {}, "declares its column 'label' as 'class', and the kinds are text, words"),
        (Both(), {}, "text and of words, and a model has one vocabulary"),
        (
            Tagging(),
            {"tokenizer": "bpe"},
            r"tokenizer=bpe cuts texts, and task=tagging reads words that have an id each",
        ),
        (Unread(), {"tokenizer": "bpe"}, "data.tokenizer=bpe cuts texts, and task=Unread reads none: leave it out"),
        (Wordless(), {}, "tags, which goes with one column of words"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task, settings: dict[str, Any], sentence: str, write) -> None:
    with pytest.raises(UserError, match=sentence):
        RowsDataModule(path=write([row(0)]), context=8, **settings).check_task(task)


@pytest.mark.parametrize(
    ("task", "change", "sentence"),
    [
        (Rows(), {"text": None}, "line 31 cannot be used: its text must be text, not None"),
        (Rows(), {"label": ""}, "line 31 cannot be used: its label must be a label"),
        (Rows(), {"label": 1.5}, "its label must be a label"),
        (Values(), {"score": "nan"}, "its score must be a finite number, not 'nan'"),
        (Values(), {"score": True}, "its score must be a finite number, not True"),
        (Tags(), {"tags": ["N"] * 9}, "it has 1 words and 9 tags: each word has one"),
        (Tags(), {"words": []}, "its words must be a list of words, at least one"),
        (Tags(), {"words": ["a", 2]}, "its words must be a list of words"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(task, change: dict[str, Any], sentence: str, write, tmp_path) -> None:
    rows = [row(i) | (change if i == 30 else {}) for i in range(100)]
    with pytest.raises(UserError, match=sentence):
        prepare(write(rows), tmp_path, task)


@pytest.mark.parametrize(
    ("rows", "val", "sentence"),
    [
        (range(3), None, "rows.jsonl.*: too few rows: the (train|val) split has"),
        (range(0, 300, 3), None, "every row of train has the same label"),
        (
            range(100),
            [row(200) | {"label": "pink"}, row(201)],
            r"line 1: no row of train has the label 'pink'.*\(val\)",
        ),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(rows, val, sentence: str, write, tmp_path) -> None:
    settings = {} if val is None else {"val_path": write(val, "val.jsonl")}
    with pytest.raises(UserError, match=sentence):
        prepare(write(map(row, rows)), tmp_path, **settings)


def test_csv_cells_hold_lists_between_white_space(tmp_path) -> None:
    (tmp_path / "rows.csv").write_text(
        "words,tags\n" + "".join(f"{' '.join(row(i)['words'])},{' '.join(row(i)['tags'])}\n" for i in range(300))
    )
    data = prepare(str(tmp_path / "rows.csv"), tmp_path, Tags())
    assert json.loads(data.info.artifacts["labels.json"]) == {"tags": ["A", "N", "O"]}
