"""What the commands that open somebody's run folder share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from losslab.errors import UserError
from losslab.records import Record, find_runs, read


def one_run(folder: Path) -> Record:
    """The record of the one run in `folder`, before torch is imported. Raises UserError for any other folder."""
    runs = find_runs(folder)
    if runs and runs != [folder]:
        raise UserError(f"{folder} holds {len(runs)} runs: name one of them, such as {runs[0]}")
    return read(folder)


def let_import(trust: list[str]) -> None:
    """Only code that the person vouches for by name may come out of the current folder."""
    if trust and os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.append(os.getcwd())  # noqa: PTH109
