"""Rows of the datasets library out of folders; what cannot be loaded is one sentence. The hub is never asked."""

import sys
from pathlib import Path

import pytest

from losslab.data.hf import HfRows
from losslab.data.row_reading import Reading
from losslab.data.table_format import Skipped
from losslab.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set as save_to_disk writes it, with names of labels; test holds its labels back."""
    label = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label, "all": datasets.List(label)})

    def table(count: int, held_back: bool = False) -> datasets.Dataset:
        columns = {"text": [f"row {i}" for i in range(count)], "all": [[i % 2, 0] for i in range(count)]}
        columns |= {"label": [-1 if held_back else i % 2 for i in range(count)]}
        return datasets.Dataset.from_dict(columns, features=features)

    path = tmp_path_factory.mktemp("hf") / "set"
    datasets.DatasetDict(train=table(20), validation=table(4), test=table(3, held_back=True)).save_to_disk(path)
    return path


def test_names_of_labels_are_the_labels(folder, tmp_path) -> None:
    source = HfRows(path=str(folder))
    assert source.splits() == ("train", "val", "test")
    assert source.columns("train") == [(f"{folder}, train", ["text", "all", "label"])]
    place, row = list(source.rows("train", ["text", "label", "all"], Skipped()))[1]
    assert (place, row) == (f"{folder}, train: row 2", {"text": "row 1", "label": "good", "all": ["good", "bad"]})
    columns = {"text": "text", "label": "label"}
    with pytest.raises(UserError, match=r"set, test: row 1 cannot be used: its label.*data.unlabelled=skip"):
        Reading().read(source, columns, tmp_path)
    rows = Reading().read(HfRows(path=str(folder), test="none"), columns, tmp_path)
    assert {split: len(found) for split, found in rows.rows.items()} == {"train": 15, "val": 4, "test": 5}


def test_the_hash_is_of_the_rows_wherever_they_lie(folder, tmp_path) -> None:
    whole = HfRows(path=str(folder)).hashes(None)
    datasets.load_from_disk(str(folder)).save_to_disk(
        tmp_path / "copy", num_shards={"train": 3, "validation": 1, "test": 1}
    )
    assert HfRows(path=str(tmp_path / "copy")).hashes(None) == whole
    assert HfRows(path=str(folder), test="none").hashes(None) != whole
    assert whole.keys() == {"data.source"}


def test_what_cannot_be_loaded_is_one_sentence(folder, tmp_path, monkeypatch) -> None:
    with pytest.raises(
        UserError, match=r"has no split 'training', but 'train', 'validation', 'test': write data.source"
    ):
        HfRows(path=str(folder), train="training").splits()
    with pytest.raises(UserError, match=r"data.source.path=.*gone is no folder"):
        HfRows(path=str(tmp_path / "gone")).splits()
    with pytest.raises(UserError, match=r"data.source.path=.* cannot be loaded: .*; a folder of save_to_disk, or of"):
        HfRows(path=str(tmp_path)).splits()
    with pytest.raises(UserError, match=r"give one of data.source.name=NAME"):
        HfRows()

    def unreachable(*_: object, **options: object) -> None:
        assert "trust_remote_code" not in options
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        UserError, match=r"name=ag_news cannot be loaded: Couldn't reach the hub; is its name right, and"
    ):
        HfRows(name="ag_news").splits()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"data=hf needs the package datasets: pip install 'losslab\[hf\]'"):
        HfRows(name="ag_news").splits()
