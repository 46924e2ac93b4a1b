"""metrics.csv and TensorBoard: one row a logged optimizer step, and after a resume each step once."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from losslab.records import write_atomic

METRICS = "metrics.csv"


_YARDSTICKS = (
    "nll nll_scaled nll_linked nll_linked_clipped perplexity bits_per_byte top1 objective scale unigram_nll"
).split()


def metric_columns(hidden: list[str]) -> list[str]:
    """Everything that a run logs; `hidden` names the hidden states whose gradients are measured."""
    return [
        "train/objective",
        "train/lr",
        "train/tokens",
        *(f"grad_norm/{name}" for name in ["all", *hidden]),
        *(f"val/{name}" for name in _YARDSTICKS),
    ]


class MetricsLog:
    """Writes scalars with the optimizer step as axis.

    Args:
        folder: the run's.
        step: what the checkpoint that training continues from had completed; everything later is cut off.
        columns: of metrics.csv, fixed for the run.
        tensorboard: the logger, opened with `purge_step = step + 1`, or None.
    """

    def __init__(self, folder: Path, *, step: int, columns: list[str], tensorboard: TensorBoardLogger | None) -> None:
        self.path = folder / METRICS
        self.columns = ["step", *columns]
        self.tensorboard = tensorboard
        self._cut(step)
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns, restval="")

    def write(self, step: int, values: dict[str, float]) -> None:
        self._writer.writerow({"step": step, **{name: repr(float(value)) for name, value in values.items()}})
        if self.tensorboard is not None:
            self.tensorboard.log_metrics(values, step)

    def flush(self) -> None:
        """Before a checkpoint is written: no step that it counts as done may be missing here."""
        self._file.flush()
        if self.tensorboard is not None:
            self.tensorboard.experiment.flush()

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _cut(self, step: int) -> None:
        """Keep whole rows up to `step`; a row that a kill tore is behind it."""
        kept = io.StringIO()
        writer = csv.DictWriter(kept, self.columns, restval="")
        writer.writeheader()
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if (row.get("step") or "").isdigit() and int(row["step"]) <= step and None not in row.values():
                        writer.writerow({name: row.get(name, "") for name in self.columns})
        write_atomic(self.path, kept.getvalue().encode())


class _Events(TensorBoardLogger):
    """Scalars only: no empty hparams.yaml beside them."""

    def save(self) -> None:
        self.experiment.flush()


def open_tensorboard(folder: Path, step: int) -> TensorBoardLogger:
    """Events straight into the run's folder; what was logged after `step` is purged by TensorBoard's readers."""
    return _Events(save_dir=str(folder), name="", version="", default_hp_metric=False, purge_step=step + 1)
