"""Results of each class, of each type of entity, and residuals, from the arrays that runs keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, comparison_of

from losslab.comparison import Comparison
from losslab.comparison.growing import Growing
from losslab.comparison.output.figure_list import pictures
from losslab.comparison.output.picture import Picture
from losslab.comparison.simultaneous import sidak
from losslab.comparison.statistics import paired
from losslab.sequential.ledger import Terms

TERMS = Terms(
    metric="test/nll_scaled",
    higher_is_better=False,
    margin=0.01,
    level=0.05,
    max_seeds=8,
    first_seed=1,
    baseline="cross_entropy",
    losses={"cross_entropy": {}, "square": {}},
    threads=1,
)
OWN = ("classes", "confus", "entities", "residuals")


def keep(folder: Path, **arrays: Any) -> None:
    np.savez(folder / "test_scores.npz", unit="sample", units=np.ones((2, 3)), unit_metrics=["nll_scaled"], **arrays)


def drawn(c: Comparison) -> dict[str, Picture]:
    """Figures that are new, by file, each drawn once."""
    found = {picture.file: picture for picture in pictures(c) if any(word in picture.file for word in OWN)}
    for picture in found.values():
        assert picture.draw().get_label() and picture.data and len(picture.data[0]) == len(picture.columns)
    return found


def of_classes(matrix: Any, names: list[str]) -> dict[str, Any]:
    matrix = np.asarray(matrix, dtype=np.float64)
    hits, there, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = 2 * hits / np.maximum(there + said, 1)
    return {"class_metrics": np.stack([f1, f1, f1, there]), "confusion": matrix, "class_names": names}


def test_classes_have_differences_and_a_matrix_and_those_that_test_lacks_have_none(tmp_path: Path) -> None:
    sweep, names = Sweep(tmp_path / "runs"), ["a", "b", "never"]
    base = {1: [[8, 2, 0], [3, 7, 0], [0, 0, 0]], 2: [[9, 1, 0], [4, 6, 0], [0, 0, 0]]}
    other = {1: [[9, 1, 0], [1, 8, 1], [0, 0, 0]], 2: [[9, 1, 0], [0, 10, 0], [0, 0, 0]]}
    for loss, matrices in (("cross_entropy", base), ("square", other)):
        for seed, matrix in matrices.items():
            keep(sweep.add(loss, seed, 1.0 + seed / 10), **of_classes(matrix, names))
    c = comparison_of(sweep)
    assert c.classes is not None and c.classes.names == ("a", "b") and c.classes.support.tolist() == [10, 10]
    f1 = {
        loss: [2 * m[1][1] / (10 + m[0][1] + m[1][1]) for m in own.values()]
        for loss, own in (("b", base), ("s", other))
    }
    differences = np.subtract(f1["s"], f1["b"])
    expected = paired(differences, family=sidak(2))
    found = c.classes.differences["square"][1]
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert c.classes.confusion["square"] == pytest.approx(np.array([[0.9, 0.1], [0.05, 0.9]]))
    files = drawn(c)
    assert files.keys() == {"differences-classes", "confusion"}
    assert "for a fixed number of seeds" not in files["differences-classes"].caption
    growing = drawn(replace(c, growing=Growing(TERMS, {}, {})))
    assert "for a fixed number of seeds: they are not the repeated ones" in growing["differences-classes"].caption
    assert ("square", "b", "a", pytest.approx(0.05)) in files["confusion"].data
    sizes = [text.get_text() for text in files["confusion"].draw().axes[0].texts]
    assert sizes == ["85", "15", "35", "65"]


def test_of_many_classes_the_pairs_with_the_most_mistakes_are_shown(tmp_path: Path) -> None:
    sweep, size = Sweep(tmp_path / "runs"), 30
    for loss, wrong in (("cross_entropy", 6), ("square", 2)):
        for seed in (1, 2):
            matrix = np.eye(size) * 20
            matrix[3, 4], matrix[7, 0], matrix[5, 6] = wrong, 4, 1
            keep(sweep.add(loss, seed, 1.0), **of_classes(matrix, [f"class {i}" for i in range(size)]))
    files = drawn(comparison_of(sweep))
    assert files.keys() == {"differences-classes", "confused-classes"}
    of_square = [line[1:3] for line in files["confused-classes"].data if line[0] == "square"]
    assert of_square[:2] == [("class 3", "class 4"), ("class 7", "class 0")] and len(of_square) == 3
    assert len(files["differences-classes"].draw().axes[0].get_yticklabels()) == 20
    assert "20 of 30" in files["differences-classes"].caption


def test_losses_of_other_classes_are_left_out_and_named(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs")
    keep(sweep.add("cross_entropy", 1, 1.0), **of_classes(np.eye(2), ["a", "b"]))
    keep(sweep.add("square", 1, 1.0), **of_classes(np.eye(2), ["b", "a"]))
    c = comparison_of(sweep)
    assert c.classes is not None and not c.classes.differences
    assert any("square: its classes are others" in caveat for caveat in c.caveats)


def test_entities_have_differences_by_type(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs")
    for loss, right in (("cross_entropy", 4), ("square", 5)):
        for seed in (1, 2):
            counts = [[0, right - seed, 3], [0, 8, 4], [0, 8, 4]]
            keep(sweep.add(loss, seed, 1.0), entities=counts, entity_types=["", "LOC", "PER"])
    c = comparison_of(sweep)
    assert c.entities is not None and c.entities.names == ("LOC", "PER") and c.classes is None
    assert [found.mean for found in c.entities.differences["square"]] == pytest.approx([1 / 8, 0])
    assert drawn(c).keys() == {"differences-entities"}


def test_residuals_are_quantiles_by_the_targets_value(tmp_path: Path) -> None:
    sweep, draw = Sweep(tmp_path / "runs"), np.random.default_rng(0)
    target = np.repeat(np.arange(20.0), 10)[:, None]
    kept = []
    for seed in (1, 2):
        predicted = 0.5 * target + draw.normal(size=target.shape)
        kept.append(predicted - target)
        keep(sweep.add("cross_entropy", seed, 1.0), predicted=predicted, target=target)
        sweep.add("square", seed, 1.0)
    c = comparison_of(sweep)
    (found,) = c.residuals
    assert found.target[0] < found.target[-1] and found.count.sum() == 400
    first = np.concatenate([each[: found.count[0] // 2, 0] for each in kept])
    assert found.quantiles[:, 0] == pytest.approx(np.quantile(first, [0.1, 0.5, 0.9]))
    assert drawn(c).keys() == {"residuals"}


def test_runs_without_arrays_have_no_such_figure_and_damaged_ones_are_named(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs")
    keep(sweep.add("cross_entropy", 1, 1.0), class_metrics=np.ones((3, 2)))
    keep(sweep.add("square", 1, 1.0), predicted=np.ones((3, 1)), target=np.ones((2, 1)))
    c = comparison_of(sweep)
    assert (c.classes, c.entities, c.residuals) == (None, None, [])
    assert sum("is damaged (it holds arrays of another shape)" in caveat for caveat in c.caveats) == 2
    assert not drawn(c)
