"""The command that starts a process of losslab.training.process.worker. No torch here."""

from __future__ import annotations

import os

from losslab.run_folder import RunFolder
from losslab.training.process.allocator import allocator_environment

PARENT_PIPE = "LOSSLAB_PARENT_PIPE"
"""Set where standard input ends when the process that started the worker does."""
REPORTS = "LOSSLAB_REPORTS"
"""The file descriptor to which the worker writes its reports (losslab.reports), a line each."""
HELD = 3
"""The worker's exit code for a run that another process holds."""


def worker_command(run: RunFolder, trust: list[str]) -> list[str]:
    """Arguments that follow `python`, or torchrun's own options.

    Args:
        trust: the classes outside losslab that the person typed, which the worker may import.
    """
    return [
        *("-m", "losslab.training.process.worker", str(run.config_file)),
        *(option for name in trust for option in ("--trust", name)),
    ]


def worker_environment(path: list[str], *, reports: int) -> dict[str, str]:
    """Ours, with which the worker finds a person's own classes where this process did, and ends when it does.

    Args:
        path: sys.path.
        reports: the file descriptor for its reports.
    """
    return (
        os.environ
        | allocator_environment()
        | {
            "PYTHONPATH": os.pathsep.join(entry for entry in path if entry),
            "PYTHONSAFEPATH": "1",  # and nowhere else: -m would put the current folder first
            PARENT_PIPE: "1",
            REPORTS: str(reports),
        }
    )
