"""`losslab resume`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from losslab.console import complain, say
from losslab.errors import UserError
from losslab.records import find_runs, read
from losslab.sweeps.train import describe_end


def resume(folder: Path, trust: list[str]) -> int:
    """Continue the run in `folder`; returns the exit code. Raises UserError for a folder that is no run."""
    runs = find_runs(folder)
    if runs and runs != [folder]:
        raise UserError(f"{folder} holds {len(runs)} runs: resume one of them, such as {runs[0]}")
    read(folder)  # answer a wrong folder before torch is imported
    if trust:
        # Only code that the person vouches for by name may come out of the current folder.
        sys.path.append(os.getcwd())  # noqa: PTH109
    from losslab.training.start import resume as continue_run

    outcome = continue_run(folder, trust)
    if outcome.status == "skipped":
        say(f"already {outcome.record.status}: {outcome.folder}")
    elif outcome.status != "completed":
        complain(describe_end(outcome))
    return int(outcome.status in ("failed", "interrupted"))
