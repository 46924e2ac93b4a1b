"""Error rates of characters and words against jiwer, and of single texts by hand."""

from __future__ import annotations

import random

import jiwer
import pytest

from losslab.metrics.edit_distance import count_edits, distance

TEXTS = [
    "",
    " ",
    "a",
    "seven three",
    "seven  three ",
    " seven",
    "sevenn thre",
    "zero zero",
    "über Maß",
    "ñ 模型 🙂",
    "模 🙂",
]


def rates(references: list[str], hypotheses: list[str]) -> tuple[float, float]:
    counted = [count_edits(reference, text) for reference, text in zip(references, hypotheses, strict=True)]
    characters, of_characters, words, of_words = (sum(part) for part in zip(*counted, strict=True))
    return characters / of_characters, words / of_words


@pytest.mark.parametrize("hypothesis", TEXTS)
@pytest.mark.parametrize("reference", [text for text in TEXTS if text.strip()])
def test_each_pair_of_texts_is_judged_as_jiwer_does(reference: str, hypothesis: str) -> None:
    cer, wer = rates([reference], [hypothesis])
    assert cer == pytest.approx(jiwer.cer(reference, hypothesis))
    assert wer == pytest.approx(jiwer.wer(reference, hypothesis))


def test_corpora_are_judged_as_jiwer_does() -> None:
    rng = random.Random(0)
    for _ in range(30):
        words = ["one", "two", "é", "模型", "ab", "ba", "a"]
        references = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 6))]
        hypotheses = [
            "".join(c for c in text if rng.random() < 0.8) + rng.choice(["", " two", "x"]) for text in references
        ]
        cer, wer = rates(references, hypotheses)
        assert cer == pytest.approx(jiwer.cer(references, hypotheses))
        assert wer == pytest.approx(jiwer.wer(references, hypotheses))


def test_an_empty_reference_makes_every_character_an_insertion() -> None:
    assert count_edits("", "two words") == (9, 0, 2, 0)
    assert count_edits("two words", "") == (9, 9, 2, 2)
    assert count_edits(" ", "") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "edits"),
    [
        ("kitten", "sitting", 3),
        ("abc", "abc", 0),
        ("abc", "bcd", 2),
        ("ab", "ba", 2),
        ([1, 2, 3], [3], 2),
        ([], [1], 1),
    ],
)
def test_distances_by_hand(reference: str, hypothesis: str, edits: int) -> None:
    assert distance(reference, hypothesis) == distance(hypothesis, reference) == edits
