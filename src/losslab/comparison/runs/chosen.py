"""Some of the runs of a folder, chosen one by one. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from losslab.comparison.runs.load import Loaded, load_runs
from losslab.errors import UserError
from losslab.run_folder import find_runs


def load_some(folders: Sequence[Path], *, where: Sequence[str] = ()) -> tuple[Loaded, list[str]]:
    """Some of the runs of one folder, and, unless they are all of them, what distinguishes this choice from others.

    Raises:
        UserError: where there are none, or they lie in several folders.
    """
    parents = list(dict.fromkeys(path.absolute().parent for path in folders))
    if len(parents) != 1:
        raise UserError(
            f"runs are compared within one folder, and these lie in {len(parents)}: copy them into one, or train them "
            "under one name=…"
        )
    loaded, wanted = load_runs(folders[0].parent, where=where), {path.absolute() for path in folders}
    every = find_runs(folders[0].parent)
    left_out = [run.name for run in every if run.path.absolute() not in wanted]
    if not left_out:
        return loaded, []
    runs = [run for run in loaded.runs if run.folder is not None and run.folder.path.absolute() in wanted]
    if not runs:
        raise UserError("none of the chosen runs is left to compare")
    asked = (*loaded.asked, f"only {len(folders)} of {len(every)} runs of the folder, chosen in Python")
    digest = hashlib.sha256("\n".join(sorted(left_out)).encode()).hexdigest()[:8]
    return replace(loaded, runs=runs, asked=asked), [f"{len(runs)}-{digest}"]
