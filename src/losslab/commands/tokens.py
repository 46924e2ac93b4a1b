"""Score the tokens of finished runs, for `losslab compare --tokens`."""

from __future__ import annotations

from pathlib import Path

from losslab.commands.trusted import let_import, one_run
from losslab.console import say
from losslab.errors import UserError
from losslab.metrics.token_scores import is_up_to_date
from losslab.run_folder import RunFolder


def score_runs(runs: list[RunFolder], target: Path, *, layer: int | None, trust: list[str]) -> list[Path]:
    """Write the scores of each run's test tokens to `target`/<name of the run's folder>.npz; returns these paths.

    What is up to date (the same run, step and layer) is not made again.

    Args:
        layer: whose attention to look at, from 1; None: the last.
        trust: the classes outside losslab that the runs may name.

    Raises:
        UserError: for a run that cannot be scored, or a layer that it has not.
    """
    let_import(trust)
    paths = []
    for run in runs:
        _, record = one_run(run.path)
        path = target / f"{run.absolute().name}.npz"
        paths.append(path)
        step = record.metrics.get("best", {}).get("step")
        if step is not None and is_up_to_date(path, identity=record.identity, step=int(step), layer=layer):
            say(f"tokens of {run.name}: scored before")
            continue
        say(f"tokens of {run.name}: scoring …")
        from losslab.training.scoring.token_scores import score_tokens

        scores = score_tokens(run, layer=layer, trust=trust)
        try:
            target.mkdir(parents=True, exist_ok=True)
            scores.write(path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return paths
