"""losslab's Hydra launchers and sweeper. Hydra looks for plugins below `hydra_plugins`; the rest: losslab.sweeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from losslab.sweeps.multirun import Multirun


class _SweepLauncher(Launcher):
    """Hands the jobs of `losslab train -m` to its Multirun."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep, self.config, self.callbacks = task_function, config, hydra_context.callbacks

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from losslab.sweeps.multirun import FAILED, Multirun, RunFailed

        if not isinstance(self.sweep, Multirun):
            raise RuntimeError("this launcher serves `losslab train -m` only")
        statuses = self.work(self.sweep, [list(overrides) for overrides in job_overrides])
        done = [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]
        for one, status in zip(done, statuses, strict=True):
            one.return_value = status
            if status in FAILED:
                one.status = JobStatus.FAILED
                one.return_value = RunFailed(f"the run is {status}: {' '.join(one.overrides or ())}")
            self.callbacks.on_job_end(config=self.config, job_return=one)
        return done

    @abstractmethod
    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        """The status of each job."""


class LocalLauncher(_SweepLauncher):
    """Every run in a process of its own, on this machine. Keys: conf/hydra/launcher/local.yaml."""

    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        return sweep.launch(jobs, self.settings)


class SlurmLauncher(_SweepLauncher):
    """Every run in a job of its own, on a SLURM cluster. Keys: conf/hydra/launcher/slurm.yaml."""

    def work(self, sweep: Multirun, jobs: list[list[str]]) -> list[str]:
        return sweep.submit(jobs, self.settings)


class ListedSweeper(BasicSweeper):
    """Hydra's basic sweeper, given the jobs that losslab expanded (config/axes.py)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from losslab.sweeps.multirun import Multirun

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if not isinstance(task_function, Multirun):
            raise RuntimeError("this sweeper serves `losslab train -m` only")
        self.multirun = task_function

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        with open_dict(self.config):  # multirun.yaml keeps what was typed
            self.config.hydra.overrides.task = self.multirun.typed
        return super().sweep([])

    def _parse_config(self) -> list[str]:
        return []

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        return [[list(job) for job in self.multirun.jobs]]


class OptunaSweeper(ListedSweeper):
    """A search by Optuna, whose trials the local launcher draws. Keys: conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(max_batch_size=None)
        self.settings = settings  # which losslab has read and checked
