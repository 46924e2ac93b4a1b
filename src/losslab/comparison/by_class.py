"""Results of each class, or type of entity: F1 against the baseline, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.rows import pairs_of
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.simultaneous import family_of
from losslab.comparison.statistics import Paired, paired

Content = Mapping[str, NDArray[np.generic]]
Kept = Mapping[int, Content]
"""The scores of a run, by its id."""
_RESOLUTION = 1e-7


@dataclass(frozen=True)
class ByClass:
    """Results of each of C classes."""

    names: tuple[str, ...]
    support: NDArray[np.float64]
    """[C]: how often each is true in test, in the first run."""
    f1: dict[str, NDArray[np.float64]]
    """Label → [C], mean over seeds."""
    differences: dict[str, list[Paired]]
    """Label → the difference in F1 to the baseline of each class. Their intervals hold together, over all classes of
    all losses."""
    confusion: dict[str, NDArray[np.float64]]
    """Label → [C, C], mean over seeds: the share of each true class (row) that is predicted as each (column); NaN in
    the row of a class that test lacks."""


def class_results(
    contenders: Sequence[Contender], baselines: dict[Setting, Contender], kept: Kept, problems: list[str]
) -> ByClass | None:
    """Results of `class_metrics` and `confusion`; None where no run keeps any."""
    return _results(contenders, baselines, kept, problems, _class_rates, "class_names")


def entity_results(
    contenders: Sequence[Contender], baselines: dict[Setting, Contender], kept: Kept, problems: list[str]
) -> ByClass | None:
    """Results of `entities`; None where no run keeps any."""
    return _results(contenders, baselines, kept, problems, _entity_rates, "entity_types")


Rates = tuple[NDArray[np.float64], NDArray[np.float64]]
"""F1 and support, [C] each."""


def _class_rates(content: Content) -> Rates | None:
    if "class_metrics" not in content:
        return None
    _, _, f1, support = np.asarray(content["class_metrics"], np.float64)
    return f1, support


def _entity_rates(content: Content) -> Rates | None:
    if "entities" not in content:
        return None
    right, predicted, there = np.asarray(content["entities"], np.float64)
    return 2 * right / np.maximum(predicted + there, 1), there


def _results(
    contenders: Sequence[Contender],
    baselines: dict[Setting, Contender],
    kept: Kept,
    problems: list[str],
    rates_of: Callable[[Content], Rates | None],
    key: str,
) -> ByClass | None:
    found: dict[int, Rates] = {}
    names: tuple[str, ...] | None = None
    support = np.empty(0)
    for c in contenders:
        for run in c.runs.values():
            content = kept.get(id(run))
            rates = None if content is None else rates_of(content)
            if content is None or rates is None:
                continue
            own = tuple(map(str, content[key])) if key in content else tuple(map(str, range(len(rates[0]))))
            if names is None:
                names, support = own, rates[1]
            if own != names:
                problems.append(f"{c.label}: its classes are others than those of the first run: left out of theirs")
                break
            found[id(run)] = rates
    if names is None:
        return None
    scored = {c.label: [found[id(run)][0] for run in c.runs.values() if id(run) in found] for c in contenders}
    confusion = {
        c.label: matrix
        for c in contenders
        if (matrix := _confusion([kept[id(run)] for run in c.runs.values() if id(run) in found])) is not None
    }
    f1 = {label: np.mean(values, axis=0) for label, values in scored.items() if values}
    there = [place for place, count in enumerate(support) if count > 0]
    differences = _differences(contenders, baselines, found, there)
    return ByClass(
        tuple(names[place] for place in there),
        support[there],
        {label: values[there] for label, values in f1.items()},
        differences,
        {label: matrix[np.ix_(there, there)] for label, matrix in confusion.items()},
    )


def _confusion(contents: Sequence[Content]) -> NDArray[np.float64] | None:
    matrices = [np.asarray(content["confusion"], np.float64) for content in contents if "confusion" in content]
    if not matrices:
        return None
    with np.errstate(invalid="ignore"):
        shares = [matrix / matrix.sum(axis=1, keepdims=True) for matrix in matrices]
    mean: NDArray[np.float64] = np.mean(shares, axis=0)
    return mean


def _differences(
    contenders: Sequence[Contender],
    baselines: dict[Setting, Contender],
    found: Mapping[int, Rates],
    there: Sequence[int],
) -> dict[str, list[Paired]]:
    by_label: dict[str, list[dict[int, float]]] = {}
    for c in contenders:
        reference = baselines.get(c.stratum)
        if reference is None or reference is c:
            continue
        seeds = {
            seed: found[id(c.runs[seed])][0] - found[id(reference.runs[seed])][0]
            for seed in pairs_of(c, reference)
            if id(c.runs[seed]) in found and id(reference.runs[seed]) in found
        }
        if seeds:
            by_label[c.label] = [{seed: float(own[place]) for seed, own in seeds.items()} for place in there]
    family = family_of([own for lists in by_label.values() for own in lists])
    return {
        label: [paired(list(own.values()), family=family, resolution=_RESOLUTION) for own in lists]
        for label, lists in by_label.items()
    }
