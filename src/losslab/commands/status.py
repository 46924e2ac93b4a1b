"""`losslab status`: the ledger of a folder of runs, out of their records. No torch."""

from __future__ import annotations

import json
import platform
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from losslab import console
from losslab.commands.decided import told_verdicts, verdict_values
from losslab.commands.watching import watch as watch_runs
from losslab.errors import UserError
from losslab.records import DONE, FILE, Record
from losslab.run_folder import RunFolder

_COLORS = {"planned": "dim", "completed": "green", "pruned": "green", "running": "cyan"}
_COLORS |= {"killed": "yellow", "interrupted": "yellow"}
_HEADINGS = ["run", "state", "step", "", "", "elapsed", "left", "host"]
_NAMES, _STATE, _BEST, _SPEED, _HOST = 0, 1, 3, 4, 7
"""Columns of the runs' names and states, of their best validations and speeds, whose headings the records give, and of
their hosts."""
_NUMBERS = range(2, 7)
"""Columns of numbers."""


@dataclass(frozen=True)
class Line:
    """A run as the ledger shows it; None where nothing is known yet."""

    run: str
    state: str
    """Status in the record; but `running` where a process holds it, and `killed` where it is said to run and none
    does."""
    step: int
    max_steps: int
    primary: str
    """The metric that says which validation is the best one; empty where the record does not say yet."""
    best: float | None
    """Its value at the best validation so far."""
    tokens_per_second: float | None
    """Positions per second, whatever they are called."""
    elapsed: float | None
    """Seconds of training, up to the last checkpoint."""
    left: float | None
    """Seconds, at the speed so far; of a run that has not begun, at that of the others."""
    host: str
    error: str | None
    debug: dict[str, Any]
    """The flags that make it a debug run, with their values; empty for any other."""
    stopped: dict[str, Any]
    """Step, name and reason of the callback that ended it before its budget; empty for any other."""
    profile: list[str]
    """Its profiler's reports, below the run's folder."""
    positions: str = "tokens"
    """The name of its positions: tokens, rows or positions."""
    trial: dict[str, Any] = field(default_factory=dict)
    """Study and number of a run that a search drew."""


def status(folder: Path, *, watch: bool, as_json: bool) -> int:
    """Print the ledger of `folder`, once, or again and again until nothing has run for a while; returns the exit code.

    Raises:
        UserError: when there is no such folder, or no run in it.
    """
    if watch and as_json:
        raise UserError("--watch redraws a terminal and --json is for programs: choose one")
    lines = look(folder)
    if watch and not console.out.is_terminal:
        console.note("--watch redraws a terminal, which the output is not: this is one look")
    if as_json:
        verdicts = verdict_values(folder)
        content = {"runs": [_values(line) for line in lines], "totals": totals(lines)}
        console.out.print_json(json.dumps(content | ({"verdicts": verdicts} if verdicts else {})))
    elif watch and console.out.is_terminal:
        with suppress(KeyboardInterrupt):  # the usual way out
            watch_runs(lambda: look(folder), _table, lambda lines: [_summary(lines), *told_verdicts(folder)])
    else:
        if console.out.is_terminal:
            console.out.print(_table(lines), soft_wrap=False)
        else:
            _print_plain(lines)
        console.say(_summary(lines))
        for text in (*_studies(lines), *told_verdicts(folder)):
            console.say(text)
        for line in lines:
            for text in _notes(line):
                console.say(f"{line.run}: {text}")
    return 0


def look(folder: Path) -> list[Line]:
    """One line for each run below `folder`, by sweep and name. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    paths = (folder / FILE, *folder.glob(f"*/{FILE}"), *folder.glob(f"*/*/{FILE}"))
    found = sorted(run for run in (RunFolder(path.parent) for path in paths) if run.exists())
    if not found:
        raise UserError(f"{folder} holds no runs")
    return _guess([_line(run, folder) for run in found])


def totals(lines: list[Line]) -> dict[str, float | int | None]:
    """Runs by state, the seconds of training that those not yet completed need, and, while some run, how long the sweep
    takes until its end with as many at once."""
    counts = Counter(line.state for line in lines)
    left = sum(line.left for line in lines if line.left is not None) or None
    running = counts["running"]
    until_end = left / running if left and running else None
    return {**dict(sorted(counts.items())), "runs": len(lines), "seconds_left": left, "seconds_until_end": until_end}


def _guess(lines: list[Line]) -> list[Line]:
    """Add the time that runs which have not begun will take, by the mean time of a step in the others."""
    begun = [(line.elapsed, line.step) for line in lines if line.elapsed and line.step]
    if not begun:
        return lines
    mean = sum(seconds for seconds, _ in begun) / sum(step for _, step in begun)
    ahead = ("planned", "running", "killed", "interrupted")
    return [
        replace(line, left=mean * line.max_steps) if line.left is None and line.state in ahead else line
        for line in lines
    ]


def _line(run: RunFolder, folder: Path) -> Line:
    name = run.name if run.path == folder else run.path.relative_to(folder).as_posix()
    try:
        record = run.record()
    except UserError as error:
        return Line(name, "damaged", 0, 0, "", None, None, None, None, "", str(error), {}, {}, [])
    state = record.status
    if state not in DONE:
        held = run.is_locked()
        state = "running" if held else "killed" if state == "running" else state
    seconds = record.timing.get("seconds")
    done = state in (*DONE, "pruned")
    return Line(
        run=name,
        state=state,
        step=record.step,
        max_steps=record.max_steps,
        primary=record.primary,
        best=record.metrics.get("best", {}).get(f"val/{record.primary}"),
        tokens_per_second=record.throughput.get("tokens_per_second"),
        elapsed=seconds,
        left=None if done or not record.step else _left(record),
        host=str(record.hardware.get("host", "")),
        error=record.error.splitlines()[-1] if record.error and state not in ("completed", "running") else None,
        debug=record.provenance.get("debug") or {},
        stopped=record.stopped,
        profile=sorted(path.relative_to(run.path).as_posix() for path in run.profile.glob("*")),
        positions=record.positions,
        trial=record.trial,
    )


def _told_stop(stopped: dict[str, Any], max_steps: int) -> str:
    """`stopped after step 300 of 1,000 by callbacks.early_stopping: …`."""
    return f"stopped after step {stopped['step']:,} of {max_steps:,} by callbacks.{stopped['by']}: {stopped['reason']}"


def _notes(line: Line) -> list[str]:
    """Remarks that a reader of a run's line needs."""
    flags = ", ".join(f"{key}={value}" for key, value in line.debug.items())
    return [
        *([line.error] if line.error else []),
        *([f"debug run ({flags}), which compare leaves out"] if flags else []),
        *([_told_stop(line.stopped, line.max_steps)] if line.stopped else []),
        *([f"trainer.profiler wrote {', '.join(line.profile)}"] if line.profile else []),
    ]


