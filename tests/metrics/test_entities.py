"""Entities against seqeval, on random sequences and odd ones."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from seqeval import metrics as seqeval

from losslab.errors import UserError
from losslab.metrics.entities import EntityRule, scores

SCHEMES = {
    "BIO": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "IOB1": ["I-LOC", "I-PER", "O", "B-PER"],
    "IOBES": ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "A-B"))],
    "one tag": ["O", "S-PER"],
    "no type": ["O", "B", "I", "I-PER"],
}


def found(tags: list[str], predicted: list[list[str]], target: list[list[str]]) -> dict[str, float]:
    rule = EntityRule(tags)

    def flat(sentences: list[list[str]]) -> torch.Tensor:
        return torch.tensor([tags.index(tag) for sentence in sentences for tag in sentence], dtype=torch.int64)

    sentence = torch.tensor([i for i, sentence in enumerate(target) for _ in sentence])
    return scores(*rule.count_by_type(flat(predicted), flat(target), sentence).sum(dim=1).tolist())


def expected(predicted: list[list[str]], target: list[list[str]]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {f"entity_{name}": float(getattr(seqeval, f"{name}_score")(target, predicted)) for name in PARTS}


PARTS = ("f1", "precision", "recall")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_random_sequences_are_scored_as_seqeval_scores_them(scheme: str) -> None:
    tags, rng = SCHEMES[scheme], random.Random(0)
    for _ in range(60):
        target = [rng.choices(tags, k=rng.randint(1, 9)) for _ in range(rng.randint(1, 4))]
        predicted = [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in sentence] for sentence in target]
        assert found(tags, predicted, target) == pytest.approx(expected(predicted, target)), (predicted, target)


@pytest.mark.parametrize(
    ("predicted", "target"),
    [
        (["O", "I-PER", "I-PER"], ["O", "B-PER", "I-PER"]),  # an I without a B begins an entity
        (["B-PER", "I-LOC", "O"], ["B-PER", "I-PER", "O"]),
        (["B-PER", "B-PER", "O"], ["B-PER", "I-PER", "O"]),
        (["O", "O", "O"], ["B-PER", "I-PER", "O"]),
        (["B-PER", "I-PER", "O"], ["O", "O", "O"]),
        (["O", "O", "O"], ["O", "O", "O"]),
    ],
)
def test_odd_sequences_are_scored_as_seqeval_scores_them(predicted: list[str], target: list[str]) -> None:
    assert found(SCHEMES["BIO"], [predicted], [target]) == expected([predicted], [target])


def test_an_entity_ends_with_its_sentence_and_nothing_is_counted_in_nothing() -> None:
    tags = SCHEMES["BIO"]
    target = [["O", "B-PER"], ["I-PER", "O"]]
    assert found(tags, target, target) == expected(target, target)
    assert EntityRule(tags).count_by_type(*[torch.zeros(0, dtype=torch.int64)] * 3).sum(dim=1).tolist() == [0, 0, 0]
    assert found(tags, [["B-PER", "I-PER", "I-PER", "O"]], [["B-PER", "I-PER", "I-PER", "O"]])["entity_f1"] == 1


def test_tags_that_mark_no_entities_are_refused() -> None:
    with pytest.raises(UserError, match=r"train has 'NN', 'U-PER': set task\.entities=false"):
        EntityRule(["O", "NN", "B-PER", "U-PER"])
