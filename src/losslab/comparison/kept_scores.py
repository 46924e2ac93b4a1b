"""Scores that runs keep beside their records, in test_scores.npz: two noises over documents, reliability, results of
each class, residuals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.by_class import ByClass, class_results, entity_results
from losslab.comparison.corpus_scores import CORPUS_SCORES
from losslab.comparison.noise import Documents, Noises
from losslab.comparison.residuals import Residuals, residuals_of
from losslab.comparison.rows import Row, pairs_of
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.statistics import Paired
from losslab.errors import UserError

Content = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class KeptScores:
    """Everything that a comparison shows of them."""

    noises: dict[str, dict[str, Noises]]
    """Label → metric → intervals over documents, seeds and both."""
    unit: str
    """The name of one row: document or window."""
    reliability: dict[str, NDArray[np.float64]]
    """Label → [seeds, 2, 3, 15]."""
    classes: ByClass | None
    entities: ByClass | None
    residuals: list[Residuals]
    problems: list[str]
    """A sentence for each file that is damaged, and for each loss whose documents or classes are others."""


def read_scores(
    contenders: Sequence[Contender], baselines: dict[Setting, Contender], tables: dict[str, list[Row]]
) -> KeptScores:
    """Read the files of all chosen runs. `tables`: metric → rows, whose level and spread the intervals take."""
    scores: dict[int, Content] = {}
    problems: list[str] = []
    for run in (run for c in contenders for run in c.runs.values()):
        try:
            content = run.scores()
        except UserError as error:
            problems.append(str(error))
            continue
        if content is not None:
            scores[id(run)] = content
    reliability = {}
    for c in contenders:
        kept = [scores[id(run)] for run in c.runs.values() if id(run) in scores]
        own = [np.asarray(content["reliability"], np.float64) for content in kept if "reliability" in content]
        if own:
            reliability[c.label] = np.stack(own)
    units = {str(content["unit"]) for content in scores.values()}
    noises = _compare_documents(contenders, baselines, tables, scores, problems)
    return KeptScores(
        noises,
        units.pop() if len(units) == 1 else "document",
        reliability,
        class_results(contenders, baselines, scores, problems),
        entity_results(contenders, baselines, scores, problems),
        residuals_of(contenders, scores),
        problems,
    )


def _compare_documents(
    contenders: Sequence[Contender],
    baselines: dict[Setting, Contender],
    tables: dict[str, list[Row]],
    scores: Mapping[int, Content],
    problems: list[str],
) -> dict[str, dict[str, Noises]]:
    """Label → metric → noises, of every loss that shares seeds and documents with its baseline."""
    noises: dict[str, dict[str, Noises]] = {}
    resamples: dict[int, Documents] = {}
    for c in contenders:
        reference = baselines.get(c.stratum)
        if reference is None or reference is c:
            continue
        both = [
            (scores[id(own)], scores[id(other)])
            for seed in pairs_of(c, reference)
            for own, other in [(c.runs[seed], reference.runs[seed])]
            if id(own) in scores and id(other) in scores
        ]
        if not both:
            continue
        metrics = _agreed_metrics([content for pair in both for content in pair])
        pairs = [(_units(own, metrics), _units(other, metrics)) for own, other in both]
        if any(not np.array_equal(own[0], pairs[0][1][0]) for pair in pairs for own in pair):
            problems.append(
                f"{c.label}: its runs were scored on other documents than the baseline's: no two noises for it"
            )
            continue
        weight = pairs[0][0][0]
        if hash(weight.tobytes()) not in resamples:
            resamples[hash(weight.tobytes())] = Documents(weight)
        documents = resamples[hash(weight.tobytes())]
        results = {name: _result(tables.get(f"test/{name}", []), c.label) for name in (*metrics, *CORPUS_SCORES)}
        noises[c.label] = {
            f"test/{name}": documents.compare(
                np.stack([own[at] - other[at] for own, other in pairs]),
                level=result.level,
                spread=_has_interval(result),
            )
            for at, name in enumerate(metrics, start=1)
            if (result := results[name]) is not None
            and all(math.isfinite(float(part[at].sum())) for pair in pairs for part in pair)
        } | {
            f"test/{name}": documents.compare_corpus(counts, score, level=result.level, spread=_has_interval(result))
            for name, score in CORPUS_SCORES.items()
            if (result := results[name]) is not None and (counts := _counts(name, both))
        }
    return noises


def _has_interval(result: Paired) -> bool:
    """Whether the table has an interval over seeds."""
    return result.spread and not math.isnan(result.low)


def _counts(
    metric: str, pairs: Sequence[tuple[Content, Content]]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Counts [K, U] of each pair of runs, for a metric of the corpus; nothing where a run kept none."""
    key = f"{metric}_counts"
    if any(key not in content for pair in pairs for content in pair):
        return []
    return [(np.asarray(own[key], np.float64), np.asarray(other[key], np.float64)) for own, other in pairs]


def _agreed_metrics(contents: Sequence[Content]) -> list[str]:
    """The metrics that all of these files keep for each unit, in the order of the first."""
    first, *others = ([str(name) for name in content["unit_metrics"]] for content in contents)
    return [name for name in first if all(name in other for other in others)]


def _units(content: Content, metrics: Sequence[str]) -> NDArray[np.float64]:
    """[1 + M, U]: each unit's weight, and its sums of these metrics."""
    names = [str(name) for name in content["unit_metrics"]]
    return np.asarray(content["units"], np.float64)[[0, *(1 + names.index(name) for name in metrics)]]


def _result(rows: Sequence[Row], label: str) -> Paired | None:
    return next((row.paired for row in rows if row.label == label), None)
