"""Predictions as they are written, and what a person types on a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from losslab.commands import predict as command
from losslab.commands.predicted import to_csv, told_to_people
from losslab.errors import UserError

LABELS = {"b": 0.7, "a": 0.2, "c": 0.1}


class Predictor:
    """Every row is a b."""

    batch_size, longer = 2, 0

    def __init__(self, *names: str) -> None:
        self.names = {name: name for name in names}
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def __call__(self, rows: Sequence[dict[str, Any]], *, first: int) -> list[dict[str, Any]]:
        if any("text" not in row for row in rows):
            raise UserError(f"row {first} has no column 'text'")
        self.seen += [(first + i, row) for i, row in enumerate(rows)]
        return [{"predicted": "b", "probabilities": dict(sorted(LABELS.items()))} for _ in rows]

    def words_of(self, row: dict[str, Any]) -> list[str]:
        return []


def opened(*names: str, fitted: dict[str, float] | None = None) -> Any:
    return command._Opened(Predictor(*names), {"context": 8}, "", None, None, fitted or {})  # type: ignore[arg-type]


def test_csv_ranks_labels_where_their_number_is_limited_and_records_the_temperature() -> None:
    row, told = {"text": "x"}, {"predicted": "b", "probabilities": LABELS, "scale": 1.5}
    assert to_csv([row], [told]) == "text,predicted,probability,scale\nx,b,0.7,1.5\n"
    header, line = to_csv([row], [told], ranked=True).splitlines()
    assert header == "text,predicted,probability,predicted_2,probability_2,predicted_3,probability_3,scale"
    assert line == "x,b,0.7,a,0.2,c,0.1,1.5"
    tags = {"predicted": ["O", "B"], "tag_probabilities": [0.5, 0.9]}
    assert to_csv([{"words": "a b"}], [tags]) == "words,predicted,probability\na b,O B,0.5 0.9\n"


def test_people_read_labels_with_bars_tags_beside_words_and_values_in_their_unit() -> None:
    lines = list(told_to_people({"predicted": "b", "probabilities": LABELS}, "", words=[]))
    assert lines[0].startswith("* b   70.0%  █") and lines[2] == "  c   10.0%  ██"
    tags = {"predicted": ["O", "B-PER"], "tag_probabilities": [0.5, 0.9]}
    assert list(told_to_people(tags, "", words=["the", "a"])) == ["  the  O       50.0%", "  a    B-PER   90.0%"]
    assert list(told_to_people({"predicted": 12.25}, "cm", words=[])) == ["  12.25 cm"]


def test_standard_input_is_predicted_line_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": text} for text in "abc"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(json.dumps, rows)) + "\n\n"))
    run = opened("text", fitted={"scale": 2.0})
    command._stream(run, 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{**row, "predicted": "b", "probabilities": {"b": 0.7}, "scale": 2.0} for row in rows]
    assert [number for number, _ in run.predictor.seen] == [1, 2, 3]
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "a"}\n{"text":'))
    with pytest.raises(UserError, match="standard input, line 2 is no JSON"):
        command._stream(run, None)


def test_a_person_is_asked_for_each_column_until_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed, asked = iter(["one", "two", "", " "]), []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    run = opened("text", "text_pair")
    command._converse(run, 1)
    assert asked == ["text> ", "text_pair> "] * 2 + ["text> "]
    assert [row for _, row in run.predictor.seen] == [{"text": "one", "text_pair": "two"}]
    assert "* b   70.0%" in capsys.readouterr().out
