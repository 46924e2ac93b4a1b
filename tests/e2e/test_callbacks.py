"""Runs with callbacks, stopped in any step: whatever they keep is in the checkpoint, and whoever ends a run stays its
end."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import own_callbacks
import torch
from stopped_runs import make_run, remains, train
from test_every_step import make_config

from losslab import records

STOPPED = 8
"""The step at which early_stopping ends the run, whose budget is 10."""
EVERY = ["early_stopping", "lr_monitor", "device_stats", "model_checkpoint", "timer", "model_summary", "ema"]
OPTIONS = [
    f"callbacks=[{','.join(EVERY)}]",
    "+callbacks.mine._target_=own_callbacks.Remembers",
    "+callbacks.mine.monitor=val/nll",
    "callbacks.early_stopping.patience=3",
    "callbacks.early_stopping.min_delta=1.0",
    "callbacks.model_checkpoint.every_n_train_steps=3",
    "callbacks.model_checkpoint.monitor=val/nll",
    "callbacks.ema.decay=0.5",
    "callbacks.ema.every=2",
    "trainer.max_steps=10",
    "trainer.val_check_interval=2",
    "trainer.interim_eval_tokens=0",
    "trainer.log_every_n_steps=3",
    "scheduler.warmup_steps=2",
    "loss=square",
]


SHORT = [
    "trainer.val_check_interval=2",
    "trainer.interim_eval_tokens=0",
    "trainer.log_every_n_steps=2",
    "scheduler.warmup_steps=2",
]


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that is neither time nor place."""
    found = remains(folder)
    for name in ("last.ckpt", "best.ckpt"):
        logged = found[name]["losslab"]["logged"]
        found[name]["losslab"]["logged"] = {tag: value for tag, value in logged.items() if "DeviceStats" not in tag}
        states = found[name]["callbacks"]
        states.pop("Timer")
        for key, state in states.items():
            states[key] = {k: str(v).replace(str(folder), "") for k, v in state.items()}
    found["events"] = {tag: values for tag, values in found["events"].items() if "DeviceStats" not in tag}
    found["stopped"] = records.read(folder).stopped
    found["files"] = sorted(path.name for path in (folder / "checkpoints/model_checkpoint").iterdir())
    return found


def test_a_run_with_every_callback_stopped_at_any_step_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    config = make_config(tmp_path, *OPTIONS)
    make_run(tmp_path / "0", config)
    train(tmp_path / "0", last=STOPPED)
    expected = left(tmp_path / "0")
    assert expected["stopped"] == {
        "step": STOPPED,
        "by": "early_stopping",
        "reason": "Monitored metric val/nll_scaled did not improve in the last 3 records. Best score: 3.144.",
    }
    assert expected["status"] == ("completed", STOPPED, None)
    for step in range(1, STOPPED + 1):
        run = tmp_path / str(step)
        make_run(run, config)
        train(run, stop_in=step)
        train(run, after=step, last=STOPPED)
        assert left(run) == expected, step


def test_averages_of_lightning_in_the_place_of_the_weights_are_scored_kept_and_resumed(tmp_path: Path) -> None:
    averaging = [
        "+callbacks.averages._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
        "+callbacks.averages.decay=0.5",
    ]
    config = make_config(tmp_path, *averaging, *SHORT, "trainer.max_steps=4")
    for name in ("whole", "cut", "scored twice"):
        make_run(tmp_path / name, config)
    train(tmp_path / "whole", last=4)
    train(tmp_path / "cut", stop_in=3)
    train(tmp_path / "cut", after=3, last=4)
    train(tmp_path / "scored twice", stop_in=4)
    train(tmp_path / "scored twice", after=4, last=4)
    expected = remains(tmp_path / "whole")
    assert remains(tmp_path / "cut") == expected
    assert remains(tmp_path / "scored twice") == expected
    record = records.read(tmp_path / "whole")
    assert record.provenance["weights"] == "averaged"
    kept = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    name = "network.backbone.embedding.weight"
    assert not torch.equal(kept["state_dict"][name], kept["current_model_state"][name])


def test_hooks_come_in_lightnings_order_and_a_timer_may_stop_before_any_validation(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        "+callbacks.mine._target_=own_callbacks.Remembers",
        "+callbacks.mine.monitor=val/nll",
        "callbacks=[timer,early_stopping]",
        "callbacks.timer.duration=00:00:00:00",
        *SHORT,
        "trainer.max_steps=4",
    )
    make_run(tmp_path / "run", config)
    hooks: list[str] = []
    with patch.object(own_callbacks.Remembers, "_note", lambda self, hook, trainer, module: hooks.append(hook)):
        train(tmp_path / "run", last=1)
    assert hooks == ["start", "epoch_start", "epoch_end", "end"]
    record = records.read(tmp_path / "run")
    assert (record.status, record.step) == ("completed", 1)
    assert record.stopped == {"step": 1, "by": "timer", "reason": "its time was over"}
    assert record.provenance["not_repeatable"] == ["timer"]
    assert record.metrics["best"]["step"] == 1
    assert {"test/nll_scaled", "val/ece"} <= record.metrics["final"].keys(), "scored thoroughly"
