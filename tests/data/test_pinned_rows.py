"""Arrays of rows in the cache, bit for bit as they were when whole tables were held in memory (commit 86781f9)."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losslab.data.row_files import FileRows
from losslab.data.row_reading import Reading
from losslab.data.row_store import open_rows

WORDS = "the a loss of model naïve café 数据 trains and evaluates, slowly; 🙂 don't (ever) 42 x\u2028y".split(" ")
PAIR: dict[str, Any] = {"text": "text", "text_pair": "text", "label": "label"}
ALL: dict[str, Any] = {
    "words": "words", "tags": "tags", "labels": "labels", "value": "value", "values": "values", "text": "text",
}  # fmt: skip
JOINED: dict[str, Any] = {"joined": ["text", "text_pair"]}
TEXT: dict[str, Any] = {"text": "text", "label": "label"}
RUNNING: dict[str, Any] = {"text": "text", "text_pair": "text", "label": "value"}


def table(count: int) -> list[dict[str, Any]]:
    draw = random.Random(7)

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(0, most)))

    def row(i: int) -> dict[str, Any]:
        words = draw.choices(WORDS, k=draw.randint(1, 9))
        return {
            "text": text(12),
            "text_pair": text(9),
            "label": draw.choice([1, 2, 10, 11, 11, 11]),
            "words": words,
            "tags": [draw.choice("ABO") for _ in words],
            "labels": draw.choices(["x", "y", "z"], k=draw.randint(0, 4)),
            "value": draw.random(),
            "values": [draw.gauss(0, 1) for _ in range(3)],
            "user": f"u{i % 37}",
        }

    rows = [row(i) for i in range(count)]
    return rows + [{**found, "label": 10} for found in rows[::9]]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Reading, dict[str, Any], str]] = {
    "labels": (TEXT, {}, Reading(), {}, "bytes"),
    "rules 1": (TEXT, {}, Reading(rules=1), {}, "bytes"),
    "shares": (TEXT, {}, Reading(val_fraction=0.07, test_fraction=0.31), {"context": 200}, "bytes"),
    "group": (TEXT, {"test_path": "b.jsonl"}, Reading(group="user"), {"masks": True}, "bytes"),
    "own": (TEXT, {"val_path": "b.jsonl", "test_path": "b.jsonl"}, Reading(), {"whole": ["val", "test"]}, "bytes"),
    "all kinds": (ALL, {}, Reading(), {"context": 5, "vocab_size": 9}, "bytes"),
    "pair": (PAIR, {}, Reading(), JOINED, "bytes"),
    "pair whole": (PAIR, {}, Reading(rules=1), {"whole": ["val"]}, "bytes"),
    "left": (RUNNING, {}, Reading(rules=1), JOINED | {"cut": "left"}, "bytes"),
    "right": (RUNNING, {}, Reading(rules=1), JOINED | {"cut": "right"}, "bytes"),
    "bpe": (PAIR, {}, Reading(), JOINED | {"vocab_size": 300, "context": 20, "lowercase": True, "masks": True}, "bpe"),
}
PINNED = {
    "labels": "5925cc7e7e75cada",
    "rules 1": "13f8abefb09ecbee",
    "shares": "58f7953e1013a1cb",
    "group": "b8c0bf79658e75d0",
    "own": "e8c3344824249c3d",
    "all kinds": "43f8ca5d09458694",
    "pair": "2e43be43117b3aaf",
    "pair whole": "06a8848bb093e308",
    "left": "2c969924b4bb51b8",
    "right": "fc8c02ba0f8b42c5",
    "bpe": "8c97ca6182ec7d60",
}
TOLD = ("how", "copies", "grouped", "skipped", "class_counts", "rows", "truncated", "vocab_size", "mask",
        "num_classes", "num_values")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    rows = table(700)
    for name, part in (("a.jsonl", rows[:600]), ("b.jsonl", rows[500:])):
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    return path


@pytest.mark.parametrize("name", CASES)
def test_rows_are_kept_as_they_were(name: str, folder: Path, tmp_path: Path) -> None:
    columns, paths, reading, more, tokenizer = CASES[name]
    source = FileRows(str(folder / "a.jsonl"), **{key: str(folder / file) for key, file in paths.items()})
    settings: dict[str, Any] = {"kinds": columns, "vocab_size": 100, "context": 24} | more
    store = open_rows(tmp_path, settings, source, reading, columns, tokenizer)
    digest = hashlib.sha256(json.dumps([store.meta[key] for key in TOLD]).encode())
    digest.update(json.dumps([store.meta.get("longer"), store.meta["artifacts"].get("labels.json")]).encode())
    for array in sorted(tmp_path.glob("*/*.npy")):
        digest.update(array.name.encode() + array.read_bytes())
        assert np.load(array).ndim == 1
    assert digest.hexdigest()[:16] == PINNED[name]
