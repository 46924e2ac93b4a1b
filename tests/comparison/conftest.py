"""Folders of made-up runs."""

from pathlib import Path

import pytest
from made_runs import Sweep

SEED_LEVELS = [3.0, 3.4, 2.9, 3.2, 3.6, 3.1]
NOISE = [0.002, -0.001, 0.0, 0.001, -0.002, 0.0005]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "first")


@pytest.fixture
def paired_sweep(sweep: Sweep) -> Sweep:
    """Six seeds that differ a lot, and two losses that differ by 0.05 in each, give or take 0.002."""
    for seed, (level, noise) in enumerate(zip(SEED_LEVELS, NOISE, strict=True), start=1):
        sweep.add("cross_entropy", seed, level)
        sweep.add("square", seed, level + 0.05 + noise)
    return sweep


@pytest.fixture
def grid(sweep: Sweep) -> Sweep:
    """Two losses under three learning rates, two seeds each: cross-entropy is best at 0.003, square at 0.01."""
    sweep.add_grid("cross_entropy", {0.001: 3.2, 0.003: 3.0, 0.01: 3.1, 0.03: 3.3})
    sweep.add_grid("square", {0.001: 3.5, 0.003: 3.4, 0.01: 3.15, 0.03: 3.3})
    return sweep
