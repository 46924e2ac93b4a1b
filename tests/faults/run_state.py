"""Content of a run's folder: the part that must be sound after any failure, and the part that must equal an undisturbed
run's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab import records
from losslab.errors import UserError
from losslab.locks import is_locked
from losslab.run_folder import RunFolder


def checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content with its tensors as bytes, without the clock."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = {key: value for key, value in content["losslab"].items() if key not in ("seconds", "validation_seconds")}
    return _plain({"losslab": state} | {key: content[key] for key in ("state_dict", "optimizer_states")})


def saved_step(run: Path) -> int:
    """The step of last.ckpt; 0 where there is none."""
    path = RunFolder(run).last
    return int(checkpoint(path)["losslab"]["step"]) if path.exists() else 0


def results(run: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was cut off."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {
        "metrics": records.read(run).metrics,
        "last weights": checkpoint(RunFolder(run).last),
        "best weights": checkpoint(RunFolder(run).best),
        "metrics.csv": RunFolder(run).metrics.read_bytes(),
        "events": {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in scalars(events)},
    }


def scalars(events: EventAccumulator) -> list[str]:
    return sorted(events.Tags()["scalars"])


def differences(run: Path, expected: dict[str, Any]) -> list[str]:
    """Which results of a completed run are not those of the undisturbed one."""
    try:
        found = results(run)
    except Exception as error:  # whatever cannot be read is lost
        return [f"its results cannot be read ({type(error).__name__}: {error})"]
    return [f"its {name} differ from an undisturbed run's" for name in expected if found[name] != expected[name]]


def damage(run: Path, *, since: int = 0) -> list[str]:
    """Faults in a run's folder, however it ended; `since` is the step that it had saved before."""
    problems = []
    states: dict[str, dict[str, Any]] = {}
    for path in (RunFolder(run).last, RunFolder(run).best):
        try:
            if path.exists():
                states[path.name] = checkpoint(path)["losslab"]
        except Exception as error:  # torch raises many things for a torn file
            problems.append(f"{path.name} cannot be loaded ({type(error).__name__})")
    record = None
    try:
        if (run / records.CONFIG).exists():
            records.read_config(run)
        record = records.read(run) if (run / records.FILE).exists() else None
    except UserError as error:
        problems.append(str(error).replace(f"{run}/", ""))
    if is_locked(run):
        problems.append("the folder is still locked")
    if problems:
        return problems
    last = states.get("last.ckpt", {"step": 0, "best": {}})
    if last["step"] < since:
        problems.append(f"step {since} was saved, and now step {last['step']} is")
    if record is not None and record.step > last["step"]:
        problems.append(f"the record claims step {record.step}, and step {last['step']} is saved")
    if record is not None and record.metrics.get("best") and "best.ckpt" not in states:
        problems.append("best.ckpt is gone")
    best = last["best"].get("step", last["step"])
    if best < last["step"] and states.get("best.ckpt", {}).get("step") != best:
        problems.append(f"best.ckpt does not hold step {best}, the best one")
    return problems


def digest(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def litter(folder: Path) -> list[str]:
    """Files that a failed write left behind."""
    return [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".cache")]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
