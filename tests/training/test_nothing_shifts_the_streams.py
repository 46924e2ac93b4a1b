"""Settings that are not part of a run's numbers change no initial weight, no batch and no dropout."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.contracts import Batch
from losslab.training.module import LossModule
from losslab.training.schedules import Cosine
from runs import only_run

STEPS = 8
Fed = list[tuple[int, list[list[int]], list[list[int]]]]
"""For each micro-batch: optimizer step, inputs, targets."""


@dataclass
class Trained:
    """Batches and weights of a run."""

    fed: Fed
    hashes: dict[str, str]
    rows: dict[int, dict[str, str]] = field(default_factory=dict)
    """Optimizer step → what metrics.csv says of the training in it."""
    weights: dict[str, Tensor] = field(default_factory=dict)


@pytest.fixture
def trained(run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Train under a name of its own; what reaches the network is noted where it does."""
    fed: Fed = []
    training_step = LossModule.training_step

    def noted_step(module: LossModule, batch: Batch, batch_idx: int) -> Any:
        fed.append((module.trainer.global_step, batch.inputs["tokens"].tolist(), batch.target.tolist()))
        return training_step(module, batch, batch_idx)

    monkeypatch.setattr(LossModule, "training_step", noted_step)

    def train(*arguments: str, name: str) -> Trained:
        fed.clear()
        assert run_tiny("model.dropout=0.1", "trainer.accumulate_grad_batches=2", *arguments, f"name={name}") == 0
        folder, record = only_run(Path("outputs") / name)
        with (folder / "metrics.csv").open() as file:
            rows = {
                int(row["step"]): {key: row[key] for key in row if not key.startswith(("step", "val/"))}
                for row in csv.DictReader(file)
                if row["train/objective"]
            }
        weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return Trained(list(fed), record.hashes, rows, weights)

    return train


@pytest.mark.parametrize(
    "change",
    [
        "loss=kl_divergence",
        "loss=square",
        "data.num_workers=2",
        "trainer.val_check_interval=3",
        "loggers=tensorboard",
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=3",
        "checkpoints.every_n_steps=3",
    ],
)
def test_no_switch_shifts_the_streams(trained: Callable[..., Trained], change: str) -> None:
    plain, changed = trained(name="plain"), trained(change, name="changed")
    for name in ("backbone_init", "batches"):
        assert changed.hashes[name] == plain.hashes[name]
    assert [step for step, _, _ in plain.fed] == sorted([*range(STEPS)] * 2)
    assert changed.fed == plain.fed
    if not change.startswith("loss="):
        common = plain.rows.keys() & changed.rows.keys()
        assert {1, 6, STEPS} <= common
        assert {step: changed.rows[step] for step in common} == {step: plain.rows[step] for step in common}
        assert all(torch.equal(changed.weights[name], plain.weights[name]) for name in plain.weights)


def test_another_seed_shifts_them_all(trained: Callable[..., Trained]) -> None:
    """So what the runs above have in common is no matter of course."""
    plain, other = trained(name="plain"), trained("seed=2", name="other")
    assert all(plain.hashes[name] != other.hashes[name] for name in ("backbone_init", "batches"))
    assert all(a != b for a, b in zip(plain.fed, other.fed, strict=True))
    assert plain.rows[1]["train/objective"] != other.rows[1]["train/objective"]


def test_the_learning_rate_counts_optimizer_steps_however_the_batch_is_accumulated(
    trained: Callable[..., Trained],
) -> None:
    rates, tokens = [], []
    for accumulate in (1, 2, 4):
        run = trained(
            f"trainer.accumulate_grad_batches={accumulate}", "trainer.log_every_n_steps=1", name=f"by-{accumulate}"
        )
        assert len(run.fed) == STEPS * accumulate
        rates.append([float(run.rows[step]["train/lr"]) for step in range(1, STEPS + 1)])
        tokens.append([[w for k, inputs, _ in run.fed for w in inputs if k == step] for step in range(STEPS)])
    cosine = Cosine(warmup_steps=2, max_steps=STEPS)
    assert rates[0] == [3e-3 * cosine(step) for step in range(STEPS)]
    assert rates[0] == rates[1] == rates[2]
    assert tokens[0] == tokens[1] == tokens[2]
