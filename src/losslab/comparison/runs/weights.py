"""The weights that are compared: each run's best checkpoint, or those after its last step. No torch."""

from __future__ import annotations

from dataclasses import replace

from losslab.comparison.runs.load import Loaded
from losslab.comparison.runs.run import BEST, LAST
from losslab.config.nearest import closest
from losslab.errors import UserError
from losslab.metric import AVERAGED

_MEANT = {"final": LAST, "end": LAST, "latest": LAST, "newest": LAST, "first": LAST}
_AVERAGES = (AVERAGED.rstrip("/"), "raw", "swa", "averaged")
_CHOICES = "best (each run's best checkpoint by validation) or last (the weights after its last step)"
_LEFT_OUT = (
    "two noises, calibration, results by class and residuals are left out: runs keep the scores that they need "
    "(test_scores.npz) of the best checkpoint alone"
)


def with_weights(loaded: Loaded, weights: str) -> Loaded:
    """The runs, with the metrics of these weights: `best` (the checkpoint that was best on validation) or `last` (after
    the last step).

    Raises:
        UserError: for another word, and where no completed run has metrics of the last step.
    """
    if weights not in (BEST, LAST):
        raise UserError(f"--weights {weights}: {_told(weights)}")
    if weights == BEST:
        return loaded
    runs = [replace(run, weights=LAST) for run in loaded.runs]
    done = [run for run in runs if run.record.status == "completed"]
    if done and not any(run.metrics for run in done):
        of_table = all(run.folder is None for run in runs)
        lacks = "column final/… (final/test/top1, say)" if of_table else "run with metrics of its last step"
        raise UserError(f"--weights last: {loaded.source} has no {lacks}")
    scored = any(run.folder is not None and run.folder.scores.exists() for run in done)
    return replace(
        loaded,
        runs=runs,
        problems=[*loaded.problems, *([_LEFT_OUT] if scored else [])],
        asked=(*loaded.asked, "the weights after the last step of each run, instead of its best checkpoint"),
        weights=LAST,
    )


def _told(word: str) -> str:
    """Describe what can be chosen, and the word that was meant."""
    if word in _AVERAGES:
        return f"choose {_CHOICES}; averages that callbacks=ema kept are compared by --metric test/{AVERAGED}top1, say"
    meant = _MEANT.get(word) or closest(word, (BEST, LAST))
    return f"choose {_CHOICES}" if meant is None else f"did you mean {meant!r}? Choose {_CHOICES}"
