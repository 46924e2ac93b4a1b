"""Predictions as they are written: JSON lines, CSV, and lines for a person."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from losslab.errors import UserError

ANSWERS = ".json"
"""The suffix of a file that SQuAD's script reads."""
SUFFIXES = (".jsonl", ".csv", ANSWERS)
_PREDICTED, _PROBABILITY = "predicted", "probability"
ODDS, _BEST = "no_answer_odds", "best_span"
"""Columns of answers: log-odds of no answer against the best span, and that span's text."""
_BESIDE = ("scale", "shift", _BEST, ODDS)
"""Columns of the fitted numbers, and those beside answers."""
ADDED = (_PREDICTED,)
"""Columns that no row may have before."""
_BAR = 24


def to_lines(rows: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> str:
    """A row of JSON a line: the row's own cells, and what is predicted."""
    lines = [json.dumps({**row, **told}, ensure_ascii=False) for row, told in zip(rows, predictions, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def to_answers(rows: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> str:
    """One object of JSON, the id of each question → its answer, as SQuAD's script reads it.

    Raises:
        UserError: for predictions that are no answers, and rows without an id.
    """
    if any(ODDS not in told for told in predictions):
        raise UserError(f"{ANSWERS} is the form of answers by id, for runs of task=qa: write .jsonl or .csv")
    if missing := [number for number, row in enumerate(rows, start=1) if "id" not in row]:
        raise UserError(f"{ANSWERS} holds answers by id, and row {missing[0]} has none: write .jsonl or .csv")
    found = {str(row["id"]): told[_PREDICTED] for row, told in zip(rows, predictions, strict=True)}
    return json.dumps(found, ensure_ascii=False, indent=0) + "\n"


def to_csv(rows: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]], *, ranked: bool = False) -> str:
    """Cells of lists are items with spaces between, as such cells are read; beside a label stands its probability,
    beside several, and beside tags, the probability of each.

    Args:
        ranked: of a label also the next most probable ones, those that `probabilities` holds.
    """
    added = [_cells(told, ranked=ranked) for told in predictions]
    columns = [name for row in rows for name in row] + [name for cells in added for name in cells]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(columns)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **cells} for row, cells in zip(rows, added, strict=True))
    return out.getvalue()


def _cells(told: Mapping[str, Any], *, ranked: bool) -> dict[str, Any]:
    value = told[_PREDICTED]
    found: dict[str, Any] = {_PREDICTED: _joined(value)}
    shares = told.get("probabilities")
    if "tag_probabilities" in told:
        found[_PROBABILITY] = _joined(told["tag_probabilities"])
    elif shares is not None and isinstance(value, list):
        found[_PROBABILITY] = _joined([shares[label] for label in value if label in shares])
    elif shares is not None:
        found[_PROBABILITY] = shares[value]
        if ranked:
            for rank, (label, share) in enumerate(list(shares.items())[1:], start=2):
                found |= {f"{_PREDICTED}_{rank}": label, f"{_PROBABILITY}_{rank}": share}
    return found | {name: told[name] for name in _BESIDE if name in told}


def _joined(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def told_to_people(told: Mapping[str, Any], unit: str, *, words: Sequence[str]) -> Iterator[str]:
    """Lines for a terminal.

    Args:
        unit: of values.
        words: that have tags; empty where there are none.
    """
    value = told[_PREDICTED]
    if ODDS in told:
        yield f"  {value or 'no answer'}  (log-odds of no answer {told[ODDS]:+.2f})"
    elif "tag_probabilities" in told:
        width = max((len(word) for word in words), default=0)
        widest = max((len(tag) for tag in value), default=0)
        for word, tag, share in zip(words, value, told["tag_probabilities"], strict=False):
            yield f"  {word:<{width}}  {tag:<{widest}}  {share:>6.1%}"
    elif "probabilities" in told:
        holds = value if isinstance(value, list) else [value]
        width = max((len(label) for label in told["probabilities"]), default=0)
        for label, share in told["probabilities"].items():
            mark = "*" if label in holds else " "
            yield f"{mark} {label:<{width}}  {share:>6.1%}  {'█' * round(_BAR * share)}".rstrip()
    elif isinstance(value, str):
        yield f"  {value}"
    else:
        numbers = value if isinstance(value, list) else [value]
        yield "  " + ", ".join(f"{number:.6g}" for number in numbers) + (f" {unit}" if unit else "")
