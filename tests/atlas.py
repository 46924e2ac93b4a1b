"""Made-up questions about countries, in the form of SQuAD: small enough that a tiny encoder learns them in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

COUNTRIES = ("Avaria", "Belmor", "Corvia", "Doreth")
FACTS = {
    "capital": ("Old Harbour", "Ýstad", "Kelm", "Ruvo"),
    "river": ("Saint-Ömer", "Tarn", "Umber", "Wick"),
    "dish": ("hot soup", "bread", "plums", "rösti"),
}


def paragraph(rng: random.Random, name: str, *, impossible: float) -> dict[str, Any]:
    """A text with facts about a country, and a question about each fact, some of which the text leaves out."""
    country = rng.choice(COUNTRIES)
    found = {kind: rng.choice(names) for kind, names in FACTS.items()}
    told = [kind for kind in rng.sample([*FACTS], len(FACTS)) if rng.random() >= impossible] or ["capital"]
    context = f"{country}: " + ", ".join(f"the {kind} is {found[kind]}" for kind in told)
    questions = []
    for i, kind in enumerate(FACTS):
        answers = []
        if kind in told:
            answers = [{"text": found[kind], "answer_start": context.index(f" is {found[kind]}") + 4}]
        asked = f"Which {kind}?"
        questions.append({"id": f"{name}-{i}", "question": asked, "answers": answers, "is_impossible": not answers})
    return {"context": context, "qas": questions}


def atlas(paragraphs: int, *, impossible: float = 0.3, seed: int = 0) -> dict[str, Any]:
    """A document of articles with four texts each."""
    rng = random.Random(seed)
    texts = [paragraph(rng, f"{seed}-{number}", impossible=impossible) for number in range(paragraphs)]
    articles = [{"title": f"Atlas {seed}, {i // 4}", "paragraphs": texts[i : i + 4]} for i in range(0, paragraphs, 4)]
    return {"version": "v2.0", "data": articles}


def write_atlas(path: Path, paragraphs: int, *, impossible: float = 0.3, seed: int = 0) -> None:
    path.write_text(json.dumps(atlas(paragraphs, impossible=impossible, seed=seed)), encoding="utf-8")
