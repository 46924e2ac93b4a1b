"""Tagging: a class for each word, padding that changes nothing, and entities over sentences, batches and ranks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from seqeval.metrics import accuracy_score, f1_score
from torch import Tensor

import losslab
from losses.cases import CASES, Case
from losslab.commands.train import train
from losslab.conformance.samples import rows
from losslab.contracts import Batch, DataInfo, SplitInfo, TargetKind
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.execution import LinearMap
from losslab.models.decoder import Decoder
from losslab.tasks.tagging import Tagging
from losslab.training.network import Network
from losslab.training.scoring.teacher import TeacherRun
from runs import only_run

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-X", "I-X", "B-Y", "I-Y"]
LOSSES = [
    case
    for case in CASES
    if case.loss.target_kind in Tagging.accepts
    and not {*case.make().needs} - Tagging.provides
    and case.name != "coral"  # tags have no order
]


def info_of(count: int) -> DataInfo:
    return DataInfo(
        splits={"test": SplitInfo(9)},
        mean_positions=3,
        num_classes=count,
        class_counts=torch.ones(count),
        artifacts={"labels.json": json.dumps({"tags": TAGS[:count]})},
    )


def batch(*sentences: list[int]) -> Batch:
    """Sentences whose tags are given; the words are the same numbers."""
    return Tagging().collate([{"words": torch.tensor(tags), "tags": torch.tensor(tags)} for tags in sentences])


class Words(torch.nn.Module):
    """The hidden state of a word is the row of its number."""

    width = 7

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.eye(7)[inputs["tokens"]]


def counted(task: Tagging, batches: list[Batch], prediction: Tensor) -> dict[str, float]:
    meter = task.meter(info_of(7), "test", {"scale": 1.0}, thorough=False)
    for part in batches:
        features = task.features(Words(), part, TargetKind.CLASSES, {})
        meter.update(features, CrossEntropy(), LinearMap(prediction, None))
    return meter.values()


def test_words_are_scored_by_sentence_and_padding_never() -> None:
    task = Tagging()
    task.bind(info_of(7))
    sentences = [[0, 1, 2, 0], [2], [3, 4, 1], [5, 6, 6, 0, 1, 1]]
    wrong = torch.eye(7)
    wrong[:, 2] = 0
    wrong[0, 2] = 5.0  # each I-PER is taken for O
    named = [[TAGS[tag] for tag in sentence] for sentence in sentences]
    guessed = [[TAGS[0 if tag == 2 else tag] for tag in sentence] for sentence in sentences]
    whole = counted(task, [batch(*sentences)], wrong)
    assert whole["entity_f1"] == pytest.approx(f1_score(named, guessed))
    assert whole["top1"] == pytest.approx(accuracy_score(named, guessed))
    halves = counted(task, [batch(*sentences[:2]), batch(*sentences[2:])], wrong)
    assert halves == pytest.approx(whole, nan_ok=True)
    idle = batch(*sentences)
    idle = idle._replace(weight=torch.zeros_like(idle.weight))
    assert counted(task, [batch(*sentences), idle], wrong) == pytest.approx(whole, nan_ok=True)
    assert counted(task, [rows(batch(*sentences), slice(1, 2))], torch.eye(7))["entity_f1"] == 1
    assert batch([], [1]).weight.tolist() == [[0.0], [1.0]]


def test_ranks_are_combined() -> None:
    task = Tagging()
    task.bind(info_of(7))
    meters = []
    for part in (batch([0, 1, 2]), batch([3, 4], [1])):
        meter = task.meter(info_of(7), "test", {"scale": 1.0}, thorough=True)
        features = task.features(Words(), part, TargetKind.CLASSES, {})
        meter.update(features, CrossEntropy(), LinearMap(torch.eye(7), None))
        meters.append(meter)
    states = [meter.states() for meter in meters]
    meters[0].combine({name: state + states[1][name][0] for name, (state, _) in states[0].items()})
    whole = counted(task, [batch([0, 1, 2], [3, 4], [1])], torch.eye(7))
    found = meters[0].values()
    assert {name: found[name] for name in whole} == pytest.approx(whole, nan_ok=True)


def test_tags_without_entities_have_the_metrics_of_classes() -> None:
    task = Tagging(entities=False)
    task.bind(DataInfo({}, 1, num_classes=2))
    assert task.primary == "nll_scaled" and "entity_f1" not in {metric.name for metric in task.metrics}
    with pytest.raises(UserError, match=r"set task\.entities=false"):
        Tagging().bind(DataInfo({}, 1, num_classes=2))
    with pytest.raises(UserError, match="needs classes"):
        task.target_size(DataInfo({}, 1, num_values=2))


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_loss_of_class_targets_trains_and_is_measured(case: Case) -> None:
    generator, info, task = torch.Generator().manual_seed(0), info_of(case.size), Tagging()
    sizes = {"num_layers": 1, "num_heads": 1, "width": 8, "context": 4, "vocab_size": 11}
    backbone = Decoder(**sizes, tie_embeddings=False, generator=generator)
    network = Network(backbone=backbone, loss=case.make(), task=task, info=info, head_init=generator)
    if network.loss.reads_teacher:
        body = Decoder(**sizes, tie_embeddings=False, generator=generator)
        teacher = Network(backbone=body, loss=CrossEntropy(), task=Tagging(), info=info, head_init=generator)
        network.teacher = TeacherRun(teacher.eval(), info)
    sentences = batch([0, 1, 2], [3], [1, 2])
    sums = network(sentences)
    (sums.total / sums.weight).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.backbone.parameters())
    meter = task.meter(info, "test", {"scale": 1.0}, thorough=True)
    with torch.no_grad():
        network(sentences, meter.update)
    assert task.primary in meter.values() and meter.values().keys() <= {metric.name for metric in task.metrics}


def test_a_run_tags_the_words_of_a_file(workplace: Path) -> None:
    rng, longer = random.Random(0), 0
    with Path("train.jsonl").open("w") as file:
        for _ in range(60):
            words = rng.choices(["Smith", "sees", "York", "a"], k=rng.randint(1, 7))
            longer += len(words) > 6
            tags = [{"Smith": "B-PER", "York": "B-LOC"}.get(word, "O") for word in words]
            file.write(json.dumps({"words": words, "ner": tags}) + "\n")
    words = ["task=tagging", "data=jsonl", "data.path=train.jsonl", "data.columns.tags=ner", "model.num_layers=1"]
    words += ["model.num_heads=1", "model.width=16", "model.context=6", "trainer.max_steps=12", "optimizer.lr=0.03"]
    words += ["scheduler.warmup_steps=2", "trainer.threads=1", "loggers=none", "trainer.interim_eval_tokens=0"]
    assert train([*words, "name=tags"]) == 0
    run, record = only_run(Path("outputs/tags"))
    assert (record.status, record.primary) == ("completed", "entity_f1")
    assert record.metrics["best"]["test/entity_f1"] > 0.9
    sentence = ["a", "Smith", "sees", "York", "unseen"]
    (found,) = losslab.load(run).predict([{"words": sentence}])
    assert found["predicted"][:4] == ["O", "B-PER", "O", "B-LOC"] and len(found["predicted"]) == 5
    assert sum(record.provenance["text"]["truncated"].values()) == longer
