"""Question answering: batches, metrics over windows and ranks, and a run that answers the questions of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.text.squad import squad

import losslab
from atlas import atlas, write_atlas
from losslab.commands.predict import predict
from losslab.commands.train import train
from losslab.contracts import Batch, DataInfo, Passage, SplitInfo, TargetKind
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.models.projection import OutputProjection
from losslab.tasks.qa import QuestionAnswering
from losslab.training.network import Network
from losslab.training.reading import check_reading
from runs import only_run

PASSAGES = {5: Passage("abcdefgh", ["CD"]), 8: Passage("xyz", [])}
END = 99


def example(question: int, window: str, first: int, span: tuple[int, int] = (-1, -1)) -> dict[str, Any]:
    """A window of one character a token behind a question of one token."""
    return {
        "text": torch.tensor([END, 1, END]),
        "text_pair": torch.tensor([*map(ord, window), END]),
        "offsets": torch.tensor([[first + i, first + i + 1] for i in range(len(window))], dtype=torch.int32),
        "span": span,
        "question": question,
    }


BATCHES = [
    QuestionAnswering().collate([example(5, "abcd", 0, (2, 3)), example(8, "xyz", 0)]),
    QuestionAnswering().collate([example(5, "cdefgh", 2, (0, 1))]),
]


class Letters(torch.nn.Module):
    """The hidden state of a token is its own vector of START and END scores, and what must be there to be projected."""

    width = 2

    def __init__(self, scores: dict[str, tuple[float, float]]) -> None:
        super().__init__()
        self.table = torch.full((128, 2), -4.0)
        for letter, pair in scores.items():
            self.table[ord(letter) if len(letter) == 1 else END] = torch.tensor(pair)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.table[inputs["tokens"]]

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        return OutputProjection(torch.eye(2))


class Cut(Letters):
    """A model that leaves the last tokens out."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs)[:, :3]


def info_of(split: str) -> DataInfo:
    return DataInfo({split: SplitInfo(3, 2, "text")}, 1, vocab_size=128, passages=PASSAGES.__getitem__)


def measured(task: QuestionAnswering, scores: dict[str, tuple[float, float]], batches: list[Batch]) -> dict[str, float]:
    network = Network(
        backbone=Letters(scores), loss=CrossEntropy(), task=task, info=info_of("test"), head_init=torch.Generator()
    )
    meters = []
    for batch in batches:  # a rank each
        meter = task.meter(info_of("test"), "test", {"scale": 1.0, "threshold": 9.0}, thorough=False)
        network(batch, observer=meter.update)
        network(batch._replace(weight=torch.zeros_like(batch.weight)), observer=meter.update)
        meters.append(meter)
    states = [meter.states() for meter in meters]
    combined = {
        name: torch.cat([own[name][0] for own in states]) if how == "cat" else sum(own[name][0] for own in states)
        for name, (_, how) in states[0].items()
    }
    meters[0].combine(combined)
    return meters[0].values()


def test_a_batch_points_at_tokens_of_the_text_or_at_the_first() -> None:
    batch = BATCHES[0]
    assert batch.inputs["tokens"].tolist()[1] == [END, 1, END, *map(ord, "xyz"), END, 0]
    assert batch.inputs["types"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0]]
    assert batch.target.tolist() == [[5, 6], [0, 0]]
    assert batch.extras["places"].int().tolist() == [[1, 0, 0, 1, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1, 0, 0]]
    assert batch.extras["offsets"][0, 5].tolist() == [2, 3]
    target, weight = QuestionAnswering().flat_targets(batch)
    assert target.tolist() == [5, 6, 0, 0] and weight.tolist() == [0.5] * 4


