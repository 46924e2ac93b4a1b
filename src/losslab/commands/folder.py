"""Whether a sweep's folder is one."""

from __future__ import annotations

import os
from pathlib import Path

from losslab.errors import UserError
from losslab.run_folder import SEQUENTIAL, RunFolder, find_runs
from losslab.sweeps.journal import JOURNAL

_OURS = ("curves.png", "curves.svg", "multirun.yaml", "costs.json", JOURNAL, SEQUENTIAL)
_REPORT = "comparison"
"""Names that commands leave beside the runs, as are those that begin with a dot, and those that begin as a report's."""


def check_folder(folder: Path) -> None:
    """Make the sweep's folder, or see that it is one: that it can be written to, and holds runs or nothing.

    Raises:
        UserError: naming what is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be written: {error.strerror}") from None
    if RunFolder(folder).exists():
        raise UserError(f"{folder} is a run's folder, and no sweep's: give another name=…")
    foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
    if foreign and not find_runs(folder):
        raise UserError(f"{folder} holds something else than runs ({foreign[0]}): give another name=…")


def _is_ours(path: Path) -> bool:
    """A report, or a run's folder, which a kill may have left without its record."""
    if path.name.startswith((".", _REPORT)) or path.name in _OURS:
        return True
    begun = RunFolder(path).config_file.exists()
    return path.is_dir() and (begun or all(inner.name.startswith(".") for inner in path.iterdir()))
