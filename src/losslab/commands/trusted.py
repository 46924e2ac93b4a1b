"""Options of the commands that open somebody's run folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder, find_runs


def one_run(folder: Path) -> tuple[RunFolder, Record]:
    """The one run in `folder` and its record, before torch is imported. Raises UserError for any other folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a run's folder" + (", but a file" if folder.exists() else ": there is none"))
    run = RunFolder(folder)
    run.refuse_links()
    runs = find_runs(folder)
    if runs and runs != [run]:
        raise UserError(f"{folder} holds {len(runs)} runs: name one of them, such as {runs[0]}")
    return run, run.record()


def let_import(trust: list[str]) -> None:
    """Let classes be imported from the current folder, where a person vouches for any."""
    if trust:
        append_current_folder()


def append_current_folder() -> None:
    """Make the current folder importable, behind everything else; a console script does not have it."""
    if os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.append(os.getcwd())  # noqa: PTH109
