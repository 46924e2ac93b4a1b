"""The yamls of sets that people know read the layout that is published: on a few rows each."""

from pathlib import Path
from typing import Any

import pytest

from losslab.config.compose import compose_plain
from losslab.data.row_reading import Rows
from losslab.data.rows import RowsDataModule
from losslab.tasks.classification import Classification
from losslab.tasks.regression import Regression
from losslab.tasks.tagging import Tagging

N = range(24)
GLUE = "index\tsentence1\tsentence2\tscore\n" + "".join(f'{i}\tA "{i}\tB {i}\t{i / 5}\n' for i in N)
SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
SICK += "".join(f"{i}\tA {i}\tB {i}\t{1 + i / 8}\tNEUTRAL\n" for i in N)
CONLL = "-DOCSTART- -X- -X- O\n\n" + "".join(f"w{i} NNP B-NP B-PER\nran VBD B-VP O\n\n" for i in N)
QUESTIONS = "".join(f"{'NUM:date' if i % 2 else 'HUM:ind'} Question {i} caf\xe9 ?\n" for i in N)
INTENTS = "text,category\r\n" + "".join(f'"Where, or ""when""\n{i}?",intent_{i % 2}\r\n' for i in N)
NEWS = "".join(f'"{1 + i % 4}","Title {i}","It said ""{i}"", then"\n' for i in N)
PHRASES = "sentence\tlabel\n" + "".join(f'a "phrase {i} \t{i % 2}\n' for i in N)
REVIEWS = {
    f"{split}/{label}/{i}_9.txt": f"{label} {i}"
    for split in ("train", "test")
    for label in ("pos", "neg", "unsup")
    for i in N
}
SETS: dict[str, tuple[Any, dict[str, str], dict[str, str], dict[str, Any]]] = {
    "trec": (Classification(), {"train.label": QUESTIONS, "test.label": QUESTIONS, "README.md": ""}, {"path": ""},
             {"text": "Question 0 café ?", "label": "HUM"}),
    "banking77": (Classification(), {"train.csv": INTENTS, "test.csv": INTENTS, "LICENSE": ""}, {"path": ""},
                  {"text": 'Where, or "when"\n0?', "label": "intent_0"}),
    "sst2": (Classification(), {"train.tsv": PHRASES, "dev.tsv": PHRASES, "test.tsv": "index\tsentence\n"},
             {"path": "train.tsv", "val_path": "dev.tsv"}, {"text": 'a "phrase 0 ', "label": "0"}),
    "ag_news": (Classification(), {"train.csv": NEWS, "test.csv": NEWS, "classes.txt": "World"}, {"path": ""},
                {"text": 'It said "0", then', "label": "1"}),
    "imdb": (Classification(), REVIEWS, {"path": "train/neg train/pos", "test_path": "test/neg test/pos"},
             {"text": "neg 0", "label": "neg"}),
    "stsb": (Regression(pair=True), {"train.tsv": GLUE, "dev.tsv": GLUE}, {"path": "train.tsv", "test_path": "dev.tsv"},
             {"text": 'A "0', "text_pair": "B 0", "value": 0.0}),
    "sick": (Regression(pair=True), {"SICK_train.txt": SICK, "SICK_trial.txt": SICK},
             {"path": "SICK_train.txt", "val_path": "SICK_trial.txt"},
             {"text": "A 0", "text_pair": "B 0", "value": 1.0}),
    "conll2003": (Tagging(), {"eng.train": CONLL, "eng.testa": CONLL}, {"path": "eng.train", "val_path": "eng.testa"},
                  {"words": ["w0", "ran"], "tags": ["B-PER", "O"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_as_it_is_published(name: str, tmp_path: Path) -> None:
    task, files, paths, first = SETS[name]
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content.encode("latin-1" if name == "trec" else "utf-8"))
    places = {key: [f"{tmp_path}/{file}" for file in named.split(" ")] for key, named in paths.items()}
    node = compose_plain([f"data={name}"])["data"] | {k: v if len(v) > 1 else v[0] for k, v in places.items()}
    data = RowsDataModule(**{key: value for key, value in node.items() if key != "_target_"})
    data.check_task(task)
    read: Rows = data.reading.read(data.source, task.columns, tmp_path)
    whole = [row for rows in read.rows.values() for row in rows]
    assert first in whole
    rows = 24 * (2 if name == "imdb" else 1)
    assert len(whole) == 2 * rows, "a split of its own beside the rows of the others"
    assert sorted(len(rows) for rows in read.rows.values())[-1] == rows
