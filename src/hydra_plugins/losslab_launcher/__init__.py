"""losslab's Hydra launchers. Hydra looks for plugins below `hydra_plugins`; everything else is in losslab.sweeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from losslab.sweeps.multirun import Multirun


class _SweepLauncher(Launcher):
    """Hands the jobs of `losslab train -m` to its Multirun."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from losslab.sweeps.multirun import Multirun

        if not isinstance(self.sweep, Multirun):
            raise RuntimeError("this launcher serves `losslab train -m` only")
        statuses = self.work(self.sweep, [list(overrides) for overrides in job_overrides])
        done = [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]
        for one, status in zip(done, statuses, strict=False):
            one.return_value = status
        return done

    @abstractmethod
    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        """What became of each run."""


class LocalLauncher(_SweepLauncher):
    """Every run in a process of its own, on this machine. Keys: conf/hydra/launcher/local.yaml."""

    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        return sweep.launch(jobs, self.settings)


class SlurmLauncher(_SweepLauncher):
    """Every run in a job of its own, on a SLURM cluster. Keys: conf/hydra/launcher/slurm.yaml."""

    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        return sweep.submit(jobs, self.settings)
