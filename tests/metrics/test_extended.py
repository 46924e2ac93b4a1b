"""The extended metrics against float64 by hand, and the calibration error against exact equal-mass groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from losslab.contracts import Features
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.entmax import Entmax
from losslab.metrics.calibration import BINS, GROUPS, add_to_bins, calibration_error, equal_mass
from losslab.metrics.class_metrics import ClassMetrics
from losslab.metrics.extended import EPSILON, Details
from losslab.metrics.frequency import frequency_groups
from losslab.metrics.table import METRICS
from losslab.models.projection import OutputProjection

V, ROWS, SCALE = 13, 400, 1.6
Array = NDArray[np.float64]
COUNTS = np.array([400, 300, 90, 80, 50, 30, 20, 10, 9, 6, 5, 0, 0])


def draw(seed: int = 0) -> tuple[Features, OutputProjection]:
    generator = torch.Generator().manual_seed(seed)
    extras = {
        "bytes": torch.ones(ROWS),
        "fit": (torch.arange(ROWS) % 3 == 0).float(),
        "unit": torch.arange(ROWS) // 100,
    }
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5]).repeat(ROWS // 4)
    target = torch.randint(V, (ROWS,), generator=generator)
    hidden = torch.randn(ROWS, 6, generator=generator)
    hidden[:20] = 0  # every entry is tied
    return Features(hidden, target, weight, extras), OutputProjection(2 * torch.randn(V, 6, generator=generator))


def measure(features: Features, projection: OutputProjection, *, held_out: bool, loss: Any = None) -> ClassMetrics:
    details = Details(groups=torch.from_numpy(frequency_groups(COUNTS)), num_units=4)
    measures = ClassMetrics(SCALE, held_out=held_out, details=details)
    for piece in features.chunks(57):
        measures.update(piece, loss or CrossEntropy(), projection)
    return measures


def exact_groups(confidence: Array, hit: Array, weight: Array) -> Array:
    """[3, GROUPS]: equal-mass groups of sorted positions; tied confidences are one block, split in proportion."""
    blocks = [
        (weight[same].sum(), (weight * hit)[same].sum(), (weight * confidence)[same].sum())
        for value in np.unique(confidence)
        for same in [confidence == value]
    ]
    share, groups, room, place = weight.sum() / GROUPS, np.zeros((3, GROUPS)), weight.sum() / GROUPS, 0
    for block in blocks:
        left = block[0]
        while left > 1e-12:
            taken = min(left, room) if place < GROUPS - 1 else left
            groups[:, place] += np.array(block) * taken / block[0]
            left, room = left - taken, room - taken
            if room <= 1e-12 and place < GROUPS - 1:
                place, room = place + 1, share
    return groups


def exact_error(confidence: Array, hit: Array, weight: Array) -> float:
    _, hits, confidences = exact_groups(confidence, hit, weight)
    return float(np.abs(hits - confidences).sum() / weight.sum())


@pytest.mark.parametrize("held_out", [True, False])
def test_each_of_them_is_what_float64_gives(held_out: bool) -> None:
    features, projection = draw()
    values = measure(features, projection, held_out=held_out).details.values()  # type: ignore[union-attr]
    kept = (features.weight != 0).numpy()
    z = (features.hidden.double() @ projection.weight.double().T).numpy()[kept]
    y, weight = features.target.numpy()[kept], features.weight.double().numpy()[kept]
    scored = weight * (1 - features.extras["fit"].numpy()[kept]) if held_out else weight
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    scaled = np.exp(SCALE * z) / np.exp(SCALE * z).sum(axis=1, keepdims=True)
    at = np.arange(len(y))
    own = z[at, y][:, None]
    rank = 1 + (z > own).sum(axis=1) + ((z == own).sum(axis=1) - 1) / 2
    by_hand = {
        "top5": rank <= 5,
        "mrr": 1 / rank,
        "brier": ((p - np.eye(V)[y]) ** 2).sum(axis=1),
        "entropy": -(p * np.log(p)).sum(axis=1),
        "nll_epsilon": -np.log((p[at, y] + EPSILON) / (1 + EPSILON * V)),
        "zeros": np.zeros(len(y)),
    }
    expected = {name: (weight * value).sum() / weight.sum() for name, value in by_hand.items()}
    expected["ece"] = exact_error(p.max(axis=1), z.argmax(axis=1) == y, weight)
    expected["ece_scaled"] = exact_error(scaled.max(axis=1), z.argmax(axis=1) == y, scored)
    group = frequency_groups(COUNTS)[y]
    for k in range(5):
        mine = scored * (group == k)
        nll = -(mine * np.log(scaled[at, y])).sum()
        expected[f"nll_scaled_frequency_{k + 1}"] = nll / mine.sum() if mine.any() else np.nan
    assert values.keys() == expected.keys() <= {metric.name for metric in METRICS}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5, abs=1e-3 if "ece" in name else 1e-7, nan_ok=True), name


def test_scores_of_the_documents_add_up_to_the_metrics() -> None:
    features, projection = draw()
    measures = measure(features, projection, held_out=False)
    assert measures.details is not None
    weight, scaled, nll, hits = measures.details.arrays()["units"]
    values = measures.values()
    assert weight.tolist() == [features.weight[i : i + 100].sum().item() for i in range(0, ROWS, 100)]
    assert scaled.sum() / weight.sum() == pytest.approx(values["nll_scaled"], rel=1e-6)
    assert nll.sum() / weight.sum() == pytest.approx(values["nll"], rel=1e-6)
    assert hits.sum() / weight.sum() == pytest.approx(values["top1"], rel=1e-6)


def test_the_groups_of_both_reliability_diagrams_hold_the_same_weight() -> None:
    features, projection = draw()
    before, after = measure(features, projection, held_out=False).details.arrays()["reliability"]  # type: ignore[union-attr]
    total = float(features.weight.sum())
    assert before.shape == after.shape == (3, GROUPS)
    assert before[0] == pytest.approx(total / GROUPS) and after[0] == pytest.approx(total / GROUPS)
    assert before[1].sum() == pytest.approx(after[1].sum())  # a scale changes no hit
    assert after[2].sum() > before[2].sum()  # s > 1 is more confident


def test_exact_zeros_are_counted_and_their_metric_stays_finite() -> None:
    features, projection = draw()
    values = measure(features, projection, held_out=False, loss=Entmax(alpha=2.0)).values()
    assert values["nll"] == np.inf
    assert 0 < values["zeros"] < 1
    assert values["nll_epsilon"] < -np.log(EPSILON)


def confidences(kind: str, seed: int, count: int) -> Array:
    """float32 log p, as a model gives them."""
    random = np.random.default_rng(seed)
    drawn = {
        "spread": random.uniform(0.01, 1, count),
        "sure": 1 - 10 ** random.uniform(-9, -1, count),
        "unsure": 10 ** random.uniform(-4, -1, count),
        "two values": np.where(random.random(count) < 0.3, 0.25, 0.8),
        "a third tied": np.where(random.random(count) < 0.34, 0.61, random.beta(2, 3, count)),
        "all tied": np.full(count, 0.5),
        "exactly one": np.where(random.random(count) < 0.5, 1.0, random.uniform(0.2, 1, count)),
    }
    return np.log(drawn[kind]).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["spread", "sure", "unsure", "two values", "a third tied", "all tied", "exactly one"])
@pytest.mark.parametrize("count", [2000, 20_000])
def test_the_calibration_error_is_that_of_exact_equal_mass_groups(kind: str, seed: int, count: int) -> None:
    log_p = confidences(kind, seed, count)
    random = np.random.default_rng(seed + 10)
    p = np.exp(log_p.astype(np.float64))
    hit = (random.random(count) < p**1.3).astype(np.float64)
    weight = random.choice([1.0, 1.0, 0.5, 3.0], count)
    sums = torch.zeros(3, BINS, dtype=torch.float64)
    for part in np.array_split(np.arange(count), 7):
        add_to_bins(sums, *(torch.from_numpy(x[part]) for x in (log_p, hit, weight)))
    groups = equal_mass(sums)
    assert groups[0].numpy() == pytest.approx(weight.sum() / GROUPS)
    assert groups.sum(dim=1).numpy() == pytest.approx(sums.sum(dim=1).numpy())
    assert calibration_error(groups) == pytest.approx(exact_error(p, hit, weight), abs=1e-3)


def test_nothing_counted_has_no_calibration_error() -> None:
    assert np.isnan(calibration_error(equal_mass(torch.zeros(3, BINS, dtype=torch.float64))))


def test_frequency_groups_hold_equal_shares_of_the_text() -> None:
    groups = frequency_groups(COUNTS)
    # The first kind makes up 0…400 of 1,000 tokens of text, which begins in the first fifth; the second 400…700, …
    assert groups.tolist() == [0, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    even = frequency_groups(np.full(1000, 7))
    assert np.bincount(even).tolist() == [200] * 5
    assert (frequency_groups(np.zeros(4)) == 4).all()


def test_order_of_tokens_does_not_matter() -> None:
    shuffled = np.random.default_rng(0).permutation(len(COUNTS))
    assert (frequency_groups(COUNTS[shuffled])[:] == frequency_groups(COUNTS)[shuffled]).all()
