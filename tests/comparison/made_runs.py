"""Run folders as training leaves them, with numbers that are known; and what a person reads of them."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console

from losslab.commands.answer import to_summary
from losslab.comparison import Comparison, analyse, load_runs
from losslab.comparison.output.prose import caption
from losslab.comparison.output.report import to_html
from losslab.comparison.output.tables import cells, escape_markdown, to_latex, to_terminal
from losslab.comparison.rows import Row
from losslab.metric import Metric
from losslab.metrics.table import METRICS, PRIMARY
from losslab.records import Record

CONFIG: dict[str, Any] = {
    "name": "runs",
    "seed": 1,
    "output_dir": "outputs",
    "fresh": False,
    "task": {"_target_": "losslab.tasks.lm.LanguageModeling"},
    "model": {"_target_": "losslab.models.decoder.Decoder", "width": 64, "context": 32},
    "loss": {"_target_": "losslab.losses.Loss"},
    "data": {
        "_target_": "losslab.data.module.TextDataModule",
        "path": "/data/book.txt",
        "tokenizer": "bpe",
        "batch_size": 16,
        "val_batch_size": 32,
        "num_workers": 0,
    },
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.003},
    "scheduler": {"_target_": "losslab.training.schedules.Constant"},
    "trainer": {
        "max_steps": 100,
        "val_check_interval": 10,
        "max_tokens": None,
        "precision": "32-true",
        "log_every_n_steps": 10,
        "enable_progress_bar": True,
        "devices": 1,
        "num_nodes": 1,
        "accelerator": "cpu",
        "strategy": "auto",
        "threads": None,
        "micro_batch_size": 16,
        "accumulate_grad_batches": 1,
    },
    "checkpoints": {"every_n_steps": 500},
    "logger": {"enabled": True},
}
_NOTHING = re.compile(r"(?<![\w.])[+-]?(nan|inf|None)(?!\w)")


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    for key, value in changes.items():
        section, _, last = key.rpartition(".")
        (config.setdefault(section, {}) if section else config)[last] = value
    return config


def write_metrics(folder: Path, curve: dict[int, float], metric: str = "val/nll_scaled") -> None:
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/objective", metric])
        for step, value in curve.items():
            writer.writerow([step - 1, 1.0, ""])
            writer.writerow([step, "", value])


class Sweep:
    """A folder of runs, filled one by one: of language models, or of a task with other metrics."""

    def __init__(self, folder: Path, metrics: Sequence[Metric] = METRICS, primary: str = PRIMARY) -> None:
        self.folder = folder
        self.metrics = metrics
        self.primary = primary
        self.count = 0

    def add(
        self,
        loss: str,
        seed: int,
        value: float | None = None,
        *,
        val: float | None = None,
        status: str = "completed",
        changes: dict[str, Any] | None = None,
        hashes: dict[str, str] | None = None,
        metrics: dict[str, float | None] | None = None,
        final: dict[str, float] | None = None,
        overrides: list[str] | None = None,
        throughput: dict[str, float] | None = None,
        curve: dict[int, float] | None = None,
        error: str | None = None,
        started: str = "2026-01-01T00:00:00+00:00",
        declared: Sequence[Metric] | None = None,
    ) -> Path:
        """One run; `value` is its primary metric on test, `val` on val, `final` its metrics after the last step,
        `changes` are dotted keys of its configuration, `declared` its task's metrics if not the sweep's."""
        self.count += 1
        folder = self.folder / f"{loss}-seed{seed}-{self.count:010d}"
        folder.mkdir(parents=True)
        target = f"losslab.losses.{loss}.{loss.title()}"
        config = with_changes({"seed": seed, "loss._target_": target} | (changes or {}))
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        best: dict[str, Any] = {} if value is None else {f"test/{self.primary}": value, "step": 60.0}
        best |= ({} if val is None else {f"val/{self.primary}": val}) | (metrics or {})
        record = Record(
            identity=f"{self.count:064d}",
            name=self.folder.name,
            overrides=overrides or [],
            status=status,
            step=100,
            max_steps=config["trainer"]["max_steps"],
            metrics={"final": final or {f"test/{self.primary}": 99.0}, "best": best} if best else {},
            hashes={"data": "d" * 64, "backbone_init": f"w{seed}", "batches": f"b{seed}"} | (hashes or {}),
            provenance={"choices": {"loss": loss}},
            throughput=throughput or {},
            timing={"started": started},
            error=error,
        )
        record.declare(self.metrics if declared is None else declared, self.primary)
        record.write(folder)
        if value is not None:
            write_metrics(folder, curve or {50: value + 1, 100: value + 0.5}, f"val/{self.primary}")
        return folder

    def add_grid(
        self, loss: str, rates: dict[float, float], *, seeds: tuple[int, ...] = (1, 2), key: str = "optimizer.lr"
    ) -> None:
        """A run for each seed and value of a setting: value → val/nll_scaled, and test a tenth above."""
        for value, val in rates.items():
            for seed in seeds:
                self.add(loss, seed, val + 0.1 + seed / 100, val=val + seed / 100, changes={key: value})


def edit_record(folder: Path, **changes: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_scores(folder: Path, units: NDArray[np.floating]) -> None:
    """test_scores.npz.

    Args:
        units: [4, U], as in `RunFolder.scores`.
    """
    reliability = np.full((2, 3, 15), 10.0)
    np.savez(folder / "test_scores.npz", unit="document", units=units.astype(np.float32), reliability=reliability)


class _Page(HTMLParser):
    """The text of a page, and its tables."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.cells: list[str] = []
        self._skip = False
        self._cell: list[str] | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skip = tag == "style" or self._skip
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        self._skip = self._skip and tag != "style"
        if tag in ("td", "th") and self._cell is not None:
            self.cells.append("".join(self._cell))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)


def comparison_of(sweep: Sweep | Path, *, where: tuple[str, ...] = (), **options: Any) -> Comparison:
    return analyse(load_runs(sweep.folder if isinstance(sweep, Sweep) else sweep, where=where), **options)


def rows_of(sweep: Sweep | Path, **options: Any) -> dict[str, Row]:
    return {row.label: row for row in comparison_of(sweep, **options).rows}


def page_text(c: Comparison) -> str:
    return " ".join(_Page(to_html(c, [])).text)


def read(c: Comparison) -> str:
    """summary.md, after a look at every table that a person may see: no cell is empty, or says nan, inf or None; and
    each caveat stands in the summary and on the page."""
    summary, page = to_summary(c), _Page(to_html(c, []))
    tables = [line for line in summary.splitlines() if line.startswith("|")]
    shown = [cell for line in tables for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
    shown += [cell for line in cells(c, c.rows, c.metric) for cell in line]
    shown += page.cells
    shown += [str(cell) for column in to_terminal(c).columns for cell in (column.header, *column.cells)]
    shown += [
        cell.removesuffix("\\\\")
        for line in to_latex(c, caption(c)).splitlines()
        if line.endswith("\\\\")
        for cell in line.split(" & ")
    ]
    assert all(cell.strip() for cell in shown)
    for text in (*shown, summary, " ".join(page.text), printed(c)):
        assert not _NOTHING.search(text), _NOTHING.search(text)
    for sentence in c.caveats:
        assert sentence in html.unescape(" ".join(page.text))
        assert escape_markdown(sentence) in summary
    return summary


def printed(c: Comparison, width: int = 100) -> str:
    """The table as a terminal shows it."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_terminal(c))
    return console.export_text()
