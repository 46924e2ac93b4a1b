"""`losslab evaluate`: the metrics of a checkpoint, printed and recorded."""

from __future__ import annotations

from pathlib import Path

from losslab.commands.trusted import let_import, one_run
from losslab.console import figure, say, width_of
from losslab.errors import UserError

SPLITS = ("val", "test")


def evaluate(folder: Path, *, checkpoint: str, split: str | None, overrides: list[str], trust: list[str]) -> int:
    """Score a checkpoint of the run in `folder`; returns the exit code. Raises UserError for bad input."""
    if split is not None and split not in SPLITS:
        raise UserError(f"--split must be val or test, not {split!r}")
    run, record = one_run(folder)
    let_import(trust)
    from losslab.training.scoring.reevaluate import note_evaluation, reevaluate

    entry = reevaluate(run, checkpoint=checkpoint, split=split, overrides=overrides, trust=trust)
    note_evaluation(run, entry)  # before it is printed: a pipe may close
    values = entry["metrics"]
    part = next(iter(values)).partition("/")[0]
    whose = "its own data" if entry["own_text"] else "another text"
    how = "" if entry["eval_stride"] is None else f" (data.eval_stride={entry['eval_stride']})"
    say(f"{entry['checkpoint']} (step {entry['step']}) on {entry['part']} of {whose}: {entry['text']}{how}")
    if not entry["own_text"] and entry["files"]:
        say(f"text: {entry['files']}")
    names = [name for name in record.names_shown("terminal") if f"{part}/{name}" in values]
    for name in names:
        say(f"{name:<{width_of(names)}}{figure(values[f'{part}/{name}'])}")
    for name, signature in entry.get("signatures", {}).items():
        say(f"{name}: {signature}")
    say(f"recorded in {run.evaluations}")
    return 0
