"""scripts/benchmark noise: the words that it trains, and its numbers against those of known variances."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import noise as benchmark_noise
from benchmarks import noise_numbers as numbers
from losslab.comparison.claim_cost import ClaimCost, Deviation
from losslab.comparison.runs.run import Run
from losslab.comparison.runs.seed import Seed
from losslab.config.jobs import job_overrides, open_multirun
from losslab.records import Record

METRIC = "test/nll_scaled"


def made(value: float, seed: int = 1, *, twin: int | None = None, minutes: int = 0, **own: int) -> Run:
    """A completed run of 30 seconds."""
    record = Record(identity="", name="x", status="completed", metrics={"best": {METRIC: value}})
    record.timing = {"started": f"2026-01-01T00:{minutes:02}:00", "updated": f"2026-01-01T00:{minutes:02}:30"}
    return Run(None, record, "cross_entropy", Seed(seed, own), {}, plain=True, twin=twin)


def test_the_recipe_is_what_the_benchmark_makes_of_six_seeds() -> None:
    recipe = job_overrides(open_multirun(["experiment=noise"]))
    (words, *_) = benchmark_noise.commands(Path("outputs"), 6, {}, dropout=0.1, more=[])
    assert [set(job) for job in job_overrides(open_multirun(["experiment=noise", *words[4:]]))] == list(
        map(set, recipe)
    )
    assert len(recipe) == len({tuple(job) for job in recipe}) == 2 * (1 + 5 * 5)


def test_without_dropout_its_stream_is_not_varied() -> None:
    words = benchmark_noise.one_at_a_time(3, 0.0)
    jobs = job_overrides(open_multirun(["experiment=noise", "model.dropout=0", *words]))
    assert len(jobs) == 2 * (1 + 4 * 2)
    assert all("seeds.dropout=null" in job for job in jobs)


def test_runs_are_sorted_by_what_they_vary_and_the_first_belongs_to_each() -> None:
    runs = [made(1.0), made(2.0, 2), made(3.0, backbone_init=2, head_init=2), made(4.0, data_order=3)]
    runs += [made(5.0, twin=1), made(6.0, 2, twin=1), made(7.0, 2, data_order=1), made(8.0, loss=2)]
    assert numbers.by_source(runs, METRIC) == {
        numbers.WHOLE: {1: 1.0, 2: 2.0},
        numbers.INIT: {2: 3.0, 1: 1.0},
        numbers.ORDER: {3: 4.0, 1: 1.0},
        numbers.TWIN: {1: 5.0, 0: 1.0},
    }


def test_the_variance_table_against_numpy() -> None:
    random = np.random.default_rng(0)
    a, b, w = random.normal(size=9), random.normal(size=9), random.normal(size=7)
    sources = [{numbers.ORDER: dict(enumerate(own)), numbers.WHOLE: dict(enumerate(w))} for own in (a, b)]
    order, whole = numbers.varied(*sources)
    assert (order.what, order.pairs, whole.what, whole.pairs) == (numbers.ORDER, 9, numbers.WHOLE, 7)
    assert order.std == pytest.approx(a.std(ddof=1))
    assert order.paired_std == pytest.approx((b - a).std(ddof=1))
    chi = [a.std(ddof=1) * np.sqrt(8 / stats.chi2.ppf(p, 8)) for p in (0.95, 0.05)]
    assert order.std_interval == pytest.approx(chi)
    assert order.share == pytest.approx(a.var(ddof=1) / w.var(ddof=1))
    assert order.left == pytest.approx((b - a).var(ddof=1) / (a.var(ddof=1) + b.var(ddof=1)))
    assert (whole.left, whole.paired_std) == (0.0, 0.0)
    assert np.isnan(whole.share)


def test_intervals_of_ratios_hold_what_they_promise() -> None:
    random = np.random.default_rng(1)
    families, n, correlation = 500, 6, 0.6
    held = []
    for _ in range(families):
        one, other = random.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n).T.tolist()
        low, high = numbers.left_by_pairing(one, other)[1]
        held.append(low <= 1 - correlation <= high)
    assert np.mean(held) == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / families))


def test_a_claim_by_pairs_and_without_them() -> None:
    random = np.random.default_rng(2)
    base = random.normal(scale=0.05, size=10)
    own = base + 0.003 + random.normal(scale=0.01, size=10)
    runs = {
        "cross_entropy": [made(value, seed, minutes=2 * seed) for seed, value in enumerate(base.tolist(), start=1)],
        "poly1": [made(value, seed, minutes=2 * seed + 1) for seed, value in enumerate(own.tolist(), start=1)],
    }
    (found,) = numbers.claimed("book", runs, METRIC)
    differences = own - base
    expected = ClaimCost(deviation=Deviation(differences.std(ddof=1), 9), margin=0.01)
    assert (found.pairs, found.difference) == (10, pytest.approx(differences.mean()))
    assert (found.paired.seeds, found.paired.interval) == (expected.seeds, expected.interval)
    assert found.paired.seconds_a_pair == pytest.approx(60)
    assert found.unpaired.deviation.std == pytest.approx(np.sqrt((base.var(ddof=1) + own.var(ddof=1)) / 2))
    assert found.unpaired.seeds > 5 * found.paired.seeds  # type: ignore[operator]
    told = benchmark_noise.content([], [found], [], 0.1)
    assert json.loads(json.dumps(told))["claims"][0]["paired"]["seconds"] == pytest.approx(60 * found.paired.seeds)  # type: ignore[operator]


def test_the_distance_of_twins_is_that_of_every_seed_with_some() -> None:
    runs = [made(1.0), made(1.3, twin=1), made(2.0, 2), made(2.1, 2, twin=1), made(9.0, 3)]
    found = numbers.twins("book", runs, METRIC)
    assert found is not None
    assert (found.twins, found.rms) == (2, pytest.approx(np.sqrt((0.3**2 + 0.1**2) / 2)))
    assert numbers.twins("book", runs[-1:], METRIC) is None


@pytest.mark.parametrize(
    ("seeds", "texts", "told"),
    [
        (1, [], "two seeds or more"),
        (2, ["missing.txt"], "missing.txt is no file"),
        (2, [__file__, __file__], "names of"),
    ],
)
def test_wrong_requests_are_told_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seeds: int, texts: list[str], told: str
) -> None:
    parser = argparse.ArgumentParser()
    benchmark_noise.add_arguments(parser)
    options = ["--folder", str(tmp_path), "--seeds", str(seeds), *(["--texts", *texts] if texts else [])]
    code = benchmark_noise.main(parser.parse_args(options))
    assert code == 2
    assert told in capsys.readouterr().err
