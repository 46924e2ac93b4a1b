"""Formats of rows beside csv and JSON lines, and what a folder of each brings along."""

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from losslab.data.row_files import FileRows
from losslab.data.row_reading import Reading
from losslab.data.table_format import Skipped, TableFormat
from losslab.data.tables import column_names, find_tables, read_rows, rows_of
from losslab.errors import UserError

CONLL = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\r\n\n\nPeter\tNNP I-NP\tB-PER\n"


def test_sentences_of_conll(tmp_path) -> None:
    path, form, skipped = tmp_path / "eng.train", TableFormat(name="conll"), Skipped()
    path.write_text(CONLL)
    assert column_names(path, form) == ["words", "column_2", "column_3", "tags"]
    rows = list(rows_of(path, ["words", "tags"], form, skipped))
    assert rows == [
        ("line 3", {"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]}),
        ("line 7", {"words": ["Peter"], "tags": ["B-PER"]}),
    ]
    assert skipped == {"marks of documents": 1}
    path.write_text(CONLL + "Blackburn B-PER\n")
    with pytest.raises(UserError, match="line 8 has 2 columns, and the first token has 4: 'Blackburn B-PER'"):
        list(read_rows(path, ["words"], form))
    path.write_text("alone\n\nwords\n")
    with pytest.raises(UserError, match=r"eng.train has no line with a word and its tag"):
        column_names(path, form)


def test_labels_that_come_first(tmp_path) -> None:
    path = tmp_path / "train.label"
    path.write_bytes("NUM:date When was Ozzy\xf0 born ?\n\nHUM:ind Who ?\n".encode("latin-1"))
    form = TableFormat(encoding="latin-1", name="label_first")
    assert list(read_rows(path, ["text", "coarse", "label"], form)) == [
        {"text": "When was Ozzyð born ?", "coarse": "NUM", "label": "NUM:date"},
        {"text": "Who ?", "coarse": "HUM", "label": "HUM:ind"},
    ]
    path.write_text("HUM:ind Who ?\nHUM:ind \n")
    with pytest.raises(UserError, match=r"train.label: line 2 has no text behind its label 'HUM:ind'"):
        list(read_rows(path, ["text"], form))


def test_texts_in_folders_of_their_classes(tmp_path) -> None:
    for place in ("train/pos/1", "train/neg/2", "test/pos/3", "test/neg/4"):
        (tmp_path / f"{place}.txt").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.txt").write_text(f"review {place}\n")
    source = FileRows(str(tmp_path), form=TableFormat(name="class_folders"))
    assert source.splits() == ("train", "test")
    found = {split: [row for _, row in source.rows(split, ["text", "label"], Skipped())] for split in source.splits()}
    assert found["train"] == [
        {"text": "review train/neg/2\n", "label": "neg"},
        {"text": "review train/pos/1\n", "label": "pos"},
    ]
    assert [row["label"] for row in found["test"]] == ["neg", "pos"]


def write_parquet(path: Path, **columns: Any) -> str:
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def test_parquet_keeps_types_and_numbers_rows(tmp_path) -> None:
    path = write_parquet(
        tmp_path / "train-00000-of-00001.parquet",
        text=["007", *map(str, range(17))],
        words=[["a"], ["b", "c"]] * 9,
        label=[0, 1] * 9,
    )
    source = FileRows(path)
    assert source.columns("train") == [(path, ["text", "words", "label"])]
    place, row = list(source.rows("train", ["words", "label"], Skipped()))[1]
    assert (place, row) == (f"{path}: row 2", {"words": ["b", "c"], "label": 1})
    rows = Reading().read(source, {"text": "text", "label": "label"}, tmp_path)
    assert {row["text"] for split in rows.rows.values() for row in split} == {"007", *map(str, range(17))}
    path = write_parquet(tmp_path / "a.parquet", text=["a", None], label=["x", "y"])
    with pytest.raises(UserError, match=r"a.parquet: row 2 cannot be used: its text must be text, not None"):
        Reading().read(FileRows(path), {"text": "text", "label": "label"}, tmp_path)
    Path(path).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"a.parquet cannot be read as parquet"):
        column_names(Path(path), TableFormat())


def test_files_packed_with_zstd(tmp_path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(b'{"text": "a"}\n{"text": "b"}\n')
    assert [row["text"] for row in read_rows(*find_tables(str(path), "data.path"), ["text"], TableFormat())] == [
        "a",
        "b",
    ]
    path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(UserError, match=r"a.jsonl.zst (cannot be read|is cut off|has no)"):
        list(read_rows(path, ["text"], TableFormat()))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.zst"])
def test_a_missing_package_is_named_with_its_extra(name: str, tmp_path, monkeypatch) -> None:
    (tmp_path / name).write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=rf"{name}.* needs the package pyarrow: pip install 'losslab\[parquet\]'"):
        column_names(tmp_path / name, TableFormat())


def test_the_reading_of_large_files_is_told(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "some words,x\n" * 1000)
    list(FileRows(str(path)).rows("train", ["text"], Skipped()))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("losslab.data.row_files._LARGE", 10**4)
    list(FileRows(str(path)).rows("train", ["text"], Skipped()))
    assert capsys.readouterr().out == "reading 0 MB of rows of train …\n"