def test_answers_are_scored_over_windows_and_ranks() -> None:
    scores = {"first": (0.0, 0.0), "c": (5.0, -4.0), "d": (-4.0, 5.0), "y": (1.0, 1.0)}
    task = QuestionAnswering()
    found = measured(task, scores, BATCHES)
    names = ("em", "f1", "em_fitted", "has_answer_em", "has_answer_f1", "no_answer_accuracy")
    assert [found[name] for name in names] == [0.5, 0.5, 0.5, 1, 1, 0], "y is the answer that there is not"
    for threshold, right in ((-9.0, [1, 1]), (-12.0, [0, 1]), (None, [1, 0])):
        own = measured(QuestionAnswering(null_threshold=threshold), scores, BATCHES)
        assert [own["has_answer_em"], own["no_answer_accuracy"]] == right
        assert (own["em_fitted"], own["threshold"]) == (0.5, 9.0), "which answers both"
    assert measured(QuestionAnswering(max_answer=1), scores, BATCHES)["has_answer_em"] == 0
    expected = []
    for batch in BATCHES:  # the definition, a window and an end at a time
        table = Letters(scores).table[batch.inputs["tokens"]]
        for i, places in enumerate(batch.extras["places"]):
            for end in range(2):
                log_p = torch.where(places, table[i, :, end], -torch.inf).log_softmax(dim=0)
                expected.append(-float(log_p[batch.target[i, end]]))
    assert found["nll"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert set(found) <= {metric.name for metric in task.metrics}


def test_models_that_read_one_side_and_bad_keys_are_refused(tmp_path: Path) -> None:
    (table := tmp_path / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(UserError, match="task=qa reads questions about texts, and this data gives none: data=squad"):
        RowsDataModule(path=str(table), rules=2, context=8).check_task(QuestionAnswering())
    decoder = Decoder(num_layers=1, num_heads=1, width=8, context=4, vocab_size=11, tie_embeddings=False)
    with pytest.raises(UserError, match=r"task=qa chooses places that both sides tell about: choose model"):
        check_reading(decoder, QuestionAnswering())
    with pytest.raises(UserError, match=r"task\.max_answer must be 1 or above"):
        QuestionAnswering(max_answer=0)
    with pytest.raises(UserError, match=r"task\.null_threshold must be a number"):
        QuestionAnswering(null_threshold=float("nan"))
    with pytest.raises(UserError, match=r"Cut returned hidden states of shape \[2, 3, 2\]"):
        QuestionAnswering().features(Cut({}), BATCHES[0], TargetKind.CLASSES, {})


WORDS = ["task=qa", "data=squad", "data.path=train.json", "data.test_path=dev.json", "data.vocab_size=400"]
WORDS += ["model=encoder", "model.num_layers=1", "model.num_heads=4", "model.width=32", "model.context=32"]
WORDS += ["model.num_types=2", "model.init_std=0.1", "optimizer.lr=0.02", "scheduler.warmup_steps=10"]
WORDS += ["trainer.threads=1", "loggers=none", "trainer.max_steps=180", "trainer.val_check_interval=180"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learned the atlas, beside its questions."""
    place = tmp_path_factory.mktemp("qa")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        write_atlas(Path("train.json"), 240, impossible=0.2)
        write_atlas(Path("dev.json"), 20, impossible=0.2, seed=9)
        assert train([*WORDS, "name=atlas"]) == 0
    return only_run(place / "outputs/atlas")[0]


def test_a_run_learns_to_answer(trained: Path) -> None:
    best = only_run(trained)[1].metrics["best"]
    assert best["test/em"] >= 0.9 and best["test/f1"] >= best["test/em"]
    assert best["test/no_answer_accuracy"] >= 0.8 and best["val/threshold"] == best["test/threshold"]
    text = only_run(trained)[1].provenance["text"]
    assert text["questions"]["test"] == 60 and text["how"].startswith("test its own; of the rest, the hash of each")


def test_predictions_are_those_of_the_evaluation(trained: Path, tmp_path: Path) -> None:
    """In the form that SQuAD's script reads; the mean of what it says of answerable questions is the run's."""
    dev = trained.parents[2] / "dev.json"
    assert predict(trained, dev, output=tmp_path / "said.json", checkpoint="best", trust=[]) == 0
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    questions = [(q, p) for a in atlas(20, impossible=0.2, seed=9)["data"] for p in a["paragraphs"] for q in p["qas"]]
    assert said.keys() == {question["id"] for question, _ in questions}
    assert all(answer in paragraph["context"] for (_, paragraph), answer in zip(questions, said.values(), strict=True))
    best = only_run(trained)[1].metrics["best"]
    answerable = [question for question, _ in questions if question["answers"]]
    predictions = [{"id": question["id"], "prediction_text": said[question["id"]]} for question in answerable]
    golds = [
        {"id": q["id"], "answers": {"text": [a["text"] for a in q["answers"]], "answer_start": [0]}} for q in answerable
    ]
    found = squad(predictions, golds)
    assert float(found["exact_match"]) == pytest.approx(100 * best["test/has_answer_em"], rel=1e-5)
    assert float(found["f1"]) == pytest.approx(100 * best["test/has_answer_f1"], rel=1e-5)
    empty = [not said[question["id"]] for question, _ in questions if not question["answers"]]
    assert sum(empty) / len(empty) == pytest.approx(best["test/no_answer_accuracy"])


def test_a_question_is_answered_out_of_a_long_text(trained: Path) -> None:
    """Windows of 32 tokens: the answer stands in the last ones."""
    context = "Belmor: " + "the dish is bread, " * 9 + "the river is Umber"
    loaded = losslab.load(trained)
    (found,) = loaded.predict([{"question": "Which river?", "context": context}])
    assert found["predicted"] == found["best_span"] and found["predicted"].endswith("Umber")
    assert found["no_answer_odds"] < 0
    with pytest.raises(UserError, match="row 1 has no 'context', but 'question'"):
        loaded.predict([{"question": "Which river?"}])
    with pytest.raises(UserError, match="a temperature changes none"):
        loaded.predict([], temperature="fitted")


def test_answers_by_id_need_ids(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,context\nWhich river?,the river is Tarn\n")
    with pytest.raises(UserError, match="row 1 has none: write"):
        predict(trained, tmp_path / "rows.csv", output=tmp_path / "said.json", checkpoint="best", trust=[])
    assert predict(trained, tmp_path / "rows.csv", output=tmp_path / "said.csv", checkpoint="best", trust=[]) == 0
    header, row = (tmp_path / "said.csv").read_text().splitlines()
    assert header == "question,context,predicted,best_span,no_answer_odds" and row.split(",")[3] == "Tarn"
