"""State of the calling process, which is the same after a call as before."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from losslab import console
from losslab.commands.trusted import append_current_folder
from losslab.records import COMMAND
from losslab.sweeps.server import changed_environment

_turn = threading.RLock()
"""Hydra's state, sys.path and the environment belong to the whole process: calls of several threads take turns."""


@contextmanager
def borrowed(command: str, *, progress: bool) -> Iterator[None]:
    """Let the command's code work in somebody else's process: classes are found in the current folder, an application's
    own Hydra is set aside, and everything is put back.

    Args:
        command: for the record's provenance.
        progress: False prints nothing.
    """
    with _turn, _paths(), _hydra(), _logging(), _output(quiet=not progress), changed_environment({COMMAND: command}):
        append_current_folder()
        yield


@contextmanager
def current_folder(*, searched: bool) -> Iterator[None]:
    """Let classes be imported from the current folder, where the caller vouches for any."""
    with _turn, _paths():
        if searched:
            append_current_folder()
        yield


@contextmanager
def _paths() -> Iterator[None]:
    before, argv = list(sys.path), list(sys.argv)
    folder = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = before, argv
        if os.getcwd() != folder:  # noqa: PTH109
            os.chdir(folder)


@contextmanager
def _hydra() -> Iterator[None]:
    running, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = config


@contextmanager
def _logging() -> Iterator[None]:
    """Hydra configures the root logger, whatever its configuration asks for."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _output(*, quiet: bool) -> Iterator[None]:
    before = console.out.quiet, console.err.quiet
    if quiet:
        console.out.quiet = console.err.quiet = True
    try:
        yield
    finally:
        console.out.quiet, console.err.quiet = before
