"""Helpers of the tests of sweeps: losses that go wrong, and processes that are killed with all their children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from losslab.records import Record, read
from runs import find_runs
from warm_process import forks

WRONG = '''
import ctypes, os, resource, sys, time
from pathlib import Path

import torch

from losslab.losses.base import Loss


class Wrong(Loss):
    """Cross-entropy that goes wrong in its fourth training step."""

    def __init__(self, *, how: str = "not"):
        super().__init__()
        self.how = how
        self.calls = 0

    def position_loss(self, logits, target):
        self.calls += self.training
        if self.training and self.calls == 4:
            self.go_wrong()
        return -logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]

    def go_wrong(self):
        if self.how == "raise":
            raise RuntimeError("a mistake of mine")
        if self.how == "exit":
            sys.exit(1)
        if self.how == "segfault":
            print("printed before the crash")
            ctypes.string_at(0)
        if self.how == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            torch.zeros(1 << 33)
        if self.how == "kill":
            os.kill(os.getpid(), 9)
        if self.how == "three":
            os._exit(3)
        if self.how == "hang":
            time.sleep(1000)
        if self.how == "damage":
            (record,) = Path("outputs").glob("*/*how=damage*/run.json")
            record.write_text("{")
            os.kill(os.getpid(), 9)
        if self.how == "once" and not Path("once").exists():
            Path("once").touch()
            raise RuntimeError("only once")
'''


def write_wrong(folder: Path) -> list[str]:
    """The loss above as a person's own; returns what chooses it."""
    (folder / "wrong.py").write_text(WRONG)
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "wrong.yaml").write_text("_target_: wrong.Wrong\nhow: not\n")
    return ["--config-dir", "conf", "loss=wrong"]


def records_by(folder: Path, key: str) -> dict[str, Record]:
    """The records of a sweep, by the value that each run's command gave for `key`."""
    found = {}
    for run in find_runs(folder):
        record = read(run)
        values = [text.partition("=")[2] for text in record.overrides if text.startswith(f"{key}=")]
        found[values[-1]] = record
    return found


def descendants(pid: int) -> list[int]:
    """The process, its children and theirs, forks in whose place one of them stands among them."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listing.splitlines()]
    parents += [(fork, one) for one, fork in forks().items()]
    found = [pid]
    for parent in found:
        found += [child for child, of in parents if of == parent]
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL, for all of them at one moment: they are stopped first, so that none has a child meanwhile."""
    everybody: list[int] = []
    while len(found := descendants(pid)) > len(everybody):
        everybody = found
        for one in everybody:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
    for one in everybody:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    wait_for_death(everybody)


def wait_for_death(everybody: list[int], seconds: float = 60) -> None:
    """Until none of them is more than an entry that its parent has not yet asked for."""
    deadline = time.monotonic() + seconds
    while any(_lives(pid) for pid in everybody):
        assert time.monotonic() < deadline, "a process outlives its parent"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list((process / "task").iterdir())) > 1  # other threads still hold its files
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
