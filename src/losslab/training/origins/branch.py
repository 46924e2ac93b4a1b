"""Continue another run with a longer budget: its checkpoint becomes this run's own, and training resumes from it."""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.errors import UserError
from losslab.files import TEMPORARY, sync_folder, write_atomic
from losslab.metric import Metric, better
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.callbacks.state import Intervals
from losslab.training.origins.origin import KEY, Origin, hash_checkpoint
from losslab.training.output.checkpoints import FOR_TRAINING, link, read_checkpoint, write_checkpoint
from losslab.training.output.messages import note, say
from losslab.training.schedules import make_factor

CONTINUED = "continued"
"""A key of a record's provenance: which run was continued, and where."""
_VALIDATION = ("val_check_interval", "interim_eval_tokens")
"""Keys of the trainer that say when, and on how much, a run is validated."""
_SECONDS = 120
_VAL = "val/"


def note_origin(record: Record, origin: Origin, config: dict[str, Any]) -> None:
    """Write into the record of a run that is yet to begin what it takes over: where it goes on, the hashes of its
    start, the versions it was made with, and the number of threads, on which equal numbers depend."""
    record.hashes = origin.record.hashes | {KEY: origin.digest}
    record.versions = dict(origin.record.versions)
    if threads := origin.record.hardware.get("threads"):
        record.hardware.setdefault("threads", threads)
    record.provenance["changes"] = list(origin.record.provenance.get("changes") or [])
    trainer = origin.config["trainer"]
    record.provenance[CONTINUED] = {
        "identity": origin.record.identity,
        "checkpoint": origin.checkpoint,
        "step": origin.step,
        "max_steps": trainer["max_steps"],
        **{key: trainer[key] for key in _VALIDATION},
        "same_sums": _split(origin.record, trainer) == _split(record, config["trainer"]),
    }


def _split(record: Record, trainer: dict[str, Any]) -> tuple[int, int, int]:
    ranks = trainer["devices"] * trainer["num_nodes"]
    return ranks, trainer["micro_batch_size"], trainer["threads"] or record.hardware.get("threads") or 0


def take_over(run: RunFolder, config: dict[str, Any], record: Record, *, rank: int, intervals: Intervals) -> None:
    """Prepare a run's first session: make the checkpoint that it continues its own, with the history up to there. On
    other ranks, wait for rank 0 to do so. Nothing is done where the run has a checkpoint, or continues none.

    Raises:
        UserError: when that checkpoint is not there any more, or another one stands in its place.
    """
    if config[KEY] is None or run.has_checkpoint():
        return
    if rank != 0:
        _wait_for_first(run)
        return
    about = record.provenance.get(CONTINUED)
    if not isinstance(about, dict):
        raise UserError(f"{run} does not say what it continues; start it again with the command that made it")
    source = RunFolder(Path(config[KEY]))
    path, content = _find_checkpoint(source, about["checkpoint"], record.hashes[KEY])
    history = read_history(source.metrics, about, config["trainer"], intervals, record.primary_metric)
    state = content["losslab"] | {"best": history.best, "latest": history.latest, "due": history.due}
    state["stopped"] = None  # with a longer budget it goes on
    best = history.best.get("step")
    best_path = path if best == about["step"] else _of_step(source, best)
    if best is not None and best_path is None and history.due is None:
        history.notes.append(
            f"the best checkpoint up to there, of step {best:.0f}, is not among those that {source} has kept; from "
            f"here on the best one counts{_way_out(about, config['trainer'])}"
        )
        state["best"] = {}
    say(f"continues {source} after step {about['step']:,} of {about['max_steps']:,} ({path.name})")
    for text in history.notes:
        note(text)
    if not about["same_sums"]:
        note(
            "devices, micro-batches or threads are not those of that run: the numbers are not, bit for bit, those of a "
            "run that was never interrupted"
        )
    about["best_from"] = None if state["best"] or not history.notes else about["step"]
    contents = {"config": config, "losslab": state}
    _write(run, _rescheduled(content | contents, config), best_path, contents)
    write_atomic(run.metrics, history.table.encode())
    _commit(run)


@dataclass
class History:
    """The log that a run which validates as this one does would have written up to the step where it goes on."""

    table: str = ""
    """metrics.csv."""
    best: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] | None = None
    """The row of the last step, if its validation is still to come: that run had none there, or its last one, which is
    thorough."""
    notes: list[str] = field(default_factory=list)


