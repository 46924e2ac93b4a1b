"""losslab's Hydra launchers. Hydra looks for plugins below `hydra_plugins`; everything else is in losslab.sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Every run in a process of its own, on this machine. Keys: conf/hydra/launcher/local.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from losslab.sweeps.multirun import Multirun

        if not isinstance(self.sweep, Multirun):
            raise RuntimeError("this launcher serves `losslab train -m` only")
        statuses = self.sweep.launch([list(overrides) for overrides in job_overrides], self.settings)
        done = [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]
        for one, status in zip(done, statuses, strict=False):
            one.return_value = status
        return done
