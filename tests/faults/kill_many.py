"""Kill runs at random moments and inside their writes, continue each with the same command, and count what was lost.

Every attempt is a fork of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from injection import Operation, inject
from run_state import damage, differences, digest, results, saved_step

import losslab.training.process.start  # noqa: F401  (each attempt finds torch and Lightning imported)
from losslab.commands.train import train
from runs import TINY, make_text

STEPS = 60
RUN = [
    *TINY,
    "model.dropout=0.1",
    "optimizer.lr=1.0",
    f"trainer.max_steps={STEPS}",
    "trainer.accelerator=cpu",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=5",
    "checkpoints.every_n_steps=2",
    "loggers=tensorboard",
]
START = 0.4
"""The part of a run's time that goes before its first step."""
MOST = 6
"""Kills of one run, which then completes and is compared."""
PRECIOUS = ["run.json", "config.yaml", "last.ckpt", "best.ckpt", "metrics.csv", "events"]
OUTPUTS = Path("outputs")
UNDISTURBED = "undisturbed"
SHOWN = Path("shown.txt")


@dataclass
class End:
    """How an attempt ended: with an exit code, or killed at a time or inside an operation."""

    code: int
    seconds: float
    operation: str = ""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass
class Undisturbed:
    """A run in one go: its results, its operations, its time."""

    results: dict[str, Any]
    operations: list[Operation]
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Kill runs, continue them, count what is lost.")
    parser.add_argument("--kills", type=int, default=50, help="how many runs to kill (default 50)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the moments (default: a new one)")
    options = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every continuation that it reads
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("book.txt").write_text(make_text(paragraphs=40), encoding="utf-8")
        lost = Killer(random.Random(options.seed), observe(), options).kill_all()
    print(f"kills {options.kills}  survived {options.kills - lost}  lost {lost}")
    return int(lost > 0)


class Killer:
    """Kills until there were enough; every fresh run has a name of its own, and builds the cache again."""

    def __init__(self, rng: random.Random, undisturbed: Undisturbed, options: argparse.Namespace) -> None:
        self.rng = rng
        self.undisturbed = undisturbed
        self.wanted = options.kills
        self.operations: dict[str, dict[str, list[Operation]]] = defaultdict(lambda: defaultdict(list))
        """By file, the cache's arrays together, and by kind."""
        for operation in undisturbed.operations:
            if operation.file in (OUTPUTS.name, UNDISTURBED):
                continue  # folders that are there by now
            file = "arrays" if operation.file.endswith(".npy") else operation.file
            self.operations[file][operation.kind].append(operation)
        print(
            f"killing {options.kills} runs of {STEPS} steps (checkpoint every 2, validation every 5), "
            f"{len(undisturbed.operations)} file operations each; seed {options.seed}",
            flush=True,
        )

    def kill_all(self) -> int:
        """Returns how many kills lost something."""
        kills = lost = number = 0
        while kills < self.wanted:
            number += 1
            name = f"run-{number}"
            shutil.rmtree(OUTPUTS / ".cache", ignore_errors=True)
            before = self.digest_of_the_others(name)
            since, in_this_run = 0, 0
            problems: list[str] = []
            while not problems:
                end = self.attempt(name, since, fault=kills < self.wanted and in_this_run < MOST)
                problems = self.check(end, name, since, before)
                if not end.killed:
                    break
                kills += 1
                in_this_run += 1
                run = find(name)
                since = saved_step(run) if run is not None and not problems else since
                saved = "" if problems else f"saved: {f'step {since}' if since else 'nothing'}"
                tell(f"kill {kills:3d}  {name:7}  {self.place(end):40}  {saved}".rstrip(), problems)
            if not end.killed and in_this_run:
                tell(f"          {name:7}  {completion(in_this_run, problems)}", problems)
            # A difference at the end cannot be put down to one kill: one of this run's is lost.
            lost += bool(problems and in_this_run)
            if problems and not in_this_run:
                raise SystemExit(f"a run that nothing disturbed went wrong: {'; '.join(problems)}")
        return lost

    def attempt(self, name: str, since: int, *, fault: bool) -> End:
        """Start the command; half of the kills come at a random time, the others inside a random operation."""
        left = 1 - since / STEPS  # of the training
        if not fault:
            return attempt(name)
        if self.rng.random() < 0.5:
            end = self.undisturbed.seconds * (START + (1 - START) * left)
            return attempt(name, seconds=self.rng.triangular(0, end, end))
        kinds = self.operations[self.rng.choice(PRECIOUS if self.rng.random() < 0.7 else list(self.operations))]
        found = kinds["write" if "write" in kinds and self.rng.random() < 0.4 else self.rng.choice(list(kinds))]
        return attempt(name, at=found[self.rng.randrange(max(1, round(len(found) * left)))])

    def check(self, end: End, name: str, since: int, before: dict[str, str]) -> list[str]:
        """Sentences on everything that was lost, as far as can be seen now."""
        run = find(name)
        problems = [] if self.digest_of_the_others(name) == before else ["a completed run was changed"]
        if run is None:
            gone = [f"step {since} was saved, and now nothing is"] if since else []
            return problems + gone if end.killed else [f"no run came of it: {shown()}"]
        problems += damage(run, since=since)
        if since and (end.code == 0 or saved_step(run) > since) and f"continues after step {since})" not in shown():
            problems.append(f"it did not continue after step {since}")
        if end.killed:
            return problems
        if end.code:
            return [*problems, f"it ended with exit code {end.code}: {shown()}"]
        return problems + differences(run, self.undisturbed.results)

    def digest_of_the_others(self, name: str) -> dict[str, str]:
        return {file: hashed for file, hashed in digest(OUTPUTS).items() if not file.startswith((f"{name}/", ".cache"))}

    def place(self, end: End) -> str:
        if not end.operation:
            return f"at {end.seconds:.2f} s"
        return f"half-way in {end.operation}" if end.operation.startswith("write") else f"before {end.operation}"