def _left(record: Record) -> float | None:
    seconds = record.timing.get("seconds")
    return None if seconds is None else seconds / record.step * (record.max_steps - record.step)


def _table(lines: list[Line]) -> Table:
    """A table as wide as the terminal; only the names give way, for which empty columns and this machine's own name are
    left out."""
    headings, *rows = _text(lines)
    here = {"", platform.node()}
    shown = [i for i in range(len(headings)) if {row[i] for row in rows} - (here if i == _HOST else {""})]
    table = Table(box=None, pad_edge=False, expand=True)
    for i in shown:
        width = max(len(row[i]) for row in [headings, *rows])
        name = i == _NAMES
        table.add_column(
            headings[i],
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if i in _NUMBERS else "left",
            ratio=1 if name else None,
            width=None if name else width,
        )
    for line, row in zip(lines, rows, strict=True):
        colors = {_STATE: _COLORS.get(line.state, "red")}
        table.add_row(*(Text(row[i], style=colors.get(i, "")) for i in shown))
    return table


def _print_plain(lines: list[Line]) -> None:
    """Whole names, in columns, for files and other programs."""
    rows = _text(lines)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    for row in rows:
        cells = [
            cell.rjust(width) if i in _NUMBERS else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        console.say("  ".join(cells).rstrip())


def _values(line: Line) -> dict[str, Any]:
    """Keys for other programs: the line's own, and the best value also under its metric's name."""
    own = asdict(line)
    return ({line.primary: line.best} if line.primary else {}) | own


def _text(lines: list[Line]) -> list[list[str]]:
    """Headings and cells. Where runs chose by different metrics, or count different positions, each cell names its
    own."""
    metrics = {line.primary for line in lines} - {""}
    units = {line.positions for line in lines if line.tokens_per_second}
    best = f"val/{metrics.pop()}" if len(metrics) == 1 else "val"
    speed = f"{units.pop()}/s" if len(units) == 1 else "speed"
    headings = list(_HEADINGS)
    headings[_BEST], headings[_SPEED] = best, speed
    return [headings, *(_cells(line, names_metric=best == "val", names_unit=speed == "speed") for line in lines)]


def _cells(line: Line, *, names_metric: bool, names_unit: bool) -> list[str]:
    best = "" if line.best is None else f"{line.best:.4f}"
    speed = "" if not line.tokens_per_second else f"{line.tokens_per_second:,.0f}"
    return [
        line.run,
        line.state,
        f"{line.step}/{line.max_steps}",
        f"{line.primary} {best}" if best and names_metric else best,
        f"{speed} {line.positions}/s" if speed and names_unit else speed,
        _clock(line.elapsed),
        _clock(line.left),
        line.host,
    ]


def _summary(lines: list[Line]) -> str:
    counts = totals(lines)
    states = ", ".join(
        f"{count} {state}" for state, count in counts.items() if not state.startswith(("runs", "seconds"))
    )
    left, until_end = counts["seconds_left"], counts["seconds_until_end"]
    text = f"{counts['runs']} run{'s' * (len(lines) != 1)}: {states}"
    if until_end:
        return f"{text}; about {_clock(until_end)} until the last one ends"
    return text + (f"; {_clock(left)} of training left" if left else "")


def _studies(lines: list[Line]) -> list[str]:
    """A sentence for each study of a search: its trials by state, and the best of them, whose number a run's name does
    not show."""
    found = []
    for study in sorted({line.trial["study"] for line in lines if line.trial}):
        own = [line for line in lines if line.trial.get("study") == study]
        states: dict[int, str] = {}
        for line in own:
            if states.get(line.trial["number"], "completed") == "completed":
                states[line.trial["number"]] = line.state
        counts = Counter(states.values())
        shares = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
        pruned = ", ".join(str(number) for number, state in sorted(states.items()) if state == "pruned")
        shares += f" (number{'s' * (counts['pruned'] > 1)} {pruned})" if pruned else ""
        found.append(f"study {study}: {len(states)} trial{'s' * (len(states) != 1)}: {shares}")
    return found


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
