"""`losslab predict`: rows in, rows with predictions out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.commands.predicted import ADDED, ANSWERS, SUFFIXES, to_answers, to_csv, to_lines, told_to_people
from losslab.commands.trusted import let_import, one_run
from losslab.console import complain, err, note, out, say
from losslab.console import write as write_out
from losslab.data.formats.json_lines import parse_line
from losslab.data.tables import TableFormat, column_names, find_tables, form_beside, read_rows
from losslab.errors import UserError
from losslab.files import write_atomic

if TYPE_CHECKING:
    from losslab.training.scoring.given_rows import Predictor

_SHOWN = 5
"""Labels that a person is shown of a row, unless --top says otherwise."""
_HINT = "a line and Enter: it is predicted; Ctrl-D ends the program"


@dataclass(frozen=True)
class _Opened:
    """A run that predicts."""

    predictor: Predictor
    data: dict[str, Any]
    """Its data's configuration."""
    unit: str
    about: str | None
    """The temperature, for people; None where predictions are no probabilities."""
    whose: str | None
    """The weights that predict, for people; None where there is one kind of them."""
    fitted: dict[str, float]
    """Numbers of the temperature that each prediction records; none where probabilities are the loss's own."""

    def predict(self, rows: list[Any], top: int | None, *, first: int = 1) -> list[dict[str, Any]]:
        """Predictions of rows, with the `top` most probable labels of each, all where that is None."""
        found = self.predictor(rows, first=first)
        return [told | ({} if top is None else _best(told, top)) | self.fitted for told in found]


def predict(
    folder: Path,
    table: Path | None,
    *,
    output: Path | None,
    checkpoint: str,
    trust: list[str],
    temperature: str = "none",
    top: int | None = None,
    weights: str = "raw",
) -> int:
    """Predict the rows of a file, of standard input, or of what a person types; returns the exit code.

    Args:
        table: .csv, .tsv, .jsonl or .parquet with the columns that the run's task reads; the target's may be missing.
            Of frames also the .npy or .wav of one row. Of questions also .json in the form of SQuAD.
            None: standard input, a row of JSON a line; on a terminal a text a line.
        output: .jsonl or .csv, of answers also .json (`to_answers`); None: JSON lines on standard output.
        temperature: none: probabilities are the loss's own; fitted: those of nll_scaled.
        top: labels that are given of each row, the most probable ones; None: all.
        weights: raw, or ema: the averages that callbacks=ema kept.

    Raises:
        UserError: for a run without rows, and for rows that cannot be used.
    """
    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output {output} must end in .jsonl or .csv, or {ANSWERS} for answers of task=qa")
    if top is not None and top < 1:
        raise UserError(f"--top must be 1 or more, not {top}")
    opened = _open(folder, checkpoint, trust, temperature, weights, top)
    types = table is None and sys.stdin.isatty()
    if opened.whose is not None:
        note(opened.whose)
    if opened.about is not None and not types and output is None:
        note(opened.about)
    if table is None and output is None:
        (_converse if types else _stream)(opened, top)
        _tell(opened)
        return 0
    rows = list(_lines()) if table is None else _rows_of(table, opened)
    try:
        predictions = opened.predict(rows, top)
    except UserError as error:
        raise UserError(f"{table or 'standard input'}: {error}") from None
    _tell(opened)
    form = ".jsonl" if output is None else output.suffix.lower()
    if form == ".csv":
        text = to_csv(rows, predictions, ranked=top is not None)
    else:
        text = to_answers(rows, predictions) if form == ANSWERS else to_lines(rows, predictions)
    if output is None:
        write_out(text)
        return 0
    try:
        write_atomic(output, text.encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    say(f"{len(rows):,} rows with predictions: {output}" + (f"; {opened.about}" if opened.about else ""))
    return 0


def _open(folder: Path, checkpoint: str, trust: list[str], temperature: str, weights: str, top: int | None) -> _Opened:
    run, _ = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.training.scoring.averaged import told
    from losslab.training.scoring.fitted import Fitted
    from losslab.training.scoring.loading import find_checkpoint, rebuild
    from losslab.training.scoring.predicting import predictor_of

    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust, weights)
    task, whose = loaded.network.task, told(weights, loaded.averaged)
    if task.reads_source and (top is not None or temperature != "none"):
        option = "--temperature" if top is None else "--top"
        raise UserError(f"{option} is about probabilities of labels, and this run writes texts: leave it out")
    fitted = None if task.reads_source else Fitted.choose(temperature, task, loaded.info, loaded.scale, loaded.shift)
    data = loaded.config["data"]
    predictor = predictor_of(loaded.network, loaded.info, data, loaded.autocast, fitted)
    about = None
    if task.calibrator(loaded.info) is not None and not (task.points or task.reads_source):
        about = "probabilities are the loss's own (--temperature none)" if fitted is None else fitted.told()
    recorded = {} if fitted is None else {name: value for name, value in asdict(fitted).items() if value}
    return _Opened(predictor, data, task.unit, about, whose, recorded)


