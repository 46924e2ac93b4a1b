"""Classification: pooling that padding does not touch, and every loss of class targets."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from losses.cases import CASES, Case
from losslab.commands.train import train
from losslab.comparison.analysis import analyse
from losslab.comparison.runs.load import load_runs
from losslab.contracts import Batch, DataInfo, SplitInfo, TargetKind
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.records import read
from losslab.tasks.classification import Classification
from losslab.training.network import Network
from losslab.training.scoring.teacher import TeacherRun
from runs import find_runs

TASK = Classification()
CLASSES = 5
LOSSES = [case for case in CASES if case.loss.target_kind in TASK.accepts and not {*case.make().needs} - TASK.provides]


class Tokens(torch.nn.Module):
    """The hidden state of a token is its id, whatever stands around it."""

    width = 1

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["tokens"][..., None].float()


def batch(*texts: list[int]) -> Batch:
    return TASK.collate([{"text": torch.tensor(text), "label": i % CLASSES} for i, text in enumerate(texts)])


def test_the_mean_is_over_a_text_and_not_its_padding() -> None:
    features = TASK.features(Tokens(), batch([1, 2, 3], [5], [7, 9]), TargetKind.CLASSES, {})
    assert features.hidden.tolist() == [[2.0], [5.0], [8.0]]
    assert (features.target.tolist(), features.weight.tolist()) == ([0, 1, 2], [1.0, 1.0, 1.0])


def test_a_model_with_one_hidden_state_a_text_is_not_pooled() -> None:
    class Pooled(Tokens):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return super().forward(inputs).amax(dim=1)

    assert TASK.features(Pooled(), batch([1, 2, 3], [5]), TargetKind.CLASSES, {}).hidden.tolist() == [[3.0], [5.0]]


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_loss_of_class_targets_trains_and_is_measured(case: Case) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 1, "width": 8, "context": 4, "vocab_size": 11}
    backbone = Decoder(**sizes, tie_embeddings=False, generator=generator)
    info = DataInfo(
        splits={"test": SplitInfo(3)}, mean_positions=1, num_classes=case.size, class_counts=torch.ones(case.size)
    )
    network = Network(backbone=backbone, loss=case.make(), task=TASK, info=info, head_init=generator)
    if network.loss.reads_teacher:
        body = Decoder(**sizes, tie_embeddings=False, generator=generator)
        teacher = Network(backbone=body, loss=CrossEntropy(), task=TASK, info=info, head_init=generator)
        network.teacher = TeacherRun(teacher.eval(), info)
    texts = batch([1, 2, 3], [5], [7, 9])
    sums = network(texts)
    (sums.total / sums.weight).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.backbone.parameters())
    meter = TASK.meter(info, "test", {"scale": 1.0}, thorough=True)
    with torch.no_grad():
        network(texts, meter.update)
    values = meter.values()
    assert values.keys() <= {metric.name for metric in TASK.metrics}
    logits = network.loss.scores(TASK.features(backbone, texts, TargetKind.CLASSES, {}).hidden, network.projection)
    expected = -logits.double().log_softmax(-1).gather(-1, texts.target[:, None]).mean().item()
    assert values["nll_scaled"] == pytest.approx(expected, rel=1e-5)


def macro_f1(confusion: NDArray[np.float64]) -> float:
    return float((2 * confusion.diagonal() / (confusion.sum(axis=0) + confusion.sum(axis=1))).mean())


def test_rows_of_a_table_are_classified_under_three_kinds_of_targets(workplace: Path) -> None:
    with Path("train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        writer.writerows([f"{'ab'[i % 2] * (1 + i % 7)} {i}", "first" if i % 2 else "second"] for i in range(400))
    words = ["task=classification", "data=csv", "data.path=train.csv", "data.columns.label=category"]
    words += ["model.num_layers=1", "model.num_heads=1", "model.width=16", "model.context=12", "trainer.threads=1"]
    words += ["trainer.max_steps=12", "scheduler.warmup_steps=2", "optimizer.lr=0.01"]
    assert train(["-m", *words, "loss=cross_entropy,soft_cross_entropy,binary_cross_entropy", "name=rows"]) == 0
    for run in find_runs(Path("outputs/rows")):
        record = read(run)
        assert (record.status, record.primary) == ("completed", "nll_scaled")
        best = record.metrics["best"]
        assert best["test/top1"] > 0.6 and {"val/macro_f1", "val/balanced_accuracy", "val/mcc"} <= best.keys()
        with np.load(run / "test_scores.npz") as kept:
            assert kept["class_names"].tolist() == ["first", "second"]
            assert best["test/macro_f1"] == pytest.approx(macro_f1(kept["confusion"]))
    judged = analyse(load_runs(Path("outputs/rows")), metric="test/macro_f1")
    assert {row.label for row in judged.rows} == {"cross_entropy", "soft_cross_entropy", "binary_cross_entropy"}
