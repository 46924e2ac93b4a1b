"""Fixtures for all tests."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warm_process
from runs import TINY, make_text

# A shell that starts the suite in the background makes it deaf to Ctrl-C, and every command it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

warm_process.install()

# Each Trainer reads the entry points of all packages, in 10 ms, and a run makes two; Lightning is not yet imported.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) is None:  # this process runs tests itself: only then it needs torch
        import torch

        torch.set_num_threads(1)  # two threads on tiny tensors cost more, and much more on a busy machine


WAITING = ("e2e", "faults", "scripts", "sweeps", "training")
"""The folders whose tests take longest, most of it in other processes: begun first, none of them is left over at the
end, when the other workers have nothing more to do."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = config.rootpath / "tests"
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in WAITING)


_ENVIRONMENT = dict(os.environ)


def pytest_collection_finish() -> None:
    _restore(_ENVIRONMENT)  # scikit-learn sets KMP_DUPLICATE_LIB_OK, with which no command would be forked
    gc.freeze()  # each full collection of a process with torch and all tests takes 0.3 s otherwise


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    from composed_once import composing_once

    with composing_once():
        yield


@pytest.fixture(autouse=True)
def _environment_restored() -> Iterator[None]:
    """Some packages set variables while they are imported; commands are forked where the environment is as it was."""
    before = dict(os.environ)
    yield
    _restore(before)


def _restore(environment: dict[str, str]) -> None:
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh current folder with book.txt in it."""
    (tmp_path / "book.txt").write_text(make_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # `losslab train` appends the current folder to sys.path; the next test has another one.
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def run_tiny(workplace: Path) -> Callable[..., int]:
    """`losslab train` with TINY and further arguments, in this process; returns the exit code."""
    from losslab.commands.train import train

    return lambda *arguments: train([*TINY, *arguments])