def _rows_of(table: Path, opened: _Opened) -> list[dict[str, Any]]:
    """The rows of a file, or of several. Raises UserError naming what is missing, or stands in the way."""
    if (found := opened.predictor.rows_of(table)) is not None:
        return found
    paths = opened.predictor.path_columns
    form = TableFormat.of(opened.data)
    rows: list[dict[str, Any]] = []
    for file in find_tables(str(table), "the table", form):
        own = form_beside(file, form)
        columns = column_names(file, own)
        if taken := next((name for name in ADDED if name in columns), None):
            raise UserError(f"{file} has a column {taken!r} already, where the prediction would stand: rename it")
        if missing := [name for name in opened.predictor.names.values() if name not in columns]:
            there = ", ".join(map(repr, columns)) or "nothing"
            raise UserError(f"{file} has no column {missing[0]!r}, which this run reads, but {there}: rename one")
        rows += [_beside(file, row, paths) for row in read_rows(file, columns, own)]
    return rows


def _beside(file: Path, row: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A row whose paths are no longer those from the folder of its file, but from the current one."""
    return row | {name: str(file.parent / row[name]) for name in paths if isinstance(row[name], str)}


def _stream(opened: _Opened, top: int | None) -> None:
    """Predict each line of standard input, as soon as a batch is there."""
    lines, done = _lines(), 0
    try:
        while rows := list(islice(lines, opened.predictor.batch_size)):
            write_out(to_lines(rows, opened.predict(rows, top, first=done + 1)))
            done += len(rows)
    except BrokenPipeError:
        out.on_broken_pipe()


def _lines() -> Iterator[dict[str, Any]]:
    """Rows of standard input, an object of JSON a line."""
    lines = iter(sys.stdin)
    for number in range(1, sys.maxsize):
        try:
            line = next(lines, None)
        except UnicodeDecodeError as error:
            raise UserError(f"standard input is not UTF-8 text: {error}") from None
        if line is None:
            return
        if line.strip():
            yield parse_line(line, f"standard input, line {number}")


def _converse(opened: _Opened, top: int | None) -> None:
    """Predict what a person types: a line for each column that is read."""
    names = list(opened.predictor.names.values())
    err.print(f"{_HINT}{f'; {opened.about}' if opened.about else ''}", markup=False)
    while True:
        try:
            row = {name: input("> " if len(names) == 1 else f"{name}> ") for name in names}
        except EOFError:
            say("")
            return
        except UnicodeDecodeError as error:
            complain(f"not UTF-8 text: {error}")
            continue
        if not any(text.strip() for text in row.values()):
            continue
        try:
            (told,) = opened.predict([row], top or _SHOWN)
        except UserError as error:
            complain(str(error))
            continue
        for line in told_to_people(told, opened.unit, words=opened.predictor.words_of(row)):
            say(line)


def _best(told: dict[str, Any], top: int) -> dict[str, Any]:
    """The most probable labels, in their order."""
    if "probabilities" not in told:
        return {}
    ranked = sorted(told["probabilities"].items(), key=lambda pair: -pair[1])
    return {"probabilities": dict(ranked[:top])}


def _tell(opened: _Opened) -> None:
    for text in opened.predictor.notes():
        complain(f"note: {text}")
