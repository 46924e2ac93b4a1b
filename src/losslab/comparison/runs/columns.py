"""The runs of a folder as plain columns, for notebooks: `losslab.comparison.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losslab.comparison.runs.load import load_runs
from losslab.comparison.runs.results_table import FINAL
from losslab.config.streams import SEEDS, STREAMS, TWIN


def load(source: str | Path) -> dict[str, list[Any]]:
    """The runs of a folder (or the lines of a table of results, .csv) as columns of equal length, one entry a run.

    `pandas.DataFrame(load("outputs/first"))` is a table. The columns are folder, loss, seed, status, step, max_steps,
    seconds (of training), tokens_per_second, error; then every setting in which the runs differ by its dotted key
    (`optimizer.lr`), and seeds of streams and twins where there are any (`seeds.data_order`); then every metric:
    `test/nll_scaled`, … at the best checkpoint, and `final/test/nll_scaled`, … at the last step. None where a run has
    no such value. A run that cannot be read is left out.

    Raises:
        UserError: when there are no runs.
    """
    runs = load_runs(Path(source)).runs
    keys = sorted(set().union(*(run.settings for run in runs)))
    varying = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    bests = [run.record.metrics.get("best", {}) for run in runs]
    finals = [run.record.metrics.get("final", {}) for run in runs]
    columns: dict[str, list[Any]] = {
        "folder": [None if run.folder is None else str(run.folder) for run in runs],
        "loss": [run.loss for run in runs],
        "seed": [int(run.seed) for run in runs],
        "status": [run.record.status for run in runs],
        "step": [run.record.step for run in runs],
        "max_steps": [run.record.max_steps for run in runs],
        "seconds": [run.record.timing.get("seconds") for run in runs],
        "tokens_per_second": [run.record.throughput.get("tokens_per_second") for run in runs],
        "error": [run.record.error for run in runs],
    }
    columns |= {key: [run.settings.get(key) for run in runs] for key in varying}
    own = {f"{SEEDS}.{stream}": [dict(run.seed.own).get(stream) for run in runs] for stream in STREAMS}
    own[f"{SEEDS}.{TWIN}"] = [run.twin for run in runs]
    columns |= {key: values for key, values in own.items() if any(value is not None for value in values)}
    for prefix, parts in (("", bests), (FINAL, finals)):
        names = sorted(set().union(*parts) - {"step"}) if parts else []
        columns |= {f"{prefix}{name}": [part.get(name) for part in parts] for name in names}
    return columns
