"""`losslab resume`."""

from __future__ import annotations

from pathlib import Path

from losslab.commands.train import describe_end
from losslab.commands.trusted import let_import, one_run
from losslab.console import complain, say


def resume(folder: Path, trust: list[str], overrides: list[str]) -> int:
    """Continue the run in `folder`; returns the exit code. Raises UserError for a folder that is no run."""
    run, _ = one_run(folder)
    let_import(trust)
    from losslab.training.process.start import resume as continue_run

    outcome = continue_run(run, trust, overrides)
    if outcome.status == "skipped":
        say(f"already {outcome.record.status}: {outcome.folder}")
    elif outcome.status != "completed":
        complain(describe_end(outcome))
    return int(outcome.status in ("failed", "interrupted"))
