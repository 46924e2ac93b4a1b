"""Signals that come before a command has started anything."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.config import compose
from losslab.sweeps import server
from losslab.sweeps.interrupts import Interrupts, raising
from runs import TINY, find_runs
from warm_process import PYTHON

PRESSED = """
import atexit, os, signal, sys

class Press:
    "Sends the signal as soon as somebody imports the module."

    def find_spec(self, module, path=None, target=None):
        if module == MODULE:
            atexit.register(press)  # and once more, while the program ends
            press()

def press():
    os.kill(os.getpid(), NUMBER)

MODULE, NUMBER = sys.argv.pop(1), int(sys.argv.pop(1))
signal.signal(NUMBER, signal.default_int_handler if NUMBER == signal.SIGINT else signal.SIG_DFL)  # also under nohup
sys.meta_path.insert(0, Press())
atexit.register(press)
from losslab.__main__ import main
main()
"""
SWEEP = [*TINY, "name=s", "loss=cross_entropy,square", "seed=auto", "max_seeds=8", "decide=0.01"]


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("typer", signal.SIGINT),  # the command line's own imports
        ("losslab.commands.train", signal.SIGINT),
        ("typer", signal.SIGTERM),
        ("hydra", signal.SIGTERM),  # train's imports
        ("hydra", signal.SIGHUP),
        ("losslab.sweeps.deciding", signal.SIGTERM),  # while it checks the jobs
    ],
)
def test_a_signal_before_the_first_run_is_told_in_one_sentence(
    workplace: Path, module: str, number: signal.Signals
) -> None:
    command = [PYTHON, "-c", PRESSED, module, str(int(number)), "train", "-m", *SWEEP]
    ended = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (130, "losslab: stopped before anything was started\n")
    assert not ended.stdout and not find_runs(workplace / "outputs")


def test_another_command_is_interrupted_in_one_sentence(workplace: Path) -> None:
    command = [PYTHON, "-c", PRESSED, "losslab.commands.compare", str(int(signal.SIGTERM)), "compare", "outputs"]
    ended = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (130, "losslab: interrupted\n")


def test_an_interrupt_that_composing_made_another_exception_of_is_one(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OmegaConf's contexts put flags back while the exception passes, and may fail at it."""

    def press(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise AttributeError("no flags")

    monkeypatch.setattr(compose, "compose", press)
    ended: list[None] = []
    monkeypatch.setattr(server, "end_early", lambda: ended.append(None))
    assert run_tiny("-m", "seed=1,2") == 130 and ended
    assert capsys.readouterr().err == "losslab: stopped before anything was started\n"


def test_signals_that_are_ignored_or_handled_stay_so() -> None:
    """As under nohup, and in a program that calls losslab."""
    came: list[int] = []
    numbers = (signal.SIGHUP, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with raising(), Interrupts() as interrupts:
            for number in numbers:
                os.kill(os.getpid(), number)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert came == [signal.SIGTERM] and not interrupts.noted
