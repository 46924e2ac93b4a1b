"""Metrics of labels against scikit-learn and a dense float64 computation, and the numbers that val fits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import optimize, special
from sklearn import metrics as sklearn

from losslab.contracts import DataInfo, Features, SplitInfo
from losslab.losses.asymmetric import Asymmetric
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.metrics import label_meter
from losslab.metrics.label_calibration import LabelCalibration
from losslab.metrics.label_meter import LabelMeter
from losslab.metrics.ranking import average_precision_and_auroc
from losslab.models.projection import OutputProjection

C, N = 5, 120
FITTED = {"scale": 0.7, "shift": -0.4, "threshold": 0.3}
WEIGHT = 3.0


@dataclass(frozen=True)
class Case:
    """Scores [N, C] and labels [N, C]."""

    z: torch.Tensor
    y: torch.Tensor


def drawn(seed: int = 0, n: int = N) -> Case:
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, C, generator=generator) - 1
    return Case(z, torch.bernoulli((0.8 * z - 0.5).sigmoid(), generator=generator))


def with_labels(y: torch.Tensor) -> Case:
    return Case(drawn().z[: len(y)], y)


CASES = {
    "random": drawn(),
    "ties": Case(drawn().z.round(), drawn().y),
    "a label that is absent": with_labels(torch.cat([drawn().y[:, :-1], torch.zeros(N, 1)], dim=1)),
    "a label that always holds": with_labels(torch.cat([drawn().y[:, :-1], torch.ones(N, 1)], dim=1)),
    "no label": with_labels(torch.zeros(N, C)),
    "every label": with_labels(torch.ones(N, C)),
    "constant predictions": Case(torch.zeros(N, C), drawn().y),
    "one sample": Case(drawn().z[:1], torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]])),
}


def features(case: Case, weight: torch.Tensor | None = None, fit: torch.Tensor | None = None) -> Features:
    n = len(case.z)
    extras = {"id": torch.arange(n), "unit": torch.arange(n) // 2, "fit": torch.zeros(n) if fit is None else fit}
    return Features(case.z, case.y, torch.ones(n) if weight is None else weight, extras)


def meter(n: int, split: str = "test") -> LabelMeter:
    info = DataInfo(splits={split: SplitInfo(n, -(-n // 2))}, mean_positions=1, num_classes=C)
    return LabelMeter(info, split, FITTED, thorough=True)


PROJECTION = OutputProjection(torch.eye(C))


def measured(case: Case, weight: torch.Tensor | None = None) -> dict[str, float]:
    found = meter(len(case.z))
    found.update(features(case, weight), BinaryCrossEntropy(positive_weight=WEIGHT), PROJECTION)
    return found.values()


def by_hand(case: Case, weight: torch.Tensor | None) -> dict[str, float]:
    z, y = case.z.double().numpy(), case.y.double().numpy()
    w = np.ones(len(z)) if weight is None else weight.double().numpy()
    own = {"sample_weight": w}

    def nll(x: np.ndarray) -> float:
        return float(w @ (np.logaddexp(0, x) - y * x).mean(axis=1) / w.sum())

    p = special.expit(z)
    expected = {
        "nll": nll(z),
        "nll_scaled": nll(FITTED["scale"] * z + FITTED["shift"]),
        "nll_linked": nll(z - math.log(WEIGHT)),
        "nll_linked_clipped": 0.0,
        "objective": w @ (-WEIGHT * y * special.log_expit(z) - (1 - y) * special.log_expit(-z)).sum(axis=1) / w.sum(),
        "brier": float(w @ ((p - y) ** 2).mean(axis=1) / w.sum()),
        "subset_accuracy": sklearn.accuracy_score(y, p > 0.5, **own),
        "hamming_loss": sklearn.hamming_loss(y, p > 0.5, **own),
    }
    for ending, said in (("", p > 0.5), ("_fitted", p > FITTED["threshold"])):
        for average in ("micro", "macro"):
            expected[f"{average}_f1{ending}"] = sklearn.f1_score(y, said, average=average, zero_division=0, **own)
    both = [j for j in range(C) if 0 < y[:, j].sum() < len(y)]
    some = [j for j in range(C) if y[:, j].sum()]
    precision = [sklearn.average_precision_score(y[:, j], z[:, j], **own) for j in some]
    area = [sklearn.roc_auc_score(y[:, j], z[:, j], **own) for j in both]
    expected["average_precision"] = float(np.mean(precision)) if some else math.nan
    expected["auroc"] = float(np.mean(area)) if both else math.nan
    return expected | FITTED


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_are_those_of_scikit_learn(case: Case, weighted: bool) -> None:
    weight = torch.rand(len(case.z), generator=torch.Generator().manual_seed(1)) + 0.1 if weighted else None
    values = measured(case, weight)
    assert 0 <= values.pop("ece") <= 1 and 0 <= values.pop("ece_scaled") <= 1
    assert values == pytest.approx(by_hand(case, weight), rel=1e-6, abs=1e-9, nan_ok=True)


def test_positions_of_weight_zero_count_nowhere() -> None:
    case, weight = drawn(), torch.tensor([1.0, 0.0]).repeat(N // 2)
    torn = Case(case.z.masked_fill((weight == 0)[:, None], torch.nan), case.y)
    assert measured(torn, weight) == measured(Case(case.z[::2], case.y[::2]))


def test_two_ranks_give_the_same_in_either_order() -> None:
    case = drawn()
    whole, *parts = (meter(N) for _ in range(3))
    found = features(case)
    loss = BinaryCrossEntropy()
    whole.update(found, loss, PROJECTION)
    for rank, part in enumerate(parts):
        part.update(found[torch.arange(rank, N, 2)], loss, PROJECTION)
    states = [part.states() for part in reversed(parts)]
    together = {
        name: torch.cat([state[name][0] for state in states]) if how == "cat" else sum(s[name][0] for s in states)
        for name, (_, how) in states[0].items()
    }
    parts[0].combine(together)  # type: ignore[arg-type]
    ranks, one = parts[0].values(), whole.values()
    assert ranks.pop("objective") == pytest.approx(one.pop("objective"), rel=1e-6)
    assert ranks == pytest.approx(one, rel=1e-12)
    for name in ("micro_f1", "macro_f1", "average_precision", "auroc", "subset_accuracy"):
        assert ranks[name] == one[name]


def test_the_fitting_half_of_val_is_left_out_of_what_was_fitted() -> None:
    case, fit = drawn(), torch.tensor([1.0, 0.0]).repeat(N // 2)
    found = meter(N, "val")
    found.update(features(case, fit=fit), BinaryCrossEntropy(positive_weight=WEIGHT), PROJECTION)
    whole, half = by_hand(case, None), by_hand(Case(case.z[1::2], case.y[1::2]), None)
    of_half = {name for name in whole if name.endswith("_fitted")} | {"nll_scaled"}
    expected = {name: half[name] if name in of_half else value for name, value in whole.items()}
    values = found.values()
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_units_add_up_and_each_label_has_its_scores() -> None:
    case = drawn()
    found = meter(N)
    found.update(features(case), BinaryCrossEntropy(), PROJECTION)
    values, arrays = found.values(), found.arrays()
    weight, *sums = arrays["units"]
    for name, row in zip(arrays["unit_metrics"], sums, strict=True):
        assert row.sum() / weight.sum() == pytest.approx(values[str(name)], rel=1e-5)
    p, y = case.z.double().sigmoid().numpy(), case.y.numpy()
    table = sklearn.precision_recall_fscore_support(y, p > 0.5, average=None, zero_division=0)
    np.testing.assert_allclose(arrays["class_metrics"], np.stack(table), rtol=1e-12)
    assert arrays["ranking"].mean(axis=1).tolist() == pytest.approx([values["average_precision"], values["auroc"]])
    assert arrays["reliability"].shape == (2, 3, 15)


def test_many_decisions_are_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_meter, "MOST_RANKED", N * C - 1)
    values = measured(drawn())
    assert not {"average_precision", "auroc"} & values.keys() and values["micro_f1"] > 0


def test_a_score_that_is_no_number_has_no_rank() -> None:
    scores = torch.tensor([1.0, math.nan])
    assert all(map(math.isnan, average_precision_and_auroc(scores, scores > 0, torch.ones(2).double())))


def calibrated(case: Case, loss: BinaryCrossEntropy | Asymmetric, fit: torch.Tensor | None = None) -> dict[str, float]:
    calibrator = LabelCalibration()
    calibrator.update(features(case, fit=torch.ones(len(case.z)) if fit is None else fit), loss, PROJECTION)
    return calibrator.finish(loss, PROJECTION)


@pytest.mark.parametrize("factor", [1.0, 300.0, 0.01])
def test_scale_and_shift_are_those_of_a_logistic_regression(factor: float) -> None:
    case = drawn(3)
    fit = torch.tensor([1.0, 1.0, 0.0]).repeat(N // 3)
    found = calibrated(Case(case.z * factor, case.y), BinaryCrossEntropy(), fit)
    z, y = case.z.double().numpy()[fit == 1], case.y.numpy()[fit == 1]

    def nll(u: np.ndarray) -> float:
        return float((np.logaddexp(0, u[0] * z + u[1]) - y * (u[0] * z + u[1])).sum())

    best = optimize.minimize(nll, np.array([1.0, 0.0]), tol=1e-10)
    assert [found["scale"] * factor, found["shift"]] == pytest.approx(best.x, rel=1e-4, abs=1e-4)


def test_the_shift_undoes_a_weight_of_positives() -> None:
    """Scores of a loss that weighs positives w times are higher by log w: after it, all is as before."""
    case = drawn(4)
    shifted = Case(case.z + math.log(WEIGHT), case.y)
    plain = calibrated(case, BinaryCrossEntropy())
    found = calibrated(shifted, BinaryCrossEntropy(positive_weight=WEIGHT))
    assert found["scale"] == pytest.approx(plain["scale"], rel=1e-5)
    assert found["shift"] == pytest.approx(plain["shift"] - plain["scale"] * math.log(WEIGHT), rel=1e-5)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), Asymmetric()], ids=["bce", "asymmetric"])
def test_the_threshold_has_the_best_micro_f1(loss: BinaryCrossEntropy | Asymmetric) -> None:
    """To a bin of log-odds: these scores are a quarter apart."""
    case = Case((4 * drawn(5).z).round() / 4, drawn(5).y)
    threshold = calibrated(case, loss)["threshold"]
    p, y = case.z.double().sigmoid().numpy().ravel(), case.y.numpy().ravel()
    best = max(sklearn.f1_score(y, p >= each) for each in np.unique(p))
    assert sklearn.f1_score(y, p > threshold) == pytest.approx(best, abs=1e-9)


EXTREMES = {
    "separable": Case(torch.tensor([[3.0, -3.0]] * 4), torch.tensor([[1.0, 0.0]] * 4)),
    "the wrong way round": Case(torch.tensor([[3.0, -3.0]] * 4), torch.tensor([[0.0, 1.0]] * 4)),
    "constant scores": Case(torch.zeros(4, 2), torch.tensor([[1.0, 0.0]] * 4)),
    "no positive": Case(torch.tensor([[1.0, -2.0]] * 4), torch.zeros(4, 2)),
    "no row": Case(torch.zeros(0, 2), torch.zeros(0, 2)),
    "huge scores": Case(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])),
}


@pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES)
def test_extremes_are_fitted_to_finite_numbers(case: Case) -> None:
    calibrator = LabelCalibration()
    loss, projection = BinaryCrossEntropy(), OutputProjection(torch.eye(2))
    calibrator.update(features(case, fit=torch.ones(len(case.z))), loss, projection)
    found = calibrator.finish(loss, projection)
    assert 2**-10 <= found["scale"] <= 2**10 and abs(found["shift"]) <= 50 and 0 <= found["threshold"] <= 1
    if case is EXTREMES["no positive"]:
        assert found["threshold"] == 0.5
    if case is EXTREMES["constant scores"]:
        assert found["shift"] == pytest.approx(0)