def read_history(
    path: Path, about: dict[str, Any], trainer: dict[str, Any], intervals: Intervals, primary: Metric
) -> History:
    """Take out of another run's metrics.csv the rows that this run would have logged.

    Args:
        path: that run's metrics.csv; there may be none.
        about: of that run the step to continue from, the budget, at whose end its validation is thorough, unlike those
            before, and the keys of _VALIDATION.
        trainer: this run's settings.
        intervals, primary: this run's.
    """
    step, ended = about["step"], about["max_steps"]
    is_alike = about["interim_eval_tokens"] == trainer["interim_eval_tokens"]
    columns, rows = _read_rows(path, step)
    history = History()
    kept: list[dict[str, str]] = []
    seen: set[int] = set()
    for row in rows:
        here = int(row["step"])
        values = {name: float(text) for name, text in row.items() if name.startswith(_VAL) and text}
        if not values or here == ended or not (is_alike and intervals.validated(here)):
            row = {name: "" if name.startswith(_VAL) else text for name, text in row.items()}
        else:
            seen.add(here)
            history.latest = values
            name = f"{_VAL}{primary.name}"
            if name in values and (not history.best or better(primary, values[name], history.best[name])):
                history.best = {**values, "step": here}
        if not intervals.logged(here):
            row = {name: text if name.startswith(_VAL) or name == "step" else "" for name, text in row.items()}
        if any(text for name, text in row.items() if name != "step"):
            kept.append(row)
    if intervals.validated(step) and step not in seen:
        last = kept.pop() if kept and int(kept[-1]["step"]) == step else {}
        history.due = {name: float(text) for name, text in last.items() if text and name != "step"}
        seen.add(step)
    missing = [each for each in range(intervals.validate, step + 1, intervals.validate) if each not in seen]
    if missing:
        shown = ", ".join(map(str, missing[:3])) + (", …" if len(missing) > 3 else "")
        history.notes.append(
            f"that run was not validated at every step at which this one is ({shown}), or on other tokens: the best "
            f"checkpoint counts from step {step} on{_way_out(about, trainer)}"
        )
        history.best = {}
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(kept)
    history.table = table.getvalue()
    return history


def _way_out(about: dict[str, Any], trainer: dict[str, Any]) -> str:
    unequal = [f"trainer.{key}={about[key]}" for key in _VALIDATION if about[key] != trainer[key]]
    return f"; {' '.join(unequal)}, as in that run, lets it count from the beginning" if unequal else ""


def _read_rows(path: Path, step: int) -> tuple[list[str], list[dict[str, str]]]:
    if not path.is_file():
        return ["step"], []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(line.replace("\0", "") for line in file)
        rows = [row for row in reader if (row.get("step") or "").isdigit() and None not in row.values()]
        columns = list(reader.fieldnames or ["step"])
    return columns, [row for row in rows if int(row["step"]) <= step]


def _find_checkpoint(source: RunFolder, name: str, digest: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a run was planned to continue, under whatever name it has by now."""
    if not source.checkpoints.is_dir():
        raise UserError(f"{KEY}={source} is not there: say where that run lies now, losslab resume RUN_DIR {KEY}=…")
    for path in dict.fromkeys([source.checkpoints / name, *source.checkpoint_files()]):
        if path.is_file():
            content = read_checkpoint(path)
            if all(part in content for part in FOR_TRAINING) and hash_checkpoint(content) == digest:
                return path, content
    raise UserError(
        f"{KEY}={source} no longer has the checkpoint that this run was to continue; the command that made the run "
        "continues what is there now"
    )


def _of_step(source: RunFolder, step: float | None) -> Path | None:
    """A checkpoint of that step, with or without optimizer states."""
    for path in source.checkpoint_files() if step is not None else []:
        try:
            if read_checkpoint(path)["losslab"]["step"] == step:
                return path
        except UserError:
            continue
    return None


def _rescheduled(content: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the learning rate that this run's schedule gives its next step."""
    factor = make_factor(config["scheduler"], max_steps=config["trainer"]["max_steps"])
    if factor is None:
        return content  # torch's own, whose settings are the same
    for state in content["optimizer_states"]:
        for group in state["param_groups"]:
            group["lr"] = group["initial_lr"] * factor(content["losslab"]["step"])
    rates = [group["lr"] for state in content["optimizer_states"] for group in state["param_groups"]]
    for schedule in content["lr_schedulers"]:
        schedule["_last_lr"] = rates[: len(schedule["_last_lr"])]
    return content


def _write(run: RunFolder, content: dict[str, Any], best: Path | None, contents: dict[str, Any]) -> None:
    """Write the checkpoints beside their place."""
    place = _unfinished(run)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    write_checkpoint(place / run.last.name, content)
    if best is None:
        return
    if content["losslab"]["best"].get("step") == content["losslab"]["step"]:
        link(place / run.last.name, place / run.best.name)
    else:
        write_checkpoint(place / run.best.name, read_checkpoint(best) | {"config": contents["config"]})


def _commit(run: RunFolder) -> None:
    """Complete the copy: from here on the run needs nothing of the one that it continues."""
    _unfinished(run).rename(run.checkpoints)
    sync_folder(run.path)


def _unfinished(run: RunFolder) -> Path:
    return run.path / f".{run.checkpoints.name}.{os.getpid()}{TEMPORARY}"


def _wait_for_first(run: RunFolder) -> None:
    deadline = time.monotonic() + _SECONDS
    while not run.has_checkpoint():
        if time.monotonic() > deadline:
            raise UserError(f"rank 0 did not take over the checkpoint that {run} continues within {_SECONDS} seconds")
        time.sleep(0.1)
