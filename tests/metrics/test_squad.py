"""Exact match and F1 against torchmetrics, and against the script of SQuAD 2.0 where there may be no answer."""

from __future__ import annotations

import collections
import random
import re
import string

import pytest
from torchmetrics.functional.text.squad import squad

from losslab.metrics.squad import exact_and_f1, normalised

WORDS = ["the", "a", "An", "Norman", "normans", "10th", "U.S.", "co-op", "–", "Ünder", "…", "the.", "A.", "¿qué?", "'s"]
EDGES = [
    ("", [""]),
    ("", []),
    ("the", []),
    ("The", ["a"]),
    ("anthem", ["an them"]),
    ("in the 10th  century!", ["10th century", "10th and 11th centuries"]),
    ("don't", ["dont"]),
    ("Curaçao", ["curaçao"]),
    ("cat cat dog", ["cat dog dog"]),
    ("word", ["", "word"]),
    ("x", ["the", "."]),
]


def drawn(count: int) -> list[tuple[str, list[str]]]:
    rng = random.Random(0)

    def text() -> str:
        return rng.choice([" ", "  ", "\n"]).join(rng.choices(WORDS, k=rng.randint(0, 4)))

    return [(text(), [text() for _ in range(rng.randint(0, 3))]) for _ in range(count)]


def script_normalised(text: str) -> str:
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", text).split())


def script_f1(gold: str, predicted: str) -> float:
    gold_tokens, tokens = script_normalised(gold).split(), script_normalised(predicted).split()
    same = sum((collections.Counter(gold_tokens) & collections.Counter(tokens)).values())
    if len(gold_tokens) == 0 or len(tokens) == 0:
        return int(gold_tokens == tokens)
    if same == 0:
        return 0
    precision, recall = same / len(tokens), same / len(gold_tokens)
    return (2 * precision * recall) / (precision + recall)


@pytest.mark.parametrize(("predicted", "answers"), EDGES + drawn(300))
def test_values_are_those_of_the_script_of_squad_2(predicted: str, answers: list[str]) -> None:
    assert normalised(predicted) == script_normalised(predicted)
    golds = [answer for answer in answers if script_normalised(answer)] or [""]
    exact = max(int(script_normalised(gold) == script_normalised(predicted)) for gold in golds)
    f1 = max(script_f1(gold, predicted) for gold in golds)
    assert exact_and_f1(predicted, answers) == (exact, pytest.approx(f1))


def test_means_are_those_of_torchmetrics() -> None:
    """Which knows no questions without an answer."""
    pairs = [(predicted, answers) for predicted, answers in EDGES + drawn(100) if any(map(normalised, answers))]
    said = [{"id": str(i), "prediction_text": predicted} for i, (predicted, _) in enumerate(pairs)]
    given = [
        {"id": str(i), "answers": {"text": [each for each in answers if normalised(each)], "answer_start": [0]}}
        for i, (_, answers) in enumerate(pairs)
    ]
    found = squad(said, given)
    exact, f1 = zip(*(exact_and_f1(*pair) for pair in pairs), strict=True)
    assert 100 * sum(exact) / len(pairs) == pytest.approx(float(found["exact_match"]))
    assert 100 * sum(f1) / len(pairs) == pytest.approx(float(found["f1"]), rel=1e-5)
