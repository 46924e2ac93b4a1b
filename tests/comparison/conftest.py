"""Run folders as training leaves them, with numbers that are known."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from losslab.records import Record

CONFIG: dict[str, Any] = {
    "name": "runs",
    "seed": 1,
    "output_dir": "outputs",
    "fresh": False,
    "task": {"_target_": "losslab.tasks.lm.LanguageModeling"},
    "model": {"_target_": "losslab.models.decoder.Decoder", "width": 64},
    "loss": {"_target_": "losslab.losses.Loss"},
    "data": {
        "_target_": "losslab.data.module.TextDataModule",
        "path": "/data/book.txt",
        "tokenizer": "bpe",
        "batch_size": 16,
        "val_batch_size": 32,
        "num_workers": 0,
    },
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.003},
    "scheduler": {"_target_": "losslab.training.schedules.Constant"},
    "trainer": {
        "max_steps": 100,
        "val_check_interval": 10,
        "max_tokens": None,
        "precision": "32-true",
        "log_every_n_steps": 10,
        "enable_progress_bar": True,
        "devices": 1,
        "num_nodes": 1,
        "accelerator": "cpu",
        "strategy": "auto",
        "threads": None,
        "micro_batch_size": 16,
        "accumulate_grad_batches": 1,
    },
    "checkpoints": {"every_n_steps": 500},
    "logger": {"enabled": True},
}


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    for key, value in changes.items():
        section, _, last = key.rpartition(".")
        (config[section] if section else config)[last] = value
    return config


def write_metrics(folder: Path, curve: dict[int, float]) -> None:
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/objective", "val/nll_scaled"])
        for step, value in curve.items():
            writer.writerow([step - 1, 1.0, ""])
            writer.writerow([step, "", value])


class Sweep:
    """A folder of runs, filled one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def add(
        self,
        loss: str,
        seed: int,
        value: float | None = None,
        *,
        status: str = "completed",
        changes: dict[str, Any] | None = None,
        hashes: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        started: str = "2026-01-01T00:00:00+00:00",
    ) -> Path:
        """One run; `value` is its test/nll_scaled, `changes` are dotted keys of its configuration."""
        self.count += 1
        folder = self.folder / f"{loss}-seed{seed}-{self.count:010d}"
        folder.mkdir(parents=True)
        target = f"losslab.losses.{loss}.{loss.title()}"
        config = with_changes({"seed": seed, "loss._target_": target} | (changes or {}))
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        best = ({} if value is None else {"test/nll_scaled": value, "step": 60.0}) | (metrics or {})
        Record(
            identity=f"{self.count:064d}",
            name=self.folder.name,
            status=status,
            step=100,
            max_steps=config["trainer"]["max_steps"],
            yardsticks={"final": {"test/nll_scaled": 99.0}, "best": best} if best else {},
            hashes={"data": "d" * 64, "backbone_init": f"w{seed}", "batches": f"b{seed}"} | (hashes or {}),
            provenance={"choices": {"loss": loss}},
            timing={"started": started},
        ).write(folder)
        if value is not None:
            write_metrics(folder, {50: value + 1, 100: value + 0.5})
        return folder


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    return Sweep(tmp_path / "first")


@pytest.fixture
def paired_sweep(sweep) -> Sweep:
    """Six seeds that differ a lot, and two losses that differ by 0.05 in each, give or take 0.002."""
    for seed, (level, noise) in enumerate(zip(SEED_LEVELS, NOISE, strict=True), start=1):
        sweep.add("cross_entropy", seed, level)
        sweep.add("square", seed, level + 0.05 + noise)
    return sweep


SEED_LEVELS = [3.0, 3.4, 2.9, 3.2, 3.6, 3.1]
NOISE = [0.002, -0.001, 0.0, 0.001, -0.002, 0.0005]


@pytest.fixture
def compared() -> Callable[..., str]:
    """`losslab compare`, and what it wrote into comparison.md."""
    from losslab.comparison.compare import REPORT, compare

    def run(sweep: Sweep, *, baseline: str = "cross_entropy", metric: str = "test/nll_scaled") -> str:
        assert compare(sweep.folder, baseline=baseline, metric=metric) == 0
        return (sweep.folder / REPORT).read_text(encoding="utf-8")

    return run
