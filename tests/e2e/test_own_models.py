"""Draws of a person's own parts from the global generators follow the seed, however many they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import losslab
from losslab.records import Record, read
from losslab.run_folder import RunFolder
from losslab.training.scoring.reevaluate import reevaluate
from runs import find_runs, stopping_after

CONF = {
    "model/own": "_target_: own_models.OwnModel\nlayer: linear\nfixed: false\n"
    "width: 16\nnum_heads: 2\nnum_layers: 1\ncontext: 32\n",
    "loss/own": "_target_: own_models.OwnLoss\n",
    "optimizer/own": "_target_: own_models.OwnOptimizer\nlr: 1e-2\n",
}
TRUST = ["own_models.OwnModel", "own_models.OwnLoss", "own_models.OwnOptimizer", "own_models.OwnData"]
OWN = ["--config-dir", "my_conf", "model=own", "loss=own", "optimizer=own", "data._target_=own_models.OwnData"]


@pytest.fixture
def own(workplace: Path, run_tiny: Callable[..., int]) -> Callable[..., list[tuple[Path, Record]]]:
    """Train with a person's own parts, after something else has drawn from the global generators; the runs of that
    name, in the order in which they were made."""
    for name, text in CONF.items():
        (workplace / f"my_conf/{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (workplace / f"my_conf/{name}.yaml").write_text(text)

    def train(*arguments: str, name: str = "own") -> list[tuple[Path, Record]]:
        torch.rand(7), random.random(), np.random.rand(3)  # noqa: NPY002
        before = states()
        code = run_tiny(*OWN, *arguments, f"name={name}")
        assert states() == before
        assert code == 0
        runs = sorted(find_runs(Path("outputs") / name), key=lambda run: len(run.name))
        return [(run, read(run)) for run in runs]

    return train


def states() -> tuple[Any, ...]:
    """Those of the three global generators."""
    numpy = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), [*map(str, numpy)]


@pytest.mark.parametrize("layer", ["linear", "gru", "encoder"])
def test_the_same_command_gives_the_same_numbers_and_another_seed_others(
    own: Callable[..., list[tuple[Path, Record]]], layer: str
) -> None:
    for _ in range(2):
        own(f"model.layer={layer}", "fresh=true")
    (_, first), (_, again) = own(f"model.layer={layer}")
    assert first.hashes == again.hashes
    assert first.metrics == again.metrics
    ((_, other),) = own(f"model.layer={layer}", "seed=2", name="other")
    for name in ("backbone_init", "projection_init", "loss_init", "batches"):
        assert first.hashes[name] != other.hashes[name]


def test_no_part_shifts_what_another_draws(own: Callable[..., list[tuple[Path, Record]]]) -> None:
    ((_, first),) = own()
    ((_, other),) = own("loss=cross_entropy", name="other")
    ((_, shipped),) = own("model=decoder", "model.tie_embeddings=false", name="shipped")
    for name in ("backbone_init", "projection_init", "batches"):
        assert first.hashes[name] == other.hashes[name]
    assert first.hashes["loss_init"] == shipped.hashes["loss_init"]
    assert first.hashes["batches"] == shipped.hashes["batches"]


def test_a_continued_run_equals_an_undisturbed_one(own: Callable[..., list[tuple[Path, Record]]]) -> None:
    ((_, whole),) = own(name="whole")
    with pytest.raises(AssertionError), stopping_after(4):
        own()
    ((_, continued),) = own()
    assert continued.step == whole.step
    assert continued.metrics == whole.metrics


def test_nothing_disturbs_the_callers_generators(own: Callable[..., list[tuple[Path, Record]]]) -> None:
    ((run, record),) = own()
    before = states()
    losslab.load(run, trust=TRUST)
    assert states() == before
    found = reevaluate(RunFolder(run), checkpoint="best", split="test", overrides=[], trust=TRUST)
    assert states() == before
    assert found["metrics"]["test/nll"] == record.metrics["best"]["test/nll"]
