"""Questions out of files: both forms, and a sentence for each thing that is wrong with one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from losslab.data.questions import Faulty, Question, QuestionFiles
from losslab.errors import UserError

CONTEXT = "Ýstad lies on the Tarn, Kelm does not."


def question(**changes: Any) -> dict[str, Any]:
    found = {"id": "a1", "question": "Where?", "answers": [{"text": "the Tarn", "answer_start": 14}]}
    return {key: value for key, value in (found | changes).items() if value is not ...}


def document(*questions: Any, **paragraph: Any) -> dict[str, Any]:
    return {"data": [{"title": "Rivers", "paragraphs": [{"context": CONTEXT, "qas": list(questions)} | paragraph]}]}


def read(path: Path, content: Any, *, faulty: Faulty = "refuse") -> tuple[list[Question], Counter[str]]:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    skipped: Counter[str] = Counter()
    return list(QuestionFiles(faulty).read(path, skipped)), skipped


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_the_form_of_squad(tmp_path: Path, name: str) -> None:
    several = [{"text": "the Tarn", "answer_start": 14}, {"text": "Tarn", "answer_start": 18}]
    plausible = [{"text": "Kelm", "answer_start": 24}]
    none = question(id="b", is_impossible=True, answers=[], plausible_answers=plausible)
    found, skipped = read(tmp_path / name, document(question(answers=several), none))
    assert found == [
        Question("a1", "Rivers", CONTEXT, "Where?", (("the Tarn", 14), ("Tarn", 18))),
        Question("b", "Rivers", CONTEXT, "Where?", ()),
    ]
    assert not skipped


def test_a_question_a_line(tmp_path: Path) -> None:
    lists = question(context=CONTEXT, answers={"text": ["the Tarn"], "answer_start": [14]})
    lines = [
        lists,
        question(context=CONTEXT, id=7, title="Rivers"),
        question(id="c", context="x", answers=[], is_impossible=True),
    ]
    found, _ = read(tmp_path / "dev.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert [(each.id, each.article, each.answers) for each in found] == [
        ("a1", None, (("the Tarn", 14),)),
        ("7", "Rivers", (("the Tarn", 14),)),
        ("c", None, ()),
    ]


FAULTS = {
    "has the answer 'the Tarn' at answer_start=15, where its context has 'he Tarn,'": question(
        answers=[{"text": "the Tarn", "answer_start": 15}]
    ),
    "at answer_start=-1": question(answers=[{"text": "x", "answer_start": -1}]),
    "has an answer without text": question(answers=[{"text": " ", "answer_start": 5}]),
    'has no answer: give it one, or "is_impossible": true': question(answers=[]),
    "has answers, and is_impossible=true says that there is none": question(is_impossible=True),
    "has an empty question": question(question=" "),
}


@pytest.mark.parametrize("told", FAULTS)
def test_a_faulty_question_is_refused_or_counted(tmp_path: Path, told: str) -> None:
    content = document(FAULTS[told], question(id="sound"))
    with pytest.raises(UserError) as refused:
        read(tmp_path / "train.json", content)
    sentence = str(refused.value)
    assert told in sentence and f"{tmp_path}/train.json: article 'Rivers', question a1, has" in sentence
    assert sentence.endswith("; data.faulty=skip leaves such questions out") and "\n" not in sentence
    found, skipped = read(tmp_path / "train.json", content, faulty="skip")
    assert [each.id for each in found] == ["sound"] and sum(skipped.values()) == 1


FORMS: list[tuple[str, Any, str]] = [
    ("x.json", '{"data": [', "is no JSON: Expecting value at line 1, character 11; a question a line wants .* .jsonl"),
    ("x.json", [], r"has not the form of SQuAD, .*, but \[\]"),
    ("x.json", {"data": {}}, "'data' must be a list"),
    ("x.json", {"data": [{"paragraphs": []}]}, "article 1 has no 'title', but 'paragraphs'"),
    ("x.json", document(question(), context=3), "article 'Rivers', paragraph 1: 'context' must be text, not 3"),
    ("x.json", document(question(id=...)), "paragraph 1, question 1 has no 'id', but 'question', 'answers'"),
    ("x.json", document(question(answers=...)), "question a1 has no 'answers', but .*'context'"),
    ("x.json", document(question(answers=[{"text": "x"}])), "has no 'answer_start', but 'text'"),
    ("x.json", document(question(answers=[{"text": "x", "answer_start": "1"}])), "must be a whole number, not '1'"),
    ("x.json", document(question(is_impossible="no")), "'is_impossible' must be true or false, not 'no'"),
    ("x.json", document("Where?"), "must be an object with 'id', not 'Where"),
    ("x.json", "", "is empty"),
    ("x.jsonl", {"question": "Where?", "id": "1"}, "line 1 has no 'context', but 'question', 'id'"),
    ("x.jsonl", "{]", "line 1 is no JSON"),
    (
        "x.jsonl",
        question(context=CONTEXT, answers={"text": ["x"], "answer_start": []}),
        "has 1 texts of answers and 0 answer_start",
    ),
]


@pytest.mark.parametrize(("name", "content", "told"), FORMS)
def test_another_form_is_refused_always(tmp_path: Path, name: str, content: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        read(tmp_path / name, content, faulty="skip")
    assert "\n" not in str(refused.value)
