"""Metrics of predicted classes against scikit-learn, in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from losslab.contracts import DataInfo, Features, SplitInfo
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.square import Square
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.confusion import Confusion
from losslab.models.projection import OutputProjection

C = 6
RANDOM = np.random.default_rng(0)


def drawn(true: int, said: int, n: int = 200) -> tuple[list[int], list[int]]:
    """Targets below `true`, predictions below `said`, which agree half of the time where they can."""
    target = RANDOM.integers(true, size=n)
    other = RANDOM.integers(said, size=n)
    return target.tolist(), np.where(RANDOM.random(n) < 0.5, np.minimum(target, said - 1), other).tolist()


CASES = {
    "all classes": drawn(C, C),
    "a class that is never true": drawn(C - 1, C),
    "a class that is never predicted": drawn(C, C - 2),
    "a class that is neither": drawn(C - 1, C - 1),
    "two classes": drawn(2, 2),
    "constant predictions": ([0, 1, 2, 2, 1], [3, 3, 3, 3, 3]),
    "constant targets": ([1, 1, 1], [0, 1, 1]),
    "constant both": ([2, 2, 2], [2, 2, 2]),
    "all wrong": ([0, 1, 2], [1, 2, 0]),
    "all right": ([0, 1, 2], [0, 1, 2]),
    "one sample, right": ([3], [3]),
    "one sample, wrong": ([3], [4]),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scores_are_those_of_scikit_learn(case: tuple[list[int], list[int]], weighted: bool) -> None:
    target, predicted = case
    weight = RANDOM.uniform(0.1, 3, size=len(target)) if weighted else np.ones(len(target))
    confusion = Confusion(C, whole=True)
    half = len(target) // 2
    for part in (slice(0, half), slice(half, None)):
        classes = (torch.tensor(values[part], dtype=torch.int64) for values in case)
        confusion.update(*classes, torch.tensor(weight[part]))
    own = {"sample_weight": weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are never true, which it leaves out
        expected = {
            "macro_f1": sklearn.f1_score(target, predicted, average="macro", zero_division=0, **own),
            "balanced_accuracy": sklearn.balanced_accuracy_score(target, predicted, **own),
            "mcc": sklearn.matthews_corrcoef(target, predicted, **own),
        }
        table = sklearn.precision_recall_fscore_support(
            target, predicted, labels=range(C), average=None, zero_division=0, **own
        )
        matrix = sklearn.confusion_matrix(target, predicted, labels=range(C), **own)
    assert confusion.values() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    arrays = confusion.arrays()
    np.testing.assert_allclose(arrays["class_metrics"], np.stack(table), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(arrays["confusion"], matrix, rtol=1e-12, atol=1e-12)


def test_nothing_counted_has_no_value() -> None:
    assert all(np.isnan(value) for value in Confusion(3, whole=True).values().values())


def test_many_classes_keep_no_matrix_and_the_same_scores() -> None:
    """77 of 201 classes occur."""
    target, predicted = (torch.from_numpy(RANDOM.integers(77, size=500)) for _ in range(2))
    few, many = Confusion(200, whole=True), Confusion(201, whole=True)
    for confusion in (few, many):
        confusion.update(target, predicted, torch.ones(500))
    assert few.values() == pytest.approx(many.values(), rel=1e-12)
    assert few.arrays()["confusion"].shape == (200, 200)
    assert many.arrays().keys() == {"class_metrics"}
    assert Confusion(200, whole=False).arrays().keys() == {"class_metrics"}


@pytest.mark.parametrize("loss", [CrossEntropy(), Square()], ids=["softmax", "another prediction"])
def test_the_meter_predicts_the_first_of_the_likeliest(loss: CrossEntropy | Square) -> None:
    """Integer logits tie; positions of weight 0 count nowhere."""
    generator = torch.Generator().manual_seed(0)
    logits: Tensor = torch.randint(3, (120, C), generator=generator).float()
    target = torch.randint(C, (120,), generator=generator)
    weight = torch.tensor([1.0, 0.5, 0.0]).repeat(40)
    info = DataInfo(splits={"test": SplitInfo(120)}, mean_positions=1, num_classes=C, class_names=tuple("abcdef"))
    meter = ClassMeter(info, "test", 1.0, thorough=True, by_class=True)
    meter.update(Features(logits, target, weight), loss, OutputProjection(torch.eye(C)))
    predicted = logits.numpy().argmax(axis=1)
    values = meter.values()
    own = {"sample_weight": weight.double().numpy()}
    assert values["top1"] == pytest.approx(sklearn.accuracy_score(target, predicted, **own))
    assert values["mcc"] == pytest.approx(sklearn.matthews_corrcoef(target, predicted, **own))
    arrays = meter.arrays()
    assert arrays["class_names"].tolist() == list("abcdef")
    assert arrays["confusion"].trace() / arrays["confusion"].sum() == pytest.approx(values["top1"])
