"""Two noises, against a bootstrap that is written out."""

import math

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read, write_scores
from numpy.typing import NDArray
from scipy import stats

from losslab.comparison.noise import Documents

SEEDS, UNITS = 5, 40


def made(seed: int, *, of_seeds: float, of_documents: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [U] and summed differences [S, U]: 0.1 a token, and what seeds and documents add."""
    random = np.random.default_rng(seed)
    weight = random.integers(5, 50, size=UNITS).astype(np.float64)
    per_token = 0.1 + of_seeds * random.standard_normal((SEEDS, 1)) + of_documents * random.standard_normal(UNITS)
    return weight, per_token * weight


def by_hand(
    weight: NDArray[np.float64], differences: NDArray[np.float64], *, documents: bool, seeds: bool
) -> tuple[float, float]:
    """One resample after another; differences [S, U]."""
    random = np.random.default_rng(99)
    means = []
    # n − 1 for n, and Student's tails for the normal's.
    wider = math.sqrt(SEEDS / (SEEDS - 1)) * stats.t(SEEDS - 1).ppf(0.975) / 1.959964
    for _ in range(4000):
        own = random.integers(UNITS, size=UNITS) if documents else np.arange(UNITS)
        rows = random.integers(SEEDS, size=SEEDS) if seeds else np.arange(SEEDS)
        by_seed = [differences[row, own].sum() / weight[own].sum() for row in range(SEEDS)]
        means.append(np.mean(by_seed) + wider * (np.mean([by_seed[row] for row in rows]) - np.mean(by_seed)))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_documents_of_which_nothing_was_scored_are_not_drawn() -> None:
    weight, differences = made(1, of_seeds=0.02, of_documents=0.02)
    whole = Documents(weight).compare(differences)
    behind = np.zeros(200)
    partly = Documents(np.concatenate([weight, behind])).compare(np.hstack([differences, np.zeros((SEEDS, 200))]))
    assert partly == whole and partly.units == UNITS


@pytest.mark.parametrize(("of_seeds", "of_documents"), [(0.02, 0.02), (0.05, 0.01), (0.005, 0.1)])
def test_the_intervals_are_those_of_a_bootstrap_by_hand(of_seeds: float, of_documents: float) -> None:
    weight, differences = made(1, of_seeds=of_seeds, of_documents=of_documents)
    found = Documents(weight).compare(differences)
    assert found.mean == pytest.approx((differences.sum(axis=1) / weight.sum()).mean())
    assert found.units == UNITS
    for interval, documents, seeds in (
        (found.documents, True, False),
        (found.seeds, False, True),
        (found.both, True, True),
    ):
        low, high = by_hand(weight, differences, documents=documents, seeds=seeds)
        tolerance = 0.08 * (high - low)
        assert interval.low == pytest.approx(low, abs=tolerance)
        assert interval.high == pytest.approx(high, abs=tolerance)
        assert interval.low < found.mean < interval.high
    widths = [part.high - part.low for part in (found.documents, found.seeds, found.both)]
    assert widths[2] > 0.95 * max(widths[:2])


def test_where_all_documents_say_the_same_only_seeds_are_noise() -> None:
    weight, differences = made(2, of_seeds=0.05, of_documents=0.0)
    found = Documents(weight).compare(differences)
    assert found.documents.high - found.documents.low < 1e-12
    assert (found.both.low, found.both.high) == pytest.approx((found.seeds.low, found.seeds.high))
    assert found.seeds.high - found.seeds.low > 0.02


def test_where_all_seeds_say_the_same_only_documents_are_noise() -> None:
    weight, differences = made(3, of_seeds=0.0, of_documents=0.05)
    found = Documents(weight).compare(differences)
    assert found.seeds.high - found.seeds.low < 1e-12
    assert (found.both.low, found.both.high) == pytest.approx((found.documents.low, found.documents.high), abs=1e-3)
    assert found.documents.high - found.documents.low > 0.01


def test_over_seeds_the_interval_is_the_tables_at_its_level_and_documents_are_judged_as_strictly() -> None:
    weight, differences = made(6, of_seeds=0.02, of_documents=0.02)
    whole = differences.sum(axis=1) / weight.sum()
    plain, strict = (Documents(weight).compare(differences, level=level) for level in (0.05, 0.01))
    half = stats.t(SEEDS - 1).ppf(0.995) * whole.std(ddof=1) / math.sqrt(SEEDS)
    assert (strict.seeds.low, strict.seeds.high) == pytest.approx((whole.mean() - half, whole.mean() + half))
    wider = (strict.documents.high - strict.documents.low) / (plain.documents.high - plain.documents.low)
    assert wider == pytest.approx(2.575829 / 1.959964)
    assert strict.both.low < strict.seeds.low and strict.seeds.high < strict.both.high
    nothing = Documents(weight).compare(differences, spread=False)
    assert math.isnan(nothing.seeds.low) and math.isnan(nothing.both.low) and nothing.documents == plain.documents


def test_one_seed_says_nothing_of_seeds() -> None:
    weight, differences = made(4, of_seeds=0.0, of_documents=0.05)
    found = Documents(weight).compare(differences[:1])
    assert math.isnan(found.seeds.low) and math.isnan(found.both.high)
    assert found.documents.low < 0.1 < found.documents.high


def test_a_long_document_weighs_as_much_as_its_tokens() -> None:
    weight = np.array([1000.0] + [1.0] * 9)
    differences = np.where(weight == 1000, 0.0, 1.0) * weight
    found = Documents(weight).compare(differences[None])
    assert found.mean == pytest.approx(9 / 1009)
    assert found.documents.high == pytest.approx(1.0), "without the long one, which a third of the resamples are"


def test_the_same_documents_are_drawn_for_every_loss() -> None:
    weight, differences = made(5, of_seeds=0.01, of_documents=0.05)
    documents = Documents(weight)
    assert documents.compare(differences) == documents.compare(differences) == Documents(weight).compare(differences)


@pytest.fixture
def scored(sweep: Sweep) -> Sweep:
    """Three seeds of two losses, with scores of twelve documents: square is worse by 0.1 a token, give or take."""
    random = np.random.default_rng(0)
    weight = random.integers(5, 50, size=12).astype(np.float64)
    for seed in (1, 2, 3):
        base = 3.0 + random.standard_normal(12)
        for loss, shift in (("cross_entropy", 0.0), ("square", 0.1)):
            nll = (base + shift * (1 + seed / 10) + shift * np.arange(12) / 10) * weight
            folder = sweep.add(loss, seed, float(nll.sum() / weight.sum()), metrics={"test/top1": 0.5, "test/nll": 4.0})
            write_scores(folder, np.stack([weight, nll, nll + weight, weight / 2]))
    return sweep


def test_the_page_tells_both_noises(scored: Sweep) -> None:
    c = comparison_of(scored)
    found = c.noises["square"]
    assert list(found) == ["test/nll_scaled", "test/nll", "test/top1"]
    row = next(row for row in c.rows if row.label == "square")
    assert found["test/nll_scaled"].mean == pytest.approx(row.paired.mean, abs=1e-5), (
        "the documents add up to the table"
    )
    read(c)
    page = page_text(c)
    assert "Two noises" in page and "other documents" in page and "Test has 12 documents, which are drawn whole" in page


def test_an_infinite_nll_has_no_noise_and_no_nan(scored: Sweep) -> None:
    for folder in scored.folder.glob("square*"):
        with np.load(folder / "test_scores.npz") as content:
            units = content["units"].copy()
        units[2, 3] = math.inf
        write_scores(folder, units)
    c = comparison_of(scored)
    assert list(c.noises["square"]) == ["test/nll_scaled", "test/top1"]
    read(c)


def test_scores_of_other_documents_are_not_paired(scored: Sweep) -> None:
    folder = next(iter(scored.folder.glob("square-seed2*")))
    write_scores(folder, np.ones((4, 7)))
    c = comparison_of(scored)
    assert c.noises == {}
    read(c)


def test_one_seed_has_dashes_for_its_noise_over_seeds(scored: Sweep) -> None:
    c = comparison_of(scored, where=("seed=1",))
    assert math.isnan(c.noises["square"]["test/nll_scaled"].seeds.low)
    read(c)


@pytest.mark.parametrize("seeds", [3, 6])
def test_the_interval_over_few_seeds_covers_nearly_as_often_as_it_says(seeds: int) -> None:
    random = np.random.default_rng(0)
    weight = np.ones(1)
    covered = []
    for _ in range(300):
        found = Documents(weight).compare(0.1 + 0.05 * random.standard_normal((seeds, 1)))
        covered.append(found.seeds.low < 0.1 < found.seeds.high)
    assert 0.90 <= np.mean(covered) <= 0.99  # 0.75 and 0.86 without the factor
