"""The results of a run that has trained to its end: of its last weights, and of its best."""

from __future__ import annotations

from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.callbacks.state import RunState
from losslab.training.ema import KEY
from losslab.training.module import LossModule
from losslab.training.output.checkpoints import amend, keep_newest, link, read_checkpoint
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.sharding import load_weights


def finish(
    run: RunFolder,
    module: LossModule,
    evaluator: Evaluator,
    state: RunState,
    record: Record,
    *,
    keep: int,
    averaged: bool,
) -> None:
    """Test the last and the best weights, each with the temperature fitted on val at those weights.

    Args:
        keep: how many of the newest checkpoints stay.
        averaged: a callback puts averages in the place of the weights, in checkpoints, too.
    """
    module.to(evaluator.device)
    earlier = state.best.get("step", state.step) != state.step
    if averaged and run.last.is_file():  # as they are at the end of training, which a resumed run has behind it
        load_weights(module, read_checkpoint(run.last)["state_dict"])
    if state.stopped is not None:
        _score_thoroughly(run, module, evaluator, state, keep=keep)
    final = state.latest | evaluator.test_after(state.latest, keep=None if earlier else run.scores)
    best = dict(final) | {"step": state.step}
    if earlier:
        content = read_checkpoint(run.best)
        load_weights(module, content["state_dict"])
        if evaluator.averages is not None:
            evaluator.averages.load(content[KEY])
        validated = evaluator.validate(thorough=True)
        best = validated | evaluator.test_after(validated, keep=run.scores) | {"step": state.best["step"]}
    record.step = state.step
    record.metrics = {"final": final, "best": best}
    record.timing["seconds"] = state.seconds
    record.timing["validation_seconds"] = state.validation_seconds


def _score_thoroughly(run: RunFolder, module: LossModule, evaluator: Evaluator, state: RunState, *, keep: int) -> None:
    """Score the weights at which a callback ended training as those at the end of a budget are, into the checkpoint,
    too: its last validation was one of many."""
    state.latest = evaluator.validate(thorough=True)
    is_best = state.best.get("step", state.step) == state.step
    if is_best:
        state.best = {**state.latest, "step": state.step}
    if evaluator.share.rank != 0 or not run.last.is_file():  # a trial (fast_dev_run) keeps no checkpoint
        return
    buffers = {f"network.loss.{name}": value for name, value in module.network.loss.named_buffers()}
    amend(run.last, dict(vars(state)), buffers)
    keep_newest(run, state.step, keep)
    if is_best:
        link(run.last, run.best)
