"""A run, and the runs of a sweep, as objects."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from losslab.api.comparison import Comparison, compare
from losslab.api.loading import load_network
from losslab.api.surroundings import borrowed
from losslab.api.tables import as_table
from losslab.api.words import checked_words
from losslab.commands.trusted import one_run
from losslab.console import figure
from losslab.errors import UserError
from losslab.records import DONE, Record
from losslab.sweeps.single import Single

if TYPE_CHECKING:
    from losslab.training.scoring.loading import Loaded

_SHOWN = ("val", "test")


class RunFailed(RuntimeError):
    """A run that ended without a result: `run` is its Run, and the message names the log with the traceback."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class Run:
    """A run in its folder. Each property reads what the folder says at that moment.

    Args:
        folder: of one run.
        trust: the classes outside losslab that `load` and `resume` may import out of it.

    Raises:
        UserError: for a folder that is no run's.
    """

    def __init__(self, folder: str | os.PathLike[str], *, trust: Iterable[str] = ()) -> None:
        self._folder, _ = one_run(Path(folder))
        self._trust = [trust] if isinstance(trust, str) else list(trust)

    @property
    def folder(self) -> Path:
        return self._folder.path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self._folder.name

    @property
    def record(self) -> Record:
        """All of run.json (`losslab.records`)."""
        return self._folder.record()

    @property
    def status(self) -> str:
        """planned, running, completed, failed, diverged or interrupted."""
        return self.record.status

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self._folder.config()

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best checkpoint by name, such as `test/nll_scaled`, and its `step`; empty before the first
        validation. `record.metrics["final"]` holds those of the last weights."""
        return dict(self.record.metrics.get("best", {}))

    @property
    def history(self) -> Any:
        """The logged steps, out of metrics.csv: a DataFrame where pandas is installed, else a dict of lists; NaN where
        a step has no value of a column."""
        columns = _read_columns(self._folder.metrics)
        return as_table(columns)

    @property
    def log(self) -> Path:
        """The file of warnings, notes and tracebacks."""
        return self._folder.log

    def load(self, checkpoint: str = "best", *, trust: Iterable[str] = (), weights: str = "raw") -> Loaded:
        """The trained network: see `losslab.load`."""
        given = [trust] if isinstance(trust, str) else list(trust)
        return load_network(self.folder, checkpoint=checkpoint, trust=[*self._trust, *given], weights=weights)

    def resume(self, overrides: Sequence[str] = (), *, progress: bool = True) -> Run:
        """Continue an unfinished run in place, from its last checkpoint, as `losslab resume` does; returns it.

        Args:
            overrides: KEY=VALUE of devices, workers, or where its data lies now.
            progress: False prints nothing.

        Raises:
            UserError: for bad input, and where another process holds the run.
            RunFailed: where it ends without a result.
            KeyboardInterrupt: once it is saved.
        """
        words = checked_words(overrides)
        if self.status in DONE and not words:
            return self
        with borrowed(f"losslab.Run({self.folder!s}).resume({words})", progress=progress):
            record = Single(self._folder, self._trust, label=self.name).work(words)
        return ended(self, record)

    def __repr__(self) -> str:
        record = self.record
        headline = record.headline("test") or record.headline("val")
        told = f", {headline}" if headline else ""
        return f"<Run {self.folder}: {record.status}, step {record.step} of {record.max_steps}{told}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self._folder.absolute() == other._folder.absolute()

    def __hash__(self) -> int:
        return hash(self._folder.absolute())

    def _repr_html_(self) -> str:
        record, best = self.record, self.metrics
        names = [name for name in record.names_shown("terminal") if any(_cells(name, best)[1:])]
        head = f"<p><b>{escape(self.name)}</b>: {record.status}, step {record.step:,} of {record.max_steps:,}"
        head += f"; {escape(record.error)}" if record.error and record.status != "completed" else ""
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in _cells(name, best)) + "</tr>" for name in names)
        table = f"<table><tr><th></th><th>val</th><th>test</th></tr>{rows}</table>" if rows else ""
        return f"{head}</p>{table}"


class Sweep(Sequence[Run]):
    """The runs of one multirun, in the order of its combinations; each run once."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = list(dict.fromkeys(runs))

    @property
    def folder(self) -> Path:
        """The folder of the runs.

        Raises:
            UserError: where they lie in several.
        """
        folders = list(dict.fromkeys(run.folder.parent for run in self._runs))
        if len(folders) != 1:
            raise UserError(f"the runs lie in {len(folders)} folders: {', '.join(map(str, folders))}")
        return folders[0]

    @property
    def failed(self) -> list[Run]:
        """The runs without a result: failed ones, and those that were interrupted. A diverged run is a result."""
        return [run for run in self._runs if run.status in ("failed", "interrupted")]

    def compare(
        self,
        *,
        baseline: str | None = None,
        metric: str | Sequence[str] = (),
        margin: float | None = None,
        where: Sequence[str] = (),
        tune: str = "auto",
        mixed: bool = False,
        weights: str = "best",
    ) -> Comparison:
        """Compare the losses of these runs: see `losslab.compare`."""
        return compare(
            self._runs, baseline=baseline, metric=metric, margin=margin, where=where, tune=tune, mixed=mixed,
            weights=weights,
        )  # fmt: skip

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Sweep: ...

    def __getitem__(self, index: int | slice) -> Run | Sweep:
        return Sweep(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        counts = Counter(run.status for run in self._runs)
        return f"<Sweep of {len(self)} runs: {', '.join(f'{n} {status}' for status, n in sorted(counts.items()))}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(run.name)}</td><td>{record.status}</td><td>{record.step:,}</td>"
            f"<td>{escape(record.headline('test') or str(record.error or ''))}</td></tr>"
            for run, record in ((run, run.record) for run in self._runs)
        )
        return f"<table><tr><th>run</th><th>status</th><th>step</th><th></th></tr>{rows}</table>"


def ended(run: Run, record: Record) -> Run:
    """The run, if it has a result. Raises RunFailed."""
    if record.status in DONE:
        return run
    raise RunFailed(f"{record.status}: {record.error}; see {run.log}", run)


def _read_columns(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: [_number(row[name], whole=name == "step") for row in rows] for name in names}


def _number(text: str, *, whole: bool) -> float:
    return int(text) if whole else float(text or "nan")


def _cells(name: str, metrics: dict[str, float]) -> list[str]:
    values = [metrics.get(f"{part}/{name}") for part in _SHOWN]
    return [escape(name), *("" if value is None else figure(value).strip() for value in values)]
