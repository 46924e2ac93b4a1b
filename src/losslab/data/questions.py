"""Questions about texts out of files in the form of SQuAD (JSON), or a question a line (JSON lines)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from losslab.data.formats.json_lines import JSON_LINES, parse_line
from losslab.data.opened import PACKED, check_not_empty, lines_of, open_text
from losslab.errors import UserError

Faulty = Literal["refuse", "skip"]
SUFFIXES = (".json", *JSON_LINES.suffixes)
_SHOWN = 40
_REFUSED = "; data.faulty=skip leaves such questions out"


class Question(NamedTuple):
    """One question about a text."""

    id: str
    article: str | None
    """The title of the article that the text is of, where the file has titles."""
    context: str
    text: str
    answers: tuple[tuple[str, int], ...]
    """Texts, and the character of the context at which each begins; none where the context holds no answer."""


class Fault(Exception):
    """The fault of a question, and the name under which such questions are counted."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class QuestionFiles:
    """Files of questions.

    Args:
        faulty: refuse questions that cannot be used, or skip and count them.
        labelled: answers are there; else the keys of answers are not read.
    """

    faulty: Faulty = "refuse"
    labelled: bool = True

    def read(self, path: Path, skipped: Counter[str]) -> Iterator[Question]:
        """The questions of a file, in its order.

        Raises:
            UserError: for a file that has another form; for a faulty question, unless such are skipped.
        """
        check_not_empty(path)
        for place, raw in _raw_lines(path) if _kind_of(path) in JSON_LINES.suffixes else _raw_nested(path):
            try:
                yield self._checked(place, raw)
            except Fault as fault:
                if self.faulty == "refuse":
                    raise UserError(f"{place} {fault}{_REFUSED}") from None
                skipped[fault.kind] += 1

    def _checked(self, place: str, raw: Mapping[str, Any]) -> Question:
        for name in ("context", "question"):
            if not raw[name].strip():
                raise Fault(f"questions with an empty {name}", f"has an empty {name}")
        answers = self._answers(place, raw) if self.labelled else ()
        return Question(raw["id"], raw.get("title"), raw["context"], raw["question"], answers)

    def _answers(self, place: str, raw: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
        impossible = raw.get("is_impossible", False)
        if not isinstance(impossible, bool):
            raise UserError(f"{place}: 'is_impossible' must be true or false, not {_short(impossible)}")
        answers = tuple(_pairs_of(place, _need(raw, "answers", place)))
        if impossible and answers:
            raise Fault("answers beside is_impossible", "has answers, and is_impossible=true says that there is none")
        if not impossible and not answers:
            raise Fault(
                "questions without an answer or is_impossible",
                'has no answer: give it one, or "is_impossible": true where its context holds none',
            )
        for text, start in answers:
            there = raw["context"][start : start + len(text)] if start >= 0 else ""
            if not text.strip():
                raise Fault("questions with an empty answer", "has an answer without text")
            if there != text:
                raise Fault(
                    "answers that do not stand at their answer_start",
                    f"has the answer {_short(text)} at answer_start={start}, where its context has {_short(there)}: "
                    "count characters from 0",
                )
        return answers


def _kind_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in PACKED), "")


def _raw_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's object with its place; keys as `datasets` names them: id, question, context, answers (a list of
    objects, or an object of two lists), and title and is_impossible, which may be missing."""
    with open_text(path, "utf-8") as file:
        for number, line in enumerate(lines_of(path, file), start=1):
            if line.strip():
                place = f"{path}: line {number}"
                raw = parse_line(line, place)
                named = {name: _text(raw, name, place) for name in ("id", "question", "context")}
                place = f"{path}: line {number}, question {named['id']},"
                yield place, {**raw, **named, "title": _text(raw, "title", place) if raw.get("title") else None}


def _raw_nested(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each question of SQuAD's articles and paragraphs with its place."""
    for a, article in enumerate(_list(_document(path), "data", str(path)), start=1):
        place = f"{path}: article {a}"
        title = _text(article, "title", place)
        place = f"{path}: article {title!r}"
        for p, paragraph in enumerate(_list(article, "paragraphs", place), start=1):
            at = f"{place}, paragraph {p}"
            context = _text(paragraph, "context", at)
            for q, raw in enumerate(_list(paragraph, "qas", at), start=1):
                name = _text(raw, "id", f"{at}, question {q}")
                own = f"{place}, question {name},"
                found = {"id": name, "title": title, "context": context, "question": _text(raw, "question", own)}
                yield own, {**raw, **found}


def _document(path: Path) -> dict[str, Any]:
    with open_text(path, "utf-8") as file:
        text = file.read()
    try:
        found = json.loads(text)
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        told: object = error
        if isinstance(error, json.JSONDecodeError):
            told = f"{error.msg.removesuffix(' at')} at line {error.lineno}, character {error.colno}"
        raise UserError(f"{path} is no JSON: {told}; a question a line wants the ending .jsonl") from None
    if not isinstance(found, dict) or "data" not in found:
        raise UserError(
            f'{path} has not the form of SQuAD, {{"data": [{{"title": …, "paragraphs": […]}}]}}, but {_short(found)}: '
            "give a question a line as .jsonl, with id, question, context and answers"
        )
    return found


def _need(raw: Any, name: str, place: str) -> Any:
    if not isinstance(raw, dict):
        raise UserError(f"{place} must be an object with {name!r}, not {_short(raw)}")
    if name not in raw:
        there = ", ".join(map(repr, raw)) or "nothing"
        raise UserError(f"{place.removesuffix(',')} has no {name!r}, but {there}: SQuAD's files have it")
    return raw[name]


def _list(raw: Any, name: str, place: str) -> list[Any]:
    found = _need(raw, name, place)
    if not isinstance(found, list):
        raise UserError(f"{place}: {name!r} must be a list, not {_short(found)}")
    return found


def _text(raw: Any, name: str, place: str) -> str:
    found = _need(raw, name, place)
    if isinstance(found, int) and not isinstance(found, bool) and name == "id":
        return str(found)
    try:
        found.encode()  # half a surrogate pair, which JSON can write, is no text
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{place.removesuffix(',')}: {name!r} must be text, not {_short(found)}") from None
    return str(found)


def _pairs_of(place: str, answers: Any) -> Iterator[tuple[str, int]]:
    if isinstance(answers, dict):  # as `datasets` has them
        texts, starts = (_list(answers, name, place) for name in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise UserError(f"{place} has {len(texts)} texts of answers and {len(starts)} answer_start: one for each")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(answers, list):
        raise UserError(f"{place}: 'answers' must be a list, not {_short(answers)}")
    for answer in answers:
        text, start = _text(answer, "text", place), _need(answer, "answer_start", place)
        if not isinstance(start, int) or isinstance(start, bool):
            raise UserError(f"{place}: 'answer_start' must be a whole number, not {_short(start)}")
        yield text, start


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
