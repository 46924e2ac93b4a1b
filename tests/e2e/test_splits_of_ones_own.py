"""A text like WikiText-2 trains on its own splits, and what is wrong with a text is said."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest

from losslab import records
from runs import TINY, find_runs, losslab, only_run

FILES = {"train": 30, "valid": 24, "test": 5}
"""Articles in each."""


def words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choices("abcdeilmnorstu", k=rng.randint(2, 8))) for _ in range(count))


@pytest.fixture
def wikitext(workplace: Path) -> dict[str, str]:
    """wiki.train.tokens, …: articles with titles and sections, as WikiText has them."""
    rng = random.Random(2)
    texts = {}
    Path("wikitext").mkdir()
    for name, count in FILES.items():
        bodies = (f"{words(rng, 30)} . \n \n = = {words(rng, 1)} = = \n \n {words(rng, 25)}" for _ in range(count))
        texts[name] = "".join(f" \n = {words(rng, 2)} = \n \n {body} . \n" for body in bodies)
        Path(f"wikitext/wiki.{name}.tokens").write_text(texts[name])
    return texts


def count_by_hand(text: str) -> int:
    """As the scripts of the word-level benchmarks do."""
    return sum(len([*line.split(), "<eos>"]) for line in text.splitlines())


def test_wikitext_trains_on_its_own_splits(wikitext: dict[str, str], workplace: Path) -> None:
    copied = re.split(r"(?= \n = [a-z])", wikitext["train"])[7]
    Path("wikitext/wiki.test.tokens").write_text(wikitext["test"] + copied)
    for name in ("table.jsonl", "packed.tar.gz", ".hidden"):
        Path("wikitext", name).write_text("{}")
    process = losslab("train", *TINY, "data.path=wikitext", cwd=workplace)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    for line in (
        "text   read 3 files (wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens)",
        "left out: 1 hidden, 1 .tar.gz (archive), 1 .jsonl (structured)",
        "30 train · 24 val · 6 test documents (cut at ' = Title = ' lines); splits: its own",
        "note: 1 of 6 test documents are in train or val as well: 1 the same, 0 nearly",
        "word_perplexity",
    ):
        assert line in output

    _, record = only_run(Path("outputs/runs"))
    texts = {"val": wikitext["valid"], "test": Path("wikitext/wiki.test.tokens").read_text()}
    for split, text in texts.items():
        values = {name: record.metrics["best"][f"{split}/{name}"] for name in ("nll", "word_perplexity")}
        predicted = len(text.encode()) + FILES["valid" if split == "val" else "test"] + (split == "test") - 1
        by_hand = math.exp(values["nll"] * predicted / count_by_hand(text))
        assert values["word_perplexity"] == pytest.approx(by_hand, rel=1e-9)
        assert record.provenance["text"]["words"][split] == count_by_hand(text)
    assert record.provenance["text"]["tokenizer_lossless"] is True


def test_a_tokenizer_that_loses_text_is_told(workplace: Path) -> None:
    vocabulary = {"<unk>": 0} | {letter: i for i, letter in enumerate("abcdeilm", start=1)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    Path("words.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    common = ["trainer.max_steps=2", "trainer.val_check_interval=2", "model.context=4", "loggers=tensorboard"]
    process = losslab("train", *TINY, *common, "data.tokenizer=words.json", cwd=workplace)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "note: the tokenizer words.json does not keep the text: " in output
    assert "bits_per_byte" not in output.rpartition("best checkpoint")[2]
    _, record = only_run(Path("outputs/runs"))
    assert record.provenance["text"]["tokenizer_lossless"] is False
    values = record.metrics["best"].keys()
    assert {"val/nll", "test/nll"} <= values
    assert not [name for name in values if name.endswith(("bits_per_byte", "word_perplexity"))]
    assert records.read(find_runs(Path("outputs/runs"))[0]).status == "completed"
