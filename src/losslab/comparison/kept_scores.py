"""Scores that runs keep beside their records, in test_scores.npz: two noises over documents, and reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.noise import Documents, Noises
from losslab.comparison.rows import Row, pairs_of
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.statistics import Paired
from losslab.errors import UserError

OF_DOCUMENTS = {"test/nll_scaled": 1, "test/nll": 2, "test/top1": 3}
"""Metrics that each run keeps for every document, and their place in test_scores.npz."""
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
    problems: list[str]
    """A sentence for each file that is damaged, and for each loss whose documents are others."""


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
        own = [np.asarray(scores[id(run)]["reliability"], np.float64) for run in c.runs.values() if id(run) in scores]
        if own:
            reliability[c.label] = np.stack(own)
    units = {str(content["unit"]) for content in scores.values()}
    noises = _compare_documents(contenders, baselines, tables, scores, problems)
    return KeptScores(noises, units.pop() if len(units) == 1 else "document", reliability, problems)


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
        pairs = [
            (np.asarray(scores[id(own)]["units"], np.float64), np.asarray(scores[id(other)]["units"], np.float64))
            for seed in pairs_of(c, reference)
            for own, other in [(c.runs[seed], reference.runs[seed])]
            if id(own) in scores and id(other) in scores
        ]
        if not pairs:
            continue
        if any(not np.array_equal(own[0], pairs[0][1][0]) for pair in pairs for own in pair):
            problems.append(
                f"{c.label}: its runs were scored on other documents than the baseline's: no two noises for it"
            )
            continue
        weight = pairs[0][0][0]
        if hash(weight.tobytes()) not in resamples:
            resamples[hash(weight.tobytes())] = Documents(weight)
        noises[c.label] = {
            name: resamples[hash(weight.tobytes())].compare(
                np.stack([own[at] - other[at] for own, other in pairs]), level=result.level, spread=result.spread
            )
            for name, at in OF_DOCUMENTS.items()
            if (result := _result(tables.get(name, []), c.label)) is not None
            and all(math.isfinite(float(part[at].sum())) for pair in pairs for part in pair)
        }
    return noises


def _result(rows: Sequence[Row], label: str) -> Paired | None:
    return next((row.paired for row in rows if row.label == label), None)
