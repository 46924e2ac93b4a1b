"""Splits of rows: shares by label, groups, own files; what is passed over is counted."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from losslab.data.row_splits import split_by_label
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.tasks.classification import Classification

SHARES = {"val": 0.1, "test": 0.2}


def prepare(path: Any, cache: Path, **settings: Any) -> RowsDataModule:
    data = RowsDataModule(path=path, **({"context": 32, "rules": 2} | settings))
    task = Classification()
    data.check_task(task)
    data.info = data.prepare(cache, task)
    return data


def texts(data: RowsDataModule, split: str) -> list[str]:
    rows = (data.store.row(split, i)["text"] for i in range(data.store.count(split)))
    return [bytes(t for t in tokens.tolist() if t < 256).decode() for tokens in rows]


def test_labels_are_in_each_split_as_in_all_rows() -> None:
    draw = random.Random(0)
    hashes = [draw.getrandbits(64) for _ in range(3000)]
    labels = draw.choices([f"c{i}" for i in range(30)], weights=range(1, 31), k=3000)
    found = split_by_label(hashes, labels, SHARES)
    whole, split = Counter(labels), Counter(zip(found, labels, strict=True))
    assert abs(found.count("val") - 300) <= 1 and abs(found.count("test") - 600) <= 1
    for label, count in whole.items():
        assert split["train", label] >= 1
        for name, share in SHARES.items():
            assert abs(split[name, label] - share * count) < 2
    order = draw.sample(range(3000), 3000)
    again = split_by_label([hashes[i] for i in order], [labels[i] for i in order], SHARES)
    assert again == [found[i] for i in order], "the order of the rows does not count"


def one_by_one(hashes: list[int], labels: list[str]) -> list[str]:
    """`split_by_label` as a plain loop over the hashes of each label."""
    frequency, size = Counter(labels), Counter(hashes)
    label_of: dict[int, str] = {}
    for value, label in zip(hashes, labels, strict=True):
        label_of[value] = min(label_of.get(value, label), label, key=lambda name: (frequency[name], name))
    chosen, seen, taken = dict.fromkeys(hashes, "train"), 0, dict.fromkeys(SHARES, 0)
    for label in sorted(set(labels)):
        rows, at = sorted(value for value in size if label_of[value] == label), 0
        seen += sum(size[value] for value in rows)
        for split, share in SHARES.items():
            while at < len(rows) - 1 and taken[split] + size[rows[at]] / 2 <= share * len(labels) / len(labels) * seen:
                chosen[rows[at]] = split
                taken[split] += size[rows[at]]
                at += 1
    return [chosen[value] for value in hashes]


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_the_splits_are_those_of_a_loop(kinds: int) -> None:
    draw = random.Random(kinds)
    values = [draw.getrandbits(64) for _ in range(250)]
    hashes = draw.choices(values, weights=[draw.random() ** 4 for _ in values], k=1000)
    labels = draw.choices([f"c{i}" for i in range(kinds)], weights=[draw.random() ** 3 for _ in range(kinds)], k=1000)
    assert split_by_label(hashes, labels, SHARES) == one_by_one(hashes, labels)


def test_rows_of_equal_inputs_stay_together_and_rare_labels_in_train() -> None:
    hashes = [i // 4 for i in range(400)]
    labels = ["often"] * 396 + ["rare", "often", "often", "often"]
    found = split_by_label(hashes, labels, SHARES)
    assert all(len(set(found[i : i + 4])) == 1 for i in range(0, 400, 4))
    assert found[396] == "train"
    assert found.count("val") == 40 and found.count("test") == 80


def lines(count: int, label: str = "ab") -> str:
    return "text,label,user\n" + "".join(f"row {i},{label[i % len(label)]},u{i % 13}\n" for i in range(count))


def test_files_named_after_splits_are_splits(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text("no rows")
    for name, count in (("train", 40), ("test", 50)):
        (folder / f"{name}.csv").write_text(lines(count))
    data = prepare(str(folder), tmp_path)
    assert data.store.meta["rows"] == {"train": 30, "val": 10, "test": 50}
    assert data.store.meta["how"] == "test its own; of the rest, each row's hash decides, within each label"
    task, files = Classification(), [str(folder / "train.csv"), str(folder / "test.csv")]
    named = RowsDataModule(path=files[0], test_path=files[1], context=32, rules=2)
    assert data.content_hashes(task) == named.content_hashes(task), "the same rows, however they are named"
    assert RowsDataModule(path=files, context=32, rules=1).source.splits() == ("train",)
    with pytest.raises(UserError, match=r"brings a split test along \(test.csv\), and data.test_path"):
        RowsDataModule(path=str(folder), test_path=__file__, format="csv", context=32, rules=2)
    (folder / "more.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"holds 1 .jsonl and 2 .csv files, perhaps the same rows twice"):
        prepare(str(folder), tmp_path)


def test_rows_of_a_group_stay_in_one_split(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(lines(390))
    data = prepare(str(path), tmp_path, group="user", val_fraction=0.2, test_fraction=0.2)
    users = [{int(text.split()[1]) % 13 for text in texts(data, split)} for split in ("train", "val", "test")]
    assert sum(map(len, users)) == 13 and all(users)
    assert data.store.meta["how"] == "the hash of user decides: its rows stay together"
    assert data.store.meta["grouped"] == {"val": 0, "test": 0}
    other = tmp_path / "test.csv"
    other.write_text("text,label,user\nnew row,a,u3\nnewer row,b,u99\nnewest,a,\n")
    data = prepare(str(path), tmp_path, group="user", test_path=str(other))
    assert data.store.meta["grouped"] == {"val": 0, "test": 1}
    assert ("1 of 3 test rows are of a group that an earlier split has, too", True) in list(data.introduction(0))
    with pytest.raises(UserError, match=r"data.group=who: .*a.csv has no such column, but 'text', 'label', 'user'"):
        prepare(str(path), tmp_path, group="who")
    with pytest.raises(UserError, match=r"data.group=user keeps rows in one split, and val and test have"):
        prepare(str(path), tmp_path, group="user", val_path=str(path), test_path=str(path), rules=1)


def test_what_is_passed_over_is_counted_printed_and_recorded(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(lines(100) + "\n ,a,u\n\n,b,u\nmore,,u\nNA,a,u\n")
    with pytest.raises(UserError, match=r"line 106 cannot be used: its label must be .*; data.unlabelled=skip"):
        prepare(str(path), tmp_path)
    data = prepare(str(path), tmp_path, unlabelled="skip")
    skipped = {"blank lines": 2, "rows with an empty text": 2, "rows without a target": 1}
    assert data.summary()["skipped"] == skipped and sum(data.store.meta["rows"].values()) == 101
    told = "       left out: 2 blank lines · 2 rows with an empty text · 1 rows without a target"
    assert (told, False) in list(data.introduction(0))
    kept = prepare(str(path), tmp_path, unlabelled="skip", rules=1)
    assert sum(kept.store.meta["rows"].values()) == 103, "rules 1 keep empty texts"


def test_a_column_has_one_use(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,c\n")
    for columns in ({"label": "text"}, {"text": "label"}):
        (name, column), *_ = columns.items()
        with pytest.raises(UserError, match=f"data.columns.{name}={column}: that column is {column} already, and a "):
            RowsDataModule(path=str(path), columns=columns, context=32).check_task(Classification())
