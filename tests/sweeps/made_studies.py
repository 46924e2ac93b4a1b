"""Studies in a journal, without any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losslab.config.jobs import open_multirun, study_spaces
from losslab.metric import Metric
from losslab.sweeps.journal import About, Journal
from losslab.sweeps.settings import SearchSettings
from losslab.sweeps.study import Study

NLL = Metric("nll", "nll", "nats", False, 0.01, frozenset())
LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
GAMMA = "loss.gamma=choice(1,2)"


def make_settings(**changes: Any) -> SearchSettings:
    plain: dict[str, Any] = {"n_trials": 6, "sampler": "tpe", "pruner": "none", "startup_trials": 2, "seed": 1}
    return SearchSettings.of(plain | changes)


def open_studies(
    folder: Path, *words: str, fixed: dict[str, Any] | None = None, metric: Metric = NLL, **changes: Any
) -> list[Study]:
    """The studies that a command with these words opens, in a new process as it were."""
    settings = make_settings(**changes)
    journal = Journal(folder)
    studies = []
    for space in study_spaces(open_multirun(["hydra/sweeper=optuna", *words])):
        seeds = [int(word.partition("=")[2] or 1) for word in space.seeds]
        about = About.of({"words": list(space.fixed)} | (fixed or {}), space, seeds, metric.name, settings)
        label = space.fixed[0].partition("=")[2] if space.fixed else "study"
        studies.append(journal.open(label, about, space, metric, settings))
    return studies


def open_study(folder: Path, *words: str, **changes: Any) -> Study:
    (study,) = open_studies(folder, *words, **changes)
    return study
