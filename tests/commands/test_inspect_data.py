"""`losslab data inspect`: counts, lengths, labels, copies and examples of small sets whose numbers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslab.commands.inspect_data import inspect_data
from losslab.console import out
from losslab.errors import UserError

Inspect = Callable[..., str]


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inspect:
    """Inspect in an empty folder → what is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(out, "width", 400)

    def run(*words: str, split: str = "train", examples: int = 2, step: int = 0, as_json: bool = False) -> str:
        assert inspect_data([*words], split=split, examples=examples, step=step, as_json=as_json, config_dir=None) == 0
        return capsys.readouterr().out

    return run


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_copies_lengths_and_labels_are_counted_by_split(inspect: Inspect) -> None:
    train = [{"text": f"text {i}", "label": "odd" if i % 4 == 1 else "even"} for i in range(20)]
    train += [{"text": "text 1", "label": "even"}, {"text": "text 2", "label": "even"}, {"text": "", "label": "odd"}]
    write("train.jsonl", train)
    write("val.jsonl", [{"text": f"text {i}", "label": "even"} for i in (2, 100, 101)])
    write("test.jsonl", [{"text": "a much longer text than all", "label": "odd"}, {"text": "text 101", "label": "odd"}])
    words = ("task=classification", "data=jsonl", "data.path=train.jsonl", "data.val_path=val.jsonl")
    words += ("data.test_path=test.jsonl", "model.context=16", "data.batch_size=4")
    found = json.loads(inspect(*words, as_json=True))
    splits = found["splits"]
    assert [splits[name]["count"] for name in ("train", "val", "test")] == [22, 3, 2]
    assert (splits["train"]["duplicates"], splits["train"]["several_labels"], splits["train"]["copies"]) == (2, 1, {})
    assert (splits["val"]["copies"], splits["test"]["copies"]) == ({"train": 1}, {"train": 0, "val": 1})
    assert splits["train"]["lengths"] == {"min": 7, "median": 7, "p95": 8, "max": 8}
    assert splits["test"]["lengths"]["max"] == 16 and splits["test"]["cut_off"] == 1
    assert splits["train"]["coverage"]["texts that come back changed"] == 0
    assert found["labels"] == {"names": ["even", "odd"], "counts": {"train": [17, 5], "val": [3, 0], "test": [0, 2]}}
    assert found["summary"]["skipped"] == {"rows with an empty text": 1}
    shown = inspect(*words, split="test")
    assert "  train  2 repeat another row of train · 1 of the inputs has several labels\n" in shown
    assert "  test   1 is in val as well\n" in shown
    assert "\neven      17    3     0  77.3%  " in shown and "left out: 1 rows with an empty text" in shown
    assert "a much longer te (16 inputs)\n   predicts    odd\n" in shown  # without the end of text: it was cut off
    assert "\x1b" not in shown


def test_examples_show_what_augmentation_hides(inspect: Inspect) -> None:
    write("rows.jsonl", [{"text": f"text {i}", "label": str(i % 2)} for i in range(400)])
    words = ("task=classification", "data=jsonl", "data.path=rows.jsonl", "data.augment.masking=0.5")
    train, test = inspect(*words), inspect(*words, split="test")
    assert "⟨mask⟩" in train and "⟨end⟩" in train and "change masking 0.5" in train
    assert "⟨mask⟩" not in test
    assert inspect(*words) == train != inspect(*words, step=1)
    mlm = json.loads(inspect("task=mlm", "data=jsonl", "data.path=rows.jsonl", as_json=True))["examples"][0]
    assert sum(mlm["weight"]) == len(mlm["hidden"]) > 0
    assert all(mlm["tokens"][hidden["position"]] == hidden["reads"] for hidden in mlm["hidden"])


def test_values_have_a_histogram_and_tags_have_entities(inspect: Inspect) -> None:
    write("values.jsonl", [{"text": f"row {i}", "value": i % 100} for i in range(400)])
    words = ("task=regression", "task.unit=cm", "data=jsonl", "data.path=values.jsonl")
    (train,) = json.loads(inspect(*words, as_json=True))["values"]["train"]
    assert sum(train["counts"]) == 200 and len(train["counts"]) == 10 and train["edges"][-1] == 99
    assert "value (cm)" in inspect(*words)
    tags = [
        {"words": ["Ann", "saw", "New", "York", str(i)], "tags": ["B-PER", "O", "B-LOC", "I-LOC", "O"]}
        for i in range(400)
    ]
    write("tags.jsonl", tags)
    found = json.loads(inspect("task=tagging", "data=jsonl", "data.path=tags.jsonl", "data.vocab_size=5", as_json=True))
    assert found["entities"]["test"] == {"LOC": 100, "PER": 100} and found["entities"]["train"]["PER"] == 200
    assert found["splits"]["train"]["coverage"]["unknown words"] == 0.2
    assert found["examples"][0]["predicts"] == "Ann/B-PER saw/O New/B-LOC York/I-LOC ⟨unknown⟩/O"


def test_prompts_and_packed_documents_show_what_is_predicted(inspect: Inspect) -> None:
    write("rows.jsonl", [{"prompt": f"{i}+1=", "completion": f"{i + 1}."} for i in range(400)])
    found = json.loads(inspect("task=lm_prompts", "data=jsonl", "data.path=rows.jsonl", as_json=True))["examples"][0]
    prompt, completion = found["reads"][0].removeprefix("⟨end⟩").split("=")
    assert found["predicts"] == f"{int(prompt.partition('+')[0]) + 1}.⟨end⟩"
    assert found["predicted_positions"] == sum(found["weight"]) == len(completion) + 1
    Path("book.txt").write_text("\n\n".join(f"Paragraph {i} of the book." for i in range(300)))
    words = ("data=text", "data.path=book.txt", "data.tokenizer=bytes", "model.context=40", "data.packing=documents")
    shown = inspect(*words, examples=1)
    assert " ┃ " in shown and "of the book.⟨end⟩ … " in shown
    assert "the next token at every position" in inspect(*words[:-1], examples=1)


def test_a_module_without_a_description_has_its_batches_read(inspect: Inspect) -> None:
    found = json.loads(inspect("task=copying", "data=copying", "data.rows=300", "data.eval_rows=10", as_json=True))
    assert found["splits"]["train"]["count"] == 300 and found["splits"]["val"]["lengths"]["max"] == 17
    assert found["splits"]["test"]["copies"] == {"train": 0, "val": 0} and "labels" not in found
    with pytest.raises(UserError, match="--split dev: the data has train, val, test"):
        inspect("task=copying", "data=copying", "data.rows=300", "data.eval_rows=10", split="dev")
    with pytest.raises(UserError, match="--step 5: val has fewer batches"):
        inspect("task=copying", "data=copying", "data.rows=300", "data.eval_rows=10", split="val", step=5)
