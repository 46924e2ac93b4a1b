"""`losslab predict`: rows in, rows with predictions out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.commands.trusted import let_import, one_run
from losslab.console import complain, say
from losslab.console import write as write_out
from losslab.data.tables import TableFormat, column_names, find_tables, form_beside, read_rows
from losslab.errors import UserError
from losslab.files import write_atomic

_SUFFIXES = (".jsonl", ".csv")
_PREDICTED, _PROBABILITY = "predicted", "probability"


def predict(folder: Path, table: Path, *, output: Path | None, checkpoint: str, trust: list[str]) -> int:
    """Predict the rows of a file; returns the exit code.

    Args:
        table: .csv, .tsv or .jsonl with the columns that the run's task reads; the target's may be missing.
        output: .jsonl or .csv; None: JSON lines on standard output.

    Raises:
        UserError: for a run without rows, and for rows that cannot be used.
    """
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise UserError(f"--output {output} must end in {' or '.join(_SUFFIXES)}")
    run, _ = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.training.scoring.loading import find_checkpoint, rebuild
    from losslab.training.scoring.predicting import RowPredictor

    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust)
    data = loaded.config["data"]
    predictor = RowPredictor(loaded.network, loaded.info, data, loaded.autocast)
    form = TableFormat.of(data)
    rows: list[dict[str, Any]] = []
    for file in find_tables(str(table), "the table", form):
        own = form_beside(file, form)
        columns = column_names(file, own)
        if _PREDICTED in columns:
            raise UserError(f"{file} has a column {_PREDICTED!r} already, where the prediction would stand: rename it")
        rows += read_rows(file, columns, own)
    predictions = predictor(rows)
    if predictor.cut_off:
        complain(f"note: {predictor.cut_off:,} sequences are longer than data.context={data['context']}: cut off")
    is_table = output is not None and output.suffix.lower() == ".csv"
    text = _to_csv(rows, predictions) if is_table else _to_lines(rows, predictions)
    if output is None:
        write_out(text)
        return 0
    try:
        write_atomic(output, text.encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    say(f"{len(rows):,} rows with predictions: {output}")
    return 0


def _to_lines(rows: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]) -> str:
    lines = [json.dumps(row | told, ensure_ascii=False) for row, told in zip(rows, predictions, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def _to_csv(rows: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]) -> str:
    """Cells of lists are items with spaces between, as such cells are read; beside a label stands its probability,
    beside several the probability of each."""
    out = io.StringIO()
    probable = any("probabilities" in told for told in predictions)
    columns = [*dict.fromkeys(name for row in rows for name in row), _PREDICTED, *([_PROBABILITY] if probable else [])]
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row, told in zip(rows, predictions, strict=True):
        value = told[_PREDICTED]
        added = {_PREDICTED: " ".join(map(str, value)) if isinstance(value, list) else value}
        if probable:
            shares = told["probabilities"]
            several = isinstance(value, list)
            added[_PROBABILITY] = " ".join(str(shares[label]) for label in value) if several else shares[value]
        writer.writerow(row | added)
    return out.getvalue()
