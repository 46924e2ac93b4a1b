"""Wherever a run is stopped, its continuation ends as the undisturbed run does, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stopped_runs
import yaml
from stopped_runs import SECONDS, STEPS, STOPS, make_run, remains, train

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from runs import TINY, make_text

# Logs, validations and checkpoints fall on different steps; the learning rate is high enough for the best step not to
# be the last; twelve batches of six windows are more than the text has.
OPTIONS = [
    *TINY,
    "loss=square",
    "model.context=48",
    "optimizer.lr=0.3",
    "data.batch_size=6",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=3",
    "trainer.val_check_interval=5",
    "checkpoints.every_n_steps=4",
    "trainer.enable_progress_bar=false",
    "loggers=tensorboard",
]
TWO_RANKS = {"ddp": "trainer.accumulate_grad_batches=1", "fsdp": "trainer.accumulate_grad_batches=3"}
"""Strategy → how its batch is split."""
OPTIMIZER = {"ddp": "optimizer=adamw", "fsdp": "optimizer=muon"}
DECAY = {"ddp": 0.5, "fsdp": 0.0}
"""Strategy → decay of the averaged weights, which the ranks keep by shards; at 0 they are the weights themselves."""


ONE_CYCLE = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.3, "total_steps": STEPS}
"""A schedule with states of its own, which also moves the optimizer's betas."""


def make_config(folder: Path, *arguments: str, scheduler: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration that `start` would store, with the text in `folder`."""
    text = folder / "book.txt"
    text.write_text(make_text(paragraphs=20), encoding="utf-8")
    config = compose_plain([*OPTIONS, f"data.path={text}", *arguments])
    config = bind_components(check_run(config | ({"scheduler": scheduler} if scheduler else {})))
    return resolve_split(resolve_budget(config))


EVERY_PAIR = [(0, 0, 1, "adamw"), (0, 0.1, 3, "muon"), (2, 0, 3, "adamw"), (2, 0.1, 1, "muon")]
"""Every two of the values meet; that all three of them matter together is not to be expected."""


@pytest.mark.parametrize(("workers", "dropout", "accumulate", "optimizer"), EVERY_PAIR)
def test_a_run_stopped_at_any_step_ends_as_the_undisturbed_one(
    tmp_path: Path, workers: int, dropout: float, accumulate: int, optimizer: str
) -> None:
    config = make_config(
        tmp_path,
        f"data.num_workers={workers}",
        f"model.dropout={dropout}",
        f"trainer.accumulate_grad_batches={accumulate}",
        f"optimizer={optimizer}",
        scheduler=ONE_CYCLE if optimizer == "adamw" and workers else None,
    )
    pair = EVERY_PAIR.index((workers, dropout, accumulate, optimizer))
    alone = range(pair + 1, STEPS + 1, len(EVERY_PAIR))  # one of the pairs has each step
    runs = {name: tmp_path / "runs" / name for name in ("undisturbed", "at each", *map(str, alone))}
    for run in runs.values():
        make_run(run, config)
    train(runs["undisturbed"])
    expected = remains(runs["undisturbed"])
    assert expected["metrics"]["best"]["step"] < STEPS
    for step in alone:
        train(runs[str(step)], stop_in=step)
        train(runs[str(step)], after=step)
        assert remains(runs[str(step)]) == expected, step
    for step in range(1, STEPS + 1):
        train(runs["at each"], after=step - 1, stop_in=step)
    train(runs["at each"], after=STEPS)
    assert remains(runs["at each"]) == expected


def test_two_ranks_stopped_at_any_step_end_as_the_undisturbed_ones(tmp_path: Path) -> None:
    for strategy, split in TWO_RANKS.items():
        on_cpu = ["trainer.accelerator=cpu", "trainer.precision=32-true"]
        averaging = ["callbacks=ema", f"callbacks.ema.decay={DECAY[strategy]}"]
        parts = [*on_cpu, "model.dropout=0.1", split, OPTIMIZER[strategy], *averaging]
        config = make_config(tmp_path, f"trainer={strategy}", *parts)
        (tmp_path / f"{strategy}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, stopped_runs.__file__, str(tmp_path)], capture_output=True, text=True, timeout=SECONDS + 60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for strategy in TWO_RANKS:
        expected = remains(tmp_path / f"{strategy}/0")
        for step in STOPS[strategy]:
            assert remains(tmp_path / f"{strategy}/{step}") == expected, step
        averaged, whole = expected["last.ckpt"]["ema"]["weights"], expected["last.ckpt"]["state_dict"]
        assert averaged.keys() == {name.removeprefix("network.") for name in whole}
        equal = [name for name, value in averaged.items() if value == whole[f"network.{name}"]]
        assert (set(equal) == averaged.keys()) == (DECAY[strategy] == 0), equal
