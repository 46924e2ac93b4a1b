"""BLEU and chrF in numpy, and their paired bootstrap, against sacrebleu."""

import math
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read

from losslab.comparison.corpus_scores import CORPUS_SCORES, bleu, chrf
from losslab.comparison.noise import RESAMPLES, Documents
from losslab.metric import Metric

sacrebleu = pytest.importorskip("sacrebleu")
WORDS = "the a cat dog sat ran on under mat, mat. rug house it he 1,000 été".split()
METRICS = {"bleu": sacrebleu.BLEU(force=True), "chrf": sacrebleu.CHRF()}
DECLARED = [
    Metric("nll", "nll", "nats per token", False),
    Metric("bleu", "BLEU", "", True, 0.2, frozenset(), "tok:13a"),
]


def texts(seed: int, count: int = 30) -> tuple[list[str], list[list[str]]]:
    """Outputs, and two streams of references that they share words with; some outputs are empty."""
    draw = np.random.default_rng(seed)
    references = [[" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(count)] for _ in range(2)]
    written = [" ".join(w for w in text.split() if draw.random() < 0.8) for text in references[0]]
    return written, references


def counts_of(name: str, written: list[str], references: list[list[str]]) -> Any:
    """[U, K]."""
    return np.array(METRICS[name]._extract_corpus_statistics(written, references))


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_scores_of_resampled_texts_are_sacrebleus(name: str) -> None:
    written, references = texts(0)
    counts, draw = counts_of(name, written, references), np.random.default_rng(1)
    drawn = [draw.integers(30, size=size) for size in (1, 1, 1, 2, 2, 3, 5, 10, 30, 30)]
    found = CORPUS_SCORES[name](np.stack([counts[places].sum(axis=0) for places in drawn]).astype(float))
    for score, places in zip(found, drawn, strict=True):
        streams = [[stream[i] for i in places] for stream in references]
        wanted = METRICS[name].corpus_score([written[i] for i in places], streams).score
        assert score == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "reference"),
    [("", "a cat"), ("a cat", ""), ("", ""), ("cat", "cat"), ("a b c d", "e f g h"), ("a cat sat on", "a dog ran on")],
)
def test_texts_that_share_little_or_nothing(text: str, reference: str) -> None:
    for name, score in (("bleu", bleu), ("chrf", chrf)):
        sums = counts_of(name, [text], [[reference]]).sum(axis=0).astype(float)
        assert float(score(sums)) == pytest.approx(METRICS[name].corpus_score([text], [[reference]]).score, abs=1e-12)


def test_the_paired_bootstrap_is_the_one_that_is_written_out() -> None:
    runs = [counts_of("bleu", *texts(seed)).T.astype(float) for seed in range(6)]
    pairs = list(zip(runs[:3], runs[3:], strict=True))
    found = Documents(np.ones(30)).compare_corpus(pairs, bleu)
    differences = [float(bleu(own.sum(axis=1)) - bleu(other.sum(axis=1))) for own, other in pairs]
    assert found.mean == pytest.approx(np.mean(differences)) and found.units == 30 and found.of_corpus
    half = 4.302653 * np.std(differences, ddof=1) / math.sqrt(3)
    assert (found.seeds.low, found.seeds.high) == pytest.approx((found.mean - half, found.mean + half))
    draw, means = np.random.default_rng(5), []
    for _ in range(RESAMPLES):
        places = draw.integers(30, size=30)
        scores = [[float(bleu(run[:, places].sum(axis=1))) for run in pair] for pair in pairs]
        means.append(np.mean([own - other for own, other in scores]))
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.documents.low, found.documents.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_compare_tells_the_bootstrap_beside_the_interval_over_seeds(tmp_path: Any) -> None:
    sweep, units = Sweep(tmp_path / "runs", DECLARED, "nll"), np.ones((2, 30), dtype=np.float32)
    for seed in (1, 2):
        for loss in ("cross_entropy", "focal"):
            counts = counts_of("bleu", *texts(seed + 10 * (loss == "focal"))).T
            score = float(bleu(counts.sum(axis=1).astype(float)))
            folder = sweep.add(loss, seed, 2.0, metrics={"test/bleu": score, "test/nll": 2.0})
            named: dict[str, Any] = {"unit": "sample", "units": units, "unit_metrics": ["nll"]}
            np.savez(folder / "test_scores.npz", **named, bleu_counts=counts.astype(np.int32))
    c = comparison_of(sweep, metric="test/bleu")
    noises = c.noises["focal"]["test/bleu"]
    row = next(row for row in c.rows if row.label == "focal")
    assert row.paired is not None and noises.mean == pytest.approx(row.paired.mean)
    assert noises.documents.low < noises.mean < noises.documents.high
    told = "A paired bootstrap over the 30 samples of test, with these seeds, gives ["
    assert told in read(c) and told in page_text(c) and "other samples" in page_text(c)
    assert "paired bootstrap over" not in read(comparison_of(sweep))
