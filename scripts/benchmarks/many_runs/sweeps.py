"""The same multirun of `losslab train -m` with one slot, with several, and with these through MPS, for
`scripts/benchmark many`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.many_runs.crews import Mps
from losslab.data.python_docs import read_texts
from losslab.records import Record
from losslab.run_folder import find_runs

CHARACTERS = 400_000
LOSSES = "cross_entropy,focal"
LONGEST = 240
"""Seconds for a sweep."""


def train(folder: Path, *words: str, environment: dict[str, str] | None = None) -> float:
    """Seconds of a command, imports included.

    Raises:
        RuntimeError: with its last words, where it fails.
        subprocess.TimeoutExpired: where it does not end.
    """
    source = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    command = [sys.executable, "-m", "losslab", "train", "data=text", "data.path=text.txt", "data.tokenizer=bytes",
               "model/size=nano", "loggers=none", *words]  # fmt: skip
    began = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": source} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    if ended.returncode:
        last = " / ".join(ended.stdout.strip().splitlines()[-4:])
        raise RuntimeError(f"losslab {' '.join(command[3:])} ended with code {ended.returncode}: {last}")
    return time.monotonic() - began


def measure(folder: Path, device: str, slots: int, steps: int, service: Mps) -> dict[str, Any]:
    """Seconds of a sweep of as many runs as slots, one at a time, at once, and at once through MPS; and how many of its
    runs have the same results as those one at a time."""
    (folder / "text.txt").write_text("\n\n".join(read_texts())[:CHARACTERS], encoding="utf-8")
    seeds = ",".join(str(seed + 1) for seed in range(max(1, slots // 2)))
    words = (f"loss={LOSSES}", f"seed={seeds}", f"trainer={device}", "trainer.precision=32-true",
             f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}")  # fmt: skip
    kinds: dict[str, tuple[int, dict[str, str]]] = {"slots=1": (1, {}), f"slots={slots}": (slots, {})}
    missing = {}
    if service.environment:
        kinds[f"slots={slots}, MPS"] = slots, service.environment
    elif device == "gpu":
        missing[f"slots={slots}, MPS"] = service.missing
    found: dict[str, Any] = {"runs": 2 * max(1, slots // 2), "steps": steps, "missing": missing, "sweeps": {}}
    before: dict[str, Record] = {}
    for i, (name, (count, environment)) in enumerate(kinds.items()):
        own = f"sweep-{i}"
        try:
            seconds = train(
                folder, "-m", f"name={own}", f"hydra.launcher.slots={count}", *words, environment=environment
            )
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            missing[name] = str(error)
            continue
        records = {run.name: run.record() for run in find_runs(folder / "outputs" / own)}
        before = before or records
        same = sum(_results(record) == _results(before.get(label)) for label, record in records.items())
        first = sorted(float(record.timing["first_step"]) for record in records.values())
        hardware = next(iter(records.values())).hardware
        found["sweeps"][name] = {
            "seconds": seconds,
            "equal runs": same,
            "device": hardware["device_name"],
            "threads": hardware["threads"],
            "first step after": first[len(first) // 2],
        }
    return found


def _results(record: Record | None) -> Any:
    return None if record is None else record.metrics
