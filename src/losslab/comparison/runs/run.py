"""A run as the comparison sees it: its record, curves and scores. No torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.runs.seed import Seed
from losslab.config.flags import DEBUG
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder

BEST, LAST = "best", "last"
"""Weights of a run: of its best checkpoint, and after its last step."""
_PARTS = {BEST: "best", LAST: "final"}
"""Weights → the part of the record that holds their metrics."""
_DEBUG = tuple(f"trainer.{key}" for key in DEBUG)
_UNIT_METRICS = ("nll_scaled", "nll", "top1")
"""Metrics of units in files that name none."""
_DAMAGED = (OSError, ValueError, KeyError, EOFError)


@dataclass(frozen=True)
class Run:
    """A run as the comparison sees it."""

    folder: RunFolder | None
    """None for a line of somebody's table."""
    record: Record
    loss: str
    """The name of its loss: the choice of conf/loss."""
    seed: Seed
    settings: dict[str, Any]
    """Dotted key → value of everything in its identity but `seed` and `seeds`."""
    plain: bool
    """Its loss and regularizers are at the defaults of that choice."""
    of_test: bool = True
    """Its metrics are those of its own test, and not of another text."""
    weights: str = BEST
    """The weights that its metrics are of: BEST or LAST."""
    twin: int | None = None
    """The number of a twin (`seeds.twin`), which is no further seed of its loss."""

    @property
    def name(self) -> str:
        return self.folder.name if self.folder is not None else self.record.name

    @property
    def debug(self) -> dict[str, Any]:
        """The flags that make it a debug run, with their values; empty for any other."""
        return {key: value for key in _DEBUG if (value := self.settings.get(key)) is not None}

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of its weights by name, such as `test/nll`; of the best checkpoint its `step`, too."""
        return self.record.metrics.get(_PARTS[self.weights], {})

    @property
    def best_step(self) -> float | None:
        """The step of its best checkpoint, whichever weights are compared."""
        return self.record.metrics.get("best", {}).get("step")

    @property
    def step(self) -> float | None:
        """The step of its weights."""
        return self.best_step if self.weights == BEST else float(self.record.step)

    def value(self, metric: str) -> float | None:
        """A metric of its weights; None where it is missing or was not finite."""
        return self.metrics.get(metric)

    def with_metrics(self, metrics: dict[str, float]) -> Run:
        """The run with these metrics of its weights instead."""
        own = self.record.metrics | {_PARTS[self.weights]: metrics}
        return replace(self, record=replace(self.record, metrics=own))

    def curves(self, wanted: Collection[str]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Metric → (steps, values), out of metrics.csv; of those wanted, the ones that have values.

        Raises:
            UserError: where the file is damaged.
        """
        if self.folder is None or not (path := self.folder.metrics).exists():
            return {}
        try:
            *lines, torn = path.read_text(encoding="utf-8").split("\n")
            if torn or not lines:
                raise ValueError("its last line is torn")  # an empty file has not even a first one
            # Numbers without quotes: splitting lines takes a third of the time of the csv module and numpy.
            header = lines[0].split(",")
            rows = [line.split(",") for line in lines[1:]]
            if {len(row) for row in rows} - {len(header)}:
                raise ValueError("its lines differ in length")
            shown = [(name, place) for place, name in enumerate(header) if name in wanted]
            places = [header.index("step"), *(place for _, place in shown)]
            table = np.array([[float(row[place] or "nan") for place in places] for row in rows])
            found = {}
            for column, (name, _) in enumerate(shown, start=1):
                told = np.array([row[places[column]] != "" for row in rows])
                if told.any():
                    found[name] = (table[told, 0], table[told, column])
            return found
        except _DAMAGED as error:
            raise UserError(f"{path} is damaged ({error}); its curves are left out") from None

    def scores(self) -> dict[str, NDArray[Any]] | None:
        """The content of test_scores.npz (`RunFolder.scores`), which is of the best checkpoint; None where there is
        none, or other weights are compared.

        Raises:
            UserError: where the file is damaged.
        """
        if self.folder is None or not self.of_test or self.weights != BEST or not (path := self.folder.scores).exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                found = {name: content[name] for name in content.files}
            found.setdefault("unit_metrics", np.array(_UNIT_METRICS))
            if {"unit", "units"} - found.keys():
                raise ValueError("it lacks an array")
            if found["units"].ndim != 2 or len(found["units"]) != 1 + len(found["unit_metrics"]):
                raise ValueError("it holds arrays of another shape")
            if not _are_whole(found):
                raise ValueError("it holds arrays of another shape")
            return found
        except Exception as error:  # zipfile and numpy raise half a dozen kinds
            raise UserError(f"{path} is damaged ({error}); it is left out") from None


_SHAPES: dict[str, tuple[str | int, ...]] = {
    "class_metrics": (4, "classes"),
    "confusion": ("classes", "classes"),
    "class_names": ("classes",),
    "entities": (3, "types"),
    "entity_types": ("types",),
    "predicted": ("samples", "values"),
    "target": ("samples", "values"),
}
"""Sizes of the arrays that a task may keep, and names of those that must agree."""


def _are_whole(found: dict[str, NDArray[Any]]) -> bool:
    """Whether arrays have the shapes that are read."""
    sizes: dict[str, int] = {}
    for name, shape in _SHAPES.items():
        if name not in found:
            continue
        own = found[name].shape
        if len(own) != len(shape):
            return False
        for size, wanted in zip(own, shape, strict=True):
            if size != (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)):
                return False
    return "reliability" not in found or found["reliability"].shape[:2] == (2, 3)
