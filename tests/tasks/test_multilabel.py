"""Multilabel: rows with any number of labels, from the file to the comparison's arrays and predictions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import losslab
from losslab.commands.predict import predict
from losslab.contracts import DataInfo, TargetKind
from losslab.data.cells import parse_row
from losslab.errors import UserError
from losslab.losses.asymmetric import Asymmetric
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.soft_cross_entropy import SoftCrossEntropy
from losslab.tasks.multilabel import Multilabel
from losslab.training.fitting import check_kinds
from losslab.training.trial.data import sample_keys
from runs import only_run

TOPICS = ("food", "news", "sport")
INFO = DataInfo(splits={}, mean_positions=1, num_classes=4)


class Tokens(torch.nn.Module):
    """The hidden state of a token is its id."""

    width = 1

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["tokens"][..., None].float()


def task() -> Multilabel:
    made = Multilabel()
    made.bind(INFO)
    return made


def example(*labels: int) -> dict[str, Tensor]:
    return {"text": torch.tensor([2, 4]), "labels": torch.tensor(labels, dtype=torch.int64)}


def test_each_label_that_holds_is_1() -> None:
    batch = task().collate([example(0, 3), example(), example(2)])
    found = task().features(Tokens(), batch, TargetKind.LABELS, {})
    assert found.target.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert found.hidden.tolist() == [[3.0]] * 3
    nothing = task().collate([example(), example()])
    assert task().flat_targets(nothing)[0].tolist() == [[0, 0, 0, 0]] * 2


def test_a_sample_is_the_same_beside_others_with_more_labels() -> None:
    alone, beside = task().collate([example(1)]), task().collate([example(1), example(0, 1, 2)])
    assert sample_keys(alone) == sample_keys(beside)[:1]
    assert len({*sample_keys(beside)}) == 2


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), Asymmetric()], ids=["bce", "asymmetric"])
def test_losses_of_labels_fit(loss: BinaryCrossEntropy | Asymmetric) -> None:
    check_kinds(loss, Multilabel())


@pytest.mark.parametrize("loss", [CrossEntropy(), SoftCrossEntropy()], ids=["classes", "distributions"])
def test_other_losses_are_refused_with_what_fits(loss: CrossEntropy | SoftCrossEntropy) -> None:
    fits = "this task goes with loss=asymmetric or binary_cross_entropy"
    with pytest.raises(UserError, match=rf"task=multilabel has labels: .*{fits}"):
        check_kinds(loss, Multilabel())


@pytest.mark.parametrize(
    ("cell", "labels"),
    [("", []), ("  ", []), ("b a b", ["b", "a"]), ([], []), (["x y", 3, "3"], ["x y", "3"])],
    ids=str,
)
def test_cells_of_labels_hold_each_once(cell: object, labels: list[str]) -> None:
    assert parse_row({"labels": cell}, {"labels": "labels"}) == {"labels": labels}


@pytest.mark.parametrize("cell", [None, 3, ["a", None], ["a", ""], {"a": 1}], ids=str)
def test_cells_that_hold_no_labels_are_refused(cell: object) -> None:
    with pytest.raises(ValueError, match="its labels must be a list of labels"):
        parse_row({"labels": cell}, {"labels": "labels"})


def test_data_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="task=multilabel needs labels"):
        Multilabel().bind(DataInfo(splits={}, mean_positions=1))


def write_rows(path: Path) -> None:
    """Each topic's name stands in the text where it holds."""
    draw = random.Random(0)
    rows = []
    for i in range(240):
        held = [topic for topic in TOPICS if draw.random() < 0.4]
        rows.append({"text": " ".join([*held, str(i)]), "topics": held})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_trained_on_scored_and_predicted(
    run_tiny: Callable[..., int],
) -> None:
    write_rows(Path("rows.jsonl"))
    words = ["task=multilabel", "data=jsonl", "data.path=rows.jsonl", "data.columns.labels=topics"]
    assert run_tiny(*words, "loss=asymmetric", "optimizer.lr=0.02") == 0
    run, record = only_run(Path("outputs/runs"))
    best = record.metrics["best"]
    assert record.primary == "nll_scaled" and 0 < best["test/nll_scaled"] < 0.75
    assert {"test/auroc", "test/average_precision", "val/shift", "val/threshold"} <= best.keys()
    with np.load(run / "test_scores.npz") as kept:
        assert kept["class_names"].tolist() == list(TOPICS)
        assert kept["unit_metrics"].tolist() == ["nll_scaled", "nll", "subset_accuracy"]
        assert kept["class_metrics"][3].sum() > 0
    Path("new.csv").write_text('text\nfood 1\n"sport, news"\n')
    assert predict(run, Path("new.csv"), output=Path("out.csv"), checkpoint="best", trust=[]) == 0
    header, *lines = Path("out.csv").read_text().splitlines()
    assert header == "text,predicted,probability" and len(lines) == 2
    for told, line in zip(losslab.load(run).predict(["food 1", "sport, news"]), lines, strict=True):
        held = [topic for topic, p in told["probabilities"].items() if p > 0.5]
        assert told["predicted"] == held and f",{' '.join(held)}," in line
    loaded = losslab.load(run)
    assert (loaded.scale, loaded.shift) == (best["val/scale"], best["val/shift"])
    (own,), (fitted,) = (loaded.predict(["food 1"], temperature=choice) for choice in ("none", "fitted"))
    assert own["probabilities"].keys() == fitted["probabilities"].keys() and own != fitted
    assert predict(run, Path("new.csv"), output=Path("out.csv"), checkpoint="best", trust=[], temperature="fitted") == 0
    assert Path("out.csv").read_text().startswith("text,predicted,probability,scale,shift\n")
    Path("other.csv").write_text("sentence\nfood\n")
    with pytest.raises(UserError, match=r"other\.csv has no column 'text', which this run reads, but 'sentence'"):
        predict(run, Path("other.csv"), output=None, checkpoint="best", trust=[])
