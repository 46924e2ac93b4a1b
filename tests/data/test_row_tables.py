"""Files of rows: which delimiter, which columns, and a sentence for each thing that cannot be read."""

import gzip
import json
from pathlib import Path

import pytest

from losslab.data.table_format import FormatName
from losslab.data.tables import TableFormat, column_names, find_tables, form_beside, read_rows
from losslab.errors import UserError

ROWS = [{"text": "one, two", "label": "a"}, {"text": 'say "no"', "label": "b"}, {"text": "two\nlines", "label": "a"}]


def table(delimiter: str) -> str:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    return "".join(
        f"{quoted(r['text'])}{delimiter}{r['label']}\r\n" for r in [{"text": "text", "label": "label"}, *ROWS]
    )


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", table(","), TableFormat()),
        ("a.csv", table(";"), TableFormat()),
        ("a.csv", table("|"), TableFormat()),
        ("a.csv", table("#"), TableFormat("#")),
        ("a.tsv", table("\t"), TableFormat()),
        ("a.csv", "\ufeff" + table(","), TableFormat()),
        ("A.CSV", table(",") + "\r\n", TableFormat()),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)), TableFormat()),
        ("a.ndjson", "\n\n".join(map(json.dumps, ROWS)) + "\n", TableFormat()),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_read(name: str, content: str, form: TableFormat, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert find_tables(str(path), "data.path") == [path]
    assert column_names(path, form) == ["text", "label"]
    assert list(read_rows(path, ["text", "label"], form)) == ROWS
    assert list(read_rows(path, ["label"], form)) == [{"label": row["label"]} for row in ROWS]


def test_quotation_marks_can_be_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"open\ta\nsec"ond\tb\n')
    assert [row["text"] for row in read_rows(path, ["text"], TableFormat(quotes=False))] == ['"open', 'sec"ond']
    with pytest.raises(UserError, match=r"a\.tsv: line \d cannot be read: .*; .* data.quotes=false"):
        list(read_rows(path, ["text"], TableFormat()))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "is empty (0 bytes)"),
        ("a.csv", "text,text\na,b\n", "more than one column named 'text'"),
        ("a.csv", "text,label\na,b\nc\n", "line 3 has 1 cell, and the table has 2 columns"),
        ("a.csv", "text,label\na,b,c\n", "line 2 has 3 cells"),
        ("a.csv", 'text,label\n"a,b\n', "line 2 cannot be read: unexpected end of data"),
        ("a.csv", b"text,label\n\xff,b\n", "is not UTF-8 text"),
        ("a.csv", "title,label\na,b\n", "has no column 'text', but 'title', 'label'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "line 2 is no JSON"),
        ("a.jsonl", '["a"]\n', "line 1 must be a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"label": 1}\n', "line 2 has no 'text', but 'label'"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
    ],
)
def test_unreadable_files_are_named(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=name) as raised:
        list(read_rows(*find_tables(str(path), "data.path"), ["text", "label"], TableFormat()))
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "data.path is empty"),
        ("none.csv", "does not exist"),
        ("folder", "is a folder without a file of rows"),
        ("a.xlsx", "no table that can be read"),
        ("*.csv", "does not exist"),
    ],
)
def test_paths_without_tables_are_refused(path: str, sentence: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=sentence):
        find_tables(path, "data.path")


def test_a_glob_names_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text("text\n")
    assert [path.name for path in find_tables(str(tmp_path / "*.csv"), "data.path")] == ["a.csv", "b.csv"]


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(UserError, match="one character"):
        TableFormat(delimiter).check()


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        ("new.jsonl", "label_first", False),
        ("new.csv.gz", "label_first", False),
        ("new.label", "label_first", True),
        ("new.txt", "csv", True),
        ("new.csv", "csv", True),
        ("new.csv", None, True),
    ],
)
def test_a_file_beside_the_data_is_read_by_its_suffix(name: str, said: FormatName | None, kept: bool) -> None:
    """A run on lines of labels predicts JSON lines, which are no such lines; encoding and header stay behind, too."""
    form = TableFormat(name=said, encoding="latin-1", header=("a", "b"))
    assert form_beside(Path(name), form) == (form if kept else TableFormat())
