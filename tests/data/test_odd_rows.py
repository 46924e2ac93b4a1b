"""Odd files of rows: read as a person would expect, or refused in a sentence with file, line and cure."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from losslab.data.row_files import FileRows
from losslab.data.row_reading import Reading, Rows
from losslab.data.table_format import TableFormat
from losslab.errors import UserError

HEAD = "text,label\n"
BODY = "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20))
LINES = "".join(json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}) + "\n" for i in range(20))
TEXT: dict[str, Any] = {"text": "text", "label": "label"}
VALUE: dict[str, Any] = {"text": "text", "label": "value"}
ROWS = {(f"row {i}", "ab"[i % 2]) for i in range(20)}


def read(path: Path, columns: dict[str, Any] = TEXT, reading: Reading | None = None, **form: Any) -> Rows:
    source, reading = FileRows(str(path), form=TableFormat(**form)), reading or Reading()
    source.check()
    reading.check(source)
    reading.check_columns(source, columns)
    return reading.read(source, columns, path.parent)


def found(rows: Rows) -> set[tuple[Any, Any]]:
    return {(row["text"], row["label"]) for split in rows.rows.values() for row in split}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


LONG = "x" * 10_000_000
AS_TEXT = ("007", "NA", "null", "2020-01-01", '5" pipe', "nan", "1e5", "TRUE")


@pytest.mark.parametrize(
    ("name", "content", "form", "more"),
    [
        ("crlf.csv", (HEAD + BODY).replace("\n", "\r\n"), {}, set()),
        ("mac.csv", (HEAD + BODY).replace("\n", "\r"), {}, set()),
        ("breaks.csv", HEAD + BODY + '"two\nlines\r\nthree",a\n', {}, {("two\nlines\r\nthree", "a")}),
        ("bom.csv", "\ufeff" + HEAD + BODY, {}, set()),
        ("bom.jsonl", "\ufeff" + LINES, {}, set()),
        ("long.csv", f"{HEAD}{BODY}{LONG},a\n", {}, {(LONG, "a")}),
        ("long.jsonl", LINES + json.dumps({"text": LONG, "label": "a"}), {}, {(LONG, "a")}),
        ("text.csv", HEAD + BODY + "".join(f"{t},{t}\n" for t in AS_TEXT), {}, {(t, t) for t in AS_TEXT}),
        ("text.tsv", (HEAD + BODY).replace(",", "\t") + "a, b\ta\n", {}, {("a, b", "a")}),
        ("semicolons.csv", (HEAD + BODY).replace(",", ";"), {}, set()),
        ("utf16.csv", (HEAD + BODY).encode("utf-16"), {"encoding": "utf-16"}, set()),
        ("latin.csv", (HEAD + BODY + "café,a\n").encode("latin-1"), {"encoding": "latin-1"}, {("café", "a")}),
        ("header.csv", BODY, {"header": ("text", "label")}, set()),
        ("other.dat", HEAD + BODY, {"name": "csv"}, set()),
        ("blank.jsonl", LINES.replace("\n", "\n\n"), {}, set()),
        (
            "words.jsonl",
            LINES + '{"text": "t", "label": 1}\n{"label": true, "text": "u"}\n',
            {},
            {("t", "1"), ("u", "true")},
        ),
        ("packed.csv.gz", gzip.compress((HEAD + BODY).encode(), mtime=0), {}, set()),
    ],
)
def test_read_as_expected(name: str, content: Any, form: dict[str, Any], more: Any, tmp_path) -> None:
    assert found(read(write(tmp_path / name, content), **form)) == ROWS | more


CUT = gzip.compress((HEAD + BODY * 50).encode(), mtime=0)
OTHER = "; where quotation marks are characters like any other: data.quotes=false"
LATIN = r"line 22 is not UTF-8 text \(byte 0xe9\): write data.encoding=latin-1 \(or cp1252\)"
NUL = r"holds a NUL byte, which no text has: the file is damaged; write it again, or take such bytes out \(tr"


@pytest.mark.parametrize(
    ("name", "content", "form", "sentence"),
    [
        ("a.csv", HEAD + BODY + '"open,a\n' + BODY, {}, "line 22 cannot be read: unexpected end of data" + OTHER),
        ("a.csv", HEAD + BODY + '"bro"ken,a\n' + BODY, {}, "line 22 cannot be read: ',' expected after '\"'" + OTHER),
        (
            "a.csv",
            HEAD + BODY + '"two\nlines",a\nx,y,z\n',
            {},
            "line 24 has 3 cells, and the table has 2 columns; a cell",
        ),
        ("a.csv", HEAD + BODY + "alone\n", {}, "line 22 has 1 cell, and the table has 2 columns; an empty cell keeps"),
        ("a.csv", BODY, {"header": ("a", "text", "label")}, "line 1 has 2 cells, and the table has 3 columns"),
        ("a.jsonl", LINES + '\n{"text": "x",\n', {}, "line 22 is no JSON: Expecting .* at character"),
        ("a.jsonl", LINES + '\n{"text": "x\n', {}, "line 22 is no JSON: Invalid control character at character 12;"),
        ("a.jsonl", LINES + '{"text": "x"}\n', {}, "line 21 has no 'label', but 'text'"),
        (
            "a.jsonl",
            LINES + '{"text": "x", "label": "a", "text": ""}',
            {},
            "line 21 has the key 'text' twice: leave one out",
        ),
        ("a.jsonl", LINES + "[" * 10 * sys.getrecursionlimit(), {}, "line 21 is nested too deeply|line 21 is no JSON"),
        ("a.jsonl", json.dumps([{"text": "a"}]), {}, "line 1 must be a JSON object.*a list of objects becomes lines"),
        ("a.jsonl", LINES + '{"text": 5, "label": "a"}', {}, "line 21 cannot be used: its text must be text, not 5"),
        (
            "a.jsonl",
            LINES + '{"text": null, "label": "a"}',
            {},
            "line 21 cannot be used: its text must be text, not None",
        ),
        ("a.jsonl", LINES + r'{"text": "\ud800", "label": "a"}', {}, "line 21 cannot be used: its text must be text"),
        ("a.jsonl", '{"text": "a", "label": null}', {}, "line 1 cannot be used: its label.*not None; data.unlabelled"),
        (
            "a.csv",
            "text,kind\n" + BODY,
            {},
            "label=label: .*a.csv has no such column, but 'text', 'kind'; write data.col",
        ),
        (
            "a.csv",
            "text,label,text\n",
            {},
            "more than one column named 'text': name each once in its first line; for a",
        ),
        ("a.csv", "", {}, r"is empty \(0 bytes\): write it again, or leave it out"),
        ("a.csv", HEAD, {}, "too few rows: the train split has 0 of them"),
        ("a.csv.gz", CUT[:-20], {}, "is cut off: its end is missing; fetch or pack it again"),
        ("a.csv.gz", CUT[:2] + b"xx" + CUT[4:], {}, "cannot be read: Unknown compression"),
        ("a.csv", HEAD + BODY + "a\0b,a\n", {}, "line 22 " + NUL),
        ("a.jsonl", LINES + '{"text": "a\0b"}\n', {}, "line 21 " + NUL),
        ("a.csv", (HEAD + BODY).encode("utf-16"), {}, "is UTF-16 text: write data.encoding=utf-16$"),
        ("a.csv", (HEAD + BODY).encode("utf-16-le"), {}, "looks like UTF-16 text: write data.encoding=utf-16-le$"),
        (
            "a.csv",
            (HEAD + BODY).encode("utf-16-be"),
            {"encoding": "utf-16"},
            "is no utf-16 text.*data.encoding=utf-16-be$",
        ),
        ("a.csv", HEAD.encode() + BODY.encode() + b"caf\xe9,a\n", {}, LATIN),
        ("a.csv.gz", gzip.compress(HEAD.encode() + BODY.encode() + b"caf\xe9,a\n", mtime=0), {}, LATIN),
        (
            "a.csv",
            (HEAD + BODY).replace(",", ";"),
            {"delimiter": ","},
            "or data.delimiter=';', which divides that name",
        ),
        ("a.csv", HEAD + BODY, {"encoding": "utf-99"}, "data.encoding=utf-99 is no encoding of text that Python has"),
        ("a.csv", HEAD + BODY, {"header": ("text", "text")}, r"data.header=.* must name each column once"),
        ("a.dat", HEAD + BODY, {}, "is no table that can be read .*where only its name is another: data.format=csv"),
    ],
)
def test_refused_with_file_line_and_cure(
    name: str, content: Any, form: dict[str, Any], sentence: str, tmp_path
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=sentence) as raised:
        read(path, **form)
    assert name in str(raised.value) or sentence.startswith("data.")


@pytest.mark.parametrize("target", ["", "nan", "NA", "null", "inf", "1,5"])
def test_a_value_must_be_a_number(target: str, tmp_path) -> None:
    numbers = "".join(f"row {i},{i}\n" for i in range(20))
    path = write(tmp_path / "a.csv", f'{HEAD}{numbers}more,"{target}"\n')
    missing = target not in ("inf", "1,5")
    with pytest.raises(UserError, match="line 22 cannot be used: its label must be a finite number, not") as raised:
        read(path, VALUE)
    assert ("data.unlabelled=skip" in str(raised.value)) == missing
    if missing:
        rows = read(path, VALUE, Reading(unlabelled="skip"))
        assert len(found(rows)) == 20 and rows.skipped == {"rows without a target": 1}


def test_a_column_of_nulls_leaves_nothing(tmp_path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": null}\n' * 9)
    with pytest.raises(UserError, match=r"the train split has 0 of them.*; left out: 9 rows without a target"):
        read(path, reading=Reading(unlabelled="skip"))


def test_a_label_that_train_lacks_is_named_with_its_line(tmp_path) -> None:
    train, val = write(tmp_path / "a.csv", HEAD + BODY), write(tmp_path / "v.csv", HEAD + '"x\n",a\n\ny,c\nz,d\n')
    source = FileRows(str(train), val_path=str(val))
    with pytest.raises(UserError, match=r"v.csv: line 5: no row of train has the label 'c' \(and 1 more such labels\)"):
        Reading().read(source, TEXT, tmp_path)
