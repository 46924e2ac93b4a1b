"""Crews of processes for `scripts/benchmark many`, and CUDA's Multi-Process Service, private to one command.

Each process is forked from one that has imported everything. All are alive, and those of one row work at a time, for so
many seconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.tools.turns import Turns

START = {"cuda": 60.0, "cpu": 600.0}
"""Seconds that the crews have for their start and first steps, by the device."""
_CONTROL = "nvidia-cuda-mps-control"
_fork = multiprocessing.get_context("fork")

Part = Callable[[int, Turns], None]
"""Work of each process of a crew: it takes its place in the crew, and the turns, and makes a step for each yield."""


EVERYONE = slice(None)


class Turn(NamedTuple):
    """Steps that were made in a turn, and its seconds."""

    steps: int
    wall: float
    cpu: float


class Worker:
    """A process of a crew.

    Args:
        part: its work.
        place: in the crew.
        threads: of torch.
        environment: variables beside those that there are.
    """

    def __init__(self, part: Part, place: int, threads: int, environment: dict[str, str]) -> None:
        self._link, other = _fork.Pipe()
        self._process = _fork.Process(target=_work, args=(part, place, threads, environment, other))
        self._process.start()
        other.close()

    def begin(self, seconds: float) -> None:
        with suppress(OSError):  # it has failed, and says why where it is asked
            self._link.send(seconds)

    def ended(self, within: float) -> Turn | str:
        """Result of the turn, or the reason why there is none."""
        if not self._link.poll(within):
            return f"no answer within {within:.0f} s"
        try:
            answer: Turn | str = self._link.recv()
        except (EOFError, OSError):
            self._process.join(1)
            return f"its process ended with code {self._process.exitcode}"
        return answer

    def dismiss(self) -> None:
        with suppress(OSError):
            self._link.send(None)

    def end(self) -> None:
        self._process.join(3)
        self._process.kill()
        self._process.join()


class Crew:
    """Processes that do the same work side by side."""

    def __init__(self, part: Part, size: int, threads: int, environment: dict[str, str]) -> None:
        self.workers = [Worker(part, place, threads, environment) for place in range(size)]
        self.missing = ""
        """The reason why it cannot be measured."""

    def begin(self, seconds: float, chosen: slice = EVERYONE) -> None:
        for worker in self.workers[chosen]:
            worker.begin(seconds)

    def ended(self, within: float, chosen: slice = EVERYONE) -> list[Turn]:
        """The turns of those who began; none where one failed."""
        until = time.monotonic() + within
        found = [worker.ended(max(0.0, until - time.monotonic())) for worker in self.workers[chosen]]
        turns = [each for each in found if isinstance(each, Turn)]
        self.missing = self.missing or next((each for each in found if isinstance(each, str)), "")
        return turns if len(turns) == len(found) else []

    def work(self, seconds: float, at_once: int, windows: int, within: float) -> Turn:
        """Steps of `at_once` processes at a time, of these and then of the next ones: so many times within a turn."""
        steps, wall, cpu = 0, 0.0, 0.0
        for i in range(windows):
            chosen = slice(i * at_once, (i + 1) * at_once)
            self.begin(seconds / windows, chosen)
            turns = self.ended(within, chosen)
            steps += sum(turn.steps for turn in turns)
            wall += max((turn.wall for turn in turns), default=0.0)
            cpu += sum(turn.cpu for turn in turns)
        return Turn(steps, wall, cpu)


@contextmanager
def at_work(crews: Sequence[Crew], within: float) -> Iterator[None]:
    """All of them, started and warm, until they are dismissed; one that is not so within these seconds is missing."""
    try:
        for crew in crews:
            crew.begin(0.2)
        until = time.monotonic() + within
        for crew in crews:
            crew.ended(max(1.0, until - time.monotonic()))
        yield
    finally:
        workers = [worker for crew in crews for worker in crew.workers]
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end()


def in_child(work: Callable[[], Any], within: float) -> Any:
    """Result of `work` in a process of its own, so that this one never starts CUDA.

    Raises:
        RuntimeError: with its traceback, where it fails.
    """
    receiving, sending = _fork.Pipe(duplex=False)

    def answer() -> None:
        try:
            found: Any = (True, work())
        except Exception:  # whatever it is, it is for the other process to say
            found = (False, traceback.format_exc())
        sending.send(found)

    process = _fork.Process(target=answer)
    process.start()
    sending.close()
    try:
        if not receiving.poll(within):
            raise RuntimeError(f"no answer within {within:.0f} s")
        right, found = receiving.recv()
    except EOFError:
        process.join(1)
        raise RuntimeError(f"its process ended with code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if not right:
        raise RuntimeError(found)
    return found


def _asked(link: Connection, parent: int) -> float | None:
    """Seconds of the next turn; None: there is none. Raises EOFError where the command was killed."""
    while not link.poll(2):  # other processes hold the pipe's end too, so that it does not close
        if os.getppid() != parent:
            raise EOFError
    seconds: float | None = link.recv()
    return seconds


def _turns(link: Connection, parent: int) -> Turns:
    while (seconds := _asked(link, parent)) is not None:
        steps, wall, cpu = 0, time.perf_counter(), time.process_time()
        while steps == 0 or time.perf_counter() - wall < seconds:
            yield
            steps += 1
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        link.send(Turn(steps, time.perf_counter() - wall, time.process_time() - cpu))


def _work(part: Part, place: int, threads: int, environment: dict[str, str], link: Connection) -> None:
    parent = os.getppid()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            part(place, _turns(link, parent))
        except EOFError:  # the command has ended
            return
        except Exception as error:  # one row's fault is not the others'
            link.send(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            with suppress(EOFError):
                while _asked(link, parent) is not None:
                    pass


class Mps(NamedTuple):
    """CUDA's Multi-Process Service, or why there is none."""

    environment: dict[str, str]
    missing: str

    def clients(self) -> int:
        """How many processes are connected."""
        found = 0
        for server in self._ask("get_server_list").split():
            found += len(self._ask(f"get_client_list {server}").split())
        return found

    def _ask(self, command: str) -> str:
        return _controlled(command, self.environment) if not self.missing else ""


@contextmanager
def multi_process_service(folder: Path) -> Iterator[Mps]:
    """A service of this command's own: other processes do not find it, and the device's settings stay as they are."""
    pipes, logs = folder / "pipe", folder / "log"
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
    for each in (pipes, logs):
        each.mkdir()
    missing = ""
    try:
        with (folder / "said.txt").open("w") as said:  # a pipe would stay open as long as the service lives
            began = subprocess.run(
                [_CONTROL, "-d"], env=os.environ | environment, stdout=said, stderr=said, timeout=20, check=False
            )
        if began.returncode:
            missing = f"{_CONTROL} -d: {' '.join((folder / 'said.txt').read_text().split())[:200]}"
    except FileNotFoundError:
        missing = f"there is no {_CONTROL}"
    except (OSError, subprocess.TimeoutExpired) as error:
        missing = f"{_CONTROL}: {error}"
    try:
        yield Mps({} if missing else environment, missing)
    finally:
        if not missing:
            _controlled("quit -t 5", environment)


def _controlled(command: str, environment: dict[str, str]) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            [_CONTROL],
            input=command + "\n",
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        return asked.stdout
    return ""