def observe() -> Undisturbed:
    """The result of a run that nothing disturbs."""
    log = Path("operations.txt")
    end = attempt(UNDISTURBED, log=log)
    run = find(UNDISTURBED)
    if end.code != 0 or run is None:
        raise SystemExit(f"a run that nothing disturbed ended with exit code {end.code}: {shown()}")
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    operations = [Operation(kind, file, int(number)) for kind, file, number in lines]
    return Undisturbed(results(run), operations, end.seconds)


def attempt(name: str, *, seconds: float | None = None, at: Operation | None = None, log: Path | None = None) -> End:
    """The command in a fork: undisturbed, killed after some seconds, or killed inside an operation.

    Args:
        log: where to list the operations of an undisturbed run.
    """
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        run_and_exit(name, at, writer, log)
    os.close(writer)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as report:
        operation = report.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return End(code, time.monotonic() - began, operation)


def run_and_exit(name: str, at: Operation | None, report: int, log: Path | None) -> None:
    """The child's life."""
    descriptor = os.open(SHOWN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.alarm(120)  # nothing here takes so long
    code = 70
    try:
        with inject(OUTPUTS, at, "kill", report) as faults:
            code = train([*RUN, f"name={name}"])
        if log is not None:
            log.write_text("".join(f"{o.kind}\t{o.file}\t{o.number}\n" for o in faults.operations))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find(name: str) -> Path | None:
    """The run's folder, which may hold no record yet."""
    return next((path for path in OUTPUTS.glob(f"{name}/*") if path.is_dir()), None)


def shown() -> str:
    """Output of the last attempt."""
    return SHOWN.read_text(encoding="utf-8").strip() if SHOWN.exists() else ""


def completion(kills: int, problems: list[str]) -> str:
    times = "once" if kills == 1 else f"{kills} times"
    equal = "" if problems else ", equal to the undisturbed run bit for bit"
    return f"complete after it was killed {times}{equal}"


def tell(line: str, problems: list[str]) -> None:
    print("\n".join([line, *(f"          LOST: {problem}" for problem in problems)]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
