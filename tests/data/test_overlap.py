"""Copies and near-copies across splits, against sets of tuples of words."""

import random

import pytest

from losslab.data import overlap
from losslab.data.overlap import SHARE, WORDS, find_overlap

VOCABULARY = [*(f"w{i}" for i in range(40)), "naïve", "模型", "🙂", "A", "a"]


def sentence(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(VOCABULARY) + rng.choice([" ", "\n", "  "]) for _ in range(length))


def reference(documents: list[str], others: list[str]) -> tuple[int, int]:
    """Copies and near-copies, by the definition."""

    def grams(text: str) -> list[tuple[str, ...]]:
        words = text.encode().lower().decode().split()
        return [tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]

    known = {gram for text in others for gram in grams(text)}
    copies = [any(text.strip() == other.strip() for other in others) and bool(grams(text)) for text in documents]
    near = [
        not copy and bool(own := grams(text)) and sum(gram in known for gram in own) >= SHARE * len(own)
        for text, copy in zip(documents, copies, strict=True)
    ]
    return sum(copies), sum(near)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at_once", [2**20, 64])
def test_counts_are_those_of_the_definition(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_AT_ONCE", at_once)
    rng = random.Random(seed)
    train = [sentence(rng, rng.randint(0, 60)) for _ in range(80)]
    changed = []
    for text in train:
        words = text.split()
        for _ in range(rng.randint(0, 4)):
            if words:
                words[rng.randrange(len(words))] = "other"
        changed.append(" ".join(words))
    val = [*train[:5], *changed[:40], "", "two words", sentence(rng, 50)]
    test = [*val[7:20], *changed[40:], *train[70:]]
    counts = find_overlap({"train": train, "val": val, "test": test})
    for split, documents, others in (("val", val, train), ("test", test, train + val)):
        copies, near = reference(documents, others)
        assert counts[split] == {"documents": len(documents), "copies": copies, "near_copies": near}
        assert near > 5


def test_what_is_short_is_not_compared() -> None:
    counts = find_overlap({"train": ["Yes, my lord."], "val": ["Yes, my lord."], "test": [""]})
    assert all(found["copies"] == found["near_copies"] == 0 for found in counts.values())
