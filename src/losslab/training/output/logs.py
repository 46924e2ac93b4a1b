"""metrics.csv, and what of it the loggers receive: one row a logged optimizer step, after a resume each step once."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from losslab.config.optimizer_groups import REST
from losslab.files import naming, write_atomic
from losslab.metric import Metric, better
from losslab.run_folder import RunFolder
from losslab.training.output.loggers import Loggers, Rows


def metric_columns(
    metrics: Iterable[str], hidden: list[str], terms: Iterable[str] = (), groups: Iterable[str] = ()
) -> list[str]:
    """Everything that a run logs; `metrics` names those of a validation, `hidden` the hidden states whose gradients are
    measured, `terms` the parts of the objective, `groups` those of the optimizer."""
    return [
        "train/objective",
        *(f"train/objective/{name}" for name in terms),
        learning_rate_column(REST),
        *(learning_rate_column(name) for name in groups),
        "train/tokens",
        *(f"grad_norm/{name}" for name in ["all", *hidden]),
        *(f"val/{name}" for name in metrics),
    ]


def learning_rate_column(group: str) -> str:
    """The name under which the learning rate of a group of the optimizer's is logged."""
    return f"train/lr/{group}" if group else "train/lr"


class Shown:
    """The rows that loggers receive: those of metrics.csv, with the best validation so far beside each but the last.

    The last step has `val/…` on the part that every validation scores; `final` has all of it instead.

    Args:
        primary: chooses the best validation.
        names: the metrics whose best and test values are logged.
        total: the last step.
    """

    def __init__(self, primary: Metric, names: Sequence[str], total: int) -> None:
        self.primary = primary
        self.names = [primary.name, *(name for name in names if name != primary.name)]
        self.total = total

    def row(self, step: int, values: dict[str, float], best: dict[str, float]) -> dict[str, float]:
        if step == self.total:
            return {name: value for name, value in values.items() if not name.startswith("val/")}
        return values | (self._best("val/", best) if f"val/{self.primary.name}" in values else {})

    def history(self, path: Path, until: int) -> Rows:
        """Values of metrics.csv up to a step."""
        best: dict[str, float] = {}
        found = []
        for row in read_rows(path, until=until):
            values = {name: float(text) for name, text in row.items() if text and name != "step"}
            primary = f"val/{self.primary.name}"
            if primary in values and (not best or better(self.primary, values[primary], best[primary])):
                best = values
            found.append((int(row["step"]), self.row(int(row["step"]), values, best)))
        return found

    def final(self, columns: Iterable[str], metrics: dict[str, dict[str, float]]) -> dict[str, float]:
        """val and test at the last step, and at the best checkpoint."""
        final, best = metrics["final"], metrics["best"]
        tests = {f"test/{name}": final[f"test/{name}"] for name in self.names if f"test/{name}" in final}
        whole = {name: final[name] for name in columns if name in final}
        return whole | tests | self._best("val/", best) | self._best("test/", best)

    def _best(self, part: str, metrics: dict[str, float]) -> dict[str, float]:
        """best/val/… or best/test/… out of the metrics of the best checkpoint."""
        return {f"best/{part}{name}": metrics[f"{part}{name}"] for name in self.names if f"{part}{name}" in metrics}


class MetricsLog:
    """Writes scalars with the optimizer step as axis.

    Args:
        step: what the checkpoint that training continues from had completed; everything later is cut off.
        columns: of metrics.csv, fixed for the run.
        shown: what of it the loggers receive.
        loggers: open their logs here.
        of_callbacks: values that callbacks logged at `step`.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        step: int,
        columns: list[str],
        shown: Shown,
        loggers: Loggers,
        of_callbacks: Mapping[str, float] | None = None,
    ) -> None:
        self.path = run.metrics
        self.columns = ["step", *columns]
        self.shown = shown
        self.loggers = loggers
        self._cut(step)
        loggers.begin(partial(shown.history, self.path), step=step, metrics=shown.names, of_callbacks=of_callbacks)
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns, restval="")

    def write(self, step: int, values: dict[str, float], best: dict[str, float]) -> None:
        """Log an optimizer step.

        Args:
            best: the best validation so far.
        """
        if values:
            self._writer.writerow({"step": step, **{name: repr(float(value)) for name, value in values.items()}})
        self.loggers.log(step, self.shown.row(step, values, best))

    def of_callbacks(self) -> dict[str, float]:
        """The values that callbacks have logged since the last row."""
        return self.loggers.of_callbacks()

    def ends_at(self, step: int) -> None:
        """The run ends before its budget, with the row of this step."""
        self.shown.total = step
        self.loggers.ends_at(step)

    def finish(self, step: int, metrics: dict[str, dict[str, float]]) -> None:
        """The run's results, for the loggers."""
        self._file.flush()  # a log that was lost is written again, out of this one
        self.loggers.finish(step, self.shown.final(self.columns, metrics))

    def flush(self) -> None:
        """Flush before a checkpoint is written: no step that it counts as done may be missing here."""
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self.loggers.save()

    def close(self) -> None:
        """Close the file. Rows that a checkpoint needs were flushed before it; a disk that is full by now must not hide
        why the run stops."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _cut(self, step: int) -> None:
        """Keep whole rows up to `step`."""
        kept = io.StringIO()
        writer = csv.DictWriter(kept, self.columns, restval="")
        writer.writeheader()
        rows = [{name: row.get(name, "") for name in self.columns} for row in read_rows(self.path, until=step)]
        writer.writerows(rows)
        write_atomic(self.path, kept.getvalue().encode())


def read_rows(path: Path, *, until: int) -> list[dict[str, str]]:
    """Whole rows of metrics.csv up to a step; a row that a kill tore is behind the last checkpoint."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(line.replace("\0", "") for line in file))
    whole = [row for row in rows if (row.get("step") or "").isdigit() and None not in row.values()]
    return [row for row in whole if int(row["step"]) <= until]
