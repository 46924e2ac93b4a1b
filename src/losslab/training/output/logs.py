"""metrics.csv and TensorBoard: one row a logged optimizer step, and after a resume each step once."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Sequence

from losslab.config.optimizer_groups import REST
from losslab.files import naming, write_atomic
from losslab.metric import Metric, better
from losslab.run_folder import RunFolder
from losslab.training.output.events import EventFile, has_scalars


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


class MetricsLog:
    """Writes scalars with the optimizer step as axis.

    Args:
        step: what the checkpoint that training continues from had completed; everything later is cut off.
        columns: of metrics.csv, fixed for the run.
        total: the last step.
        primary: chooses the best validation.
        shown: the metrics that TensorBoard's HParams tab shows, and whose best values are logged beside the others.
        events: also write TensorBoard's.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        step: int,
        total: int,
        columns: list[str],
        primary: Metric,
        shown: Sequence[str],
        events: bool,
    ) -> None:
        self.path = run.metrics
        self.columns = ["step", *columns]
        self.total = total
        self.primary = primary
        self.shown = [primary.name, *(name for name in shown if name != primary.name)]
        rows = self._cut(step)
        # A run that was stopped after its last step logs that step again, with the test metrics that follow it.
        again = rows[-1] if rows and int(rows[-1]["step"]) == step == total else None
        is_new = events and not has_scalars(run.path)
        self.events = EventFile(run.path, purge_from=step if again else step + 1) if events else None
        if self.events is not None and again is not None and not is_new:
            values = {name: float(value) for name, value in again.items() if value and name != "step"}
            self.events.scalars(step, self._in_events(step, values))
        if self.events is not None and is_new:
            self._replay(self.events, rows)
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns, restval="")

    def _replay(self, events: EventFile, rows: list[dict[str, str]]) -> None:
        """Log to TensorBoard what stands in metrics.csv and has never been there: the part before the step where this
        run continues another, or one that was trained without events."""
        best: dict[str, float] = {}
        for row in rows:
            values = {name: float(text) for name, text in row.items() if text and name != "step"}
            primary = f"val/{self.primary.name}"
            if primary in values and (not best or better(self.primary, values[primary], best[primary])):
                best = values
            validated = primary in values and int(row["step"]) != self.total
            shown = self._in_events(int(row["step"]), values)
            events.scalars(int(row["step"]), shown | (self._best("val/", best) if validated else {}))

    def write(self, step: int, values: dict[str, float], best: dict[str, float]) -> None:
        """Log an optimizer step; TensorBoard gets the best validation so far beside each but the last."""
        self._writer.writerow({"step": step, **{name: repr(float(value)) for name, value in values.items()}})
        if self.events is not None:
            validated = f"val/{self.primary.name}" in values and step != self.total
            self.events.scalars(step, self._in_events(step, values) | (self._best("val/", best) if validated else {}))

    def _in_events(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Leave out the last step's val, which `finish` has of the whole split."""
        return {name: value for name, value in values.items() if step != self.total or not name.startswith("val/")}

    def add_hparams(self, hparams: dict[str, str | float]) -> None:
        """This run's row in TensorBoard's HParams tab."""
        if self.events is not None:
            self.events.hparams(hparams, self.shown)
            self.events.flush()

    def result(self, *, success: bool) -> None:
        """Close that row."""
        if self.events is not None:
            self.events.result(success)
            self.events.flush()

    def finish(self, step: int, metrics: dict[str, dict[str, float]]) -> None:
        """The run's results, for TensorBoard: val and test at the last step, and at the best checkpoint.

        The last step's row in metrics.csv has val on the part that every validation scores; this is all of it.
        """
        if self.events is None:
            return
        final, best = metrics["final"], metrics["best"]
        tests = {f"test/{name}": final[f"test/{name}"] for name in self.shown if f"test/{name}" in final}
        whole = {name: value for name, value in final.items() if name in self.columns}
        self.events.scalars(step, whole | tests | self._best("val/", best) | self._best("test/", best))
        self.result(success=True)

    def _best(self, part: str, metrics: dict[str, float]) -> dict[str, float]:
        """best/val/… or best/test/… out of the metrics of the best checkpoint."""
        return {f"best/{part}{name}": metrics[f"{part}{name}"] for name in self.shown if f"{part}{name}" in metrics}

    def flush(self) -> None:
        """Flush before a checkpoint is written: no step that it counts as done may be missing here."""
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        if self.events is not None:
            self.events.flush()

    def close(self) -> None:
        """Close the files. Rows that a checkpoint needs were flushed before it; a disk that is full by now must not
        hide why the run stops."""
        for file in (self._file, self.events):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    def _cut(self, step: int) -> list[dict[str, str]]:
        """Keep whole rows up to `step`, and return them; a row that a kill tore is behind it."""
        kept = io.StringIO()
        rows = []
        writer = csv.DictWriter(kept, self.columns, restval="")
        writer.writeheader()
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in csv.DictReader(line.replace("\0", "") for line in file):
                    if (row.get("step") or "").isdigit() and int(row["step"]) <= step and None not in row.values():
                        rows.append({name: row.get(name, "") for name in self.columns})
        writer.writerows(rows)
        write_atomic(self.path, kept.getvalue().encode())
        return rows
