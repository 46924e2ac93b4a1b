"""Hand runs to submitit, and ask what became of their jobs. No torch here; submitit is imported when it is needed."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from losslab.errors import UserError
from losslab.sweeps.server import changed_environment
from losslab.sweeps.settings import SlurmSettings
from losslab.sweeps.submitted import SubmittedRun
from losslab.training.process.signals import handling

if TYPE_CHECKING:
    import submitit

_COMMANDS = ("sbatch", "srun", "squeue")
_MOST_IN_ARRAY = 1000
"""SLURM's MaxArraySize unless a cluster changes it."""
_GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket")
_SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Shape:
    """Resources of the cluster that a run needs."""

    nodes: int
    devices: int
    accelerator: str

    @property
    def tasks(self) -> int:
        """Tasks on each node: one, which starts the ranks, or where there are more nodes one a rank."""
        return self.devices if self.nodes > 1 else 1

    @property
    def gpus(self) -> int | None:
        return self.devices if self.accelerator in ("gpu", "cuda") else None


def check_executor(settings: SlurmSettings) -> None:
    """Raises UserError where submitit, or the cluster's commands, are missing."""
    if find_spec("submitit") is None:
        raise UserError("hydra/launcher=slurm needs submitit: pip install 'losslab[slurm]'")
    if settings.executor == "slurm" and (missing := [name for name in _COMMANDS if which(name) is None]):
        raise UserError(
            f"hydra.launcher.executor=slurm needs {missing[0]}, which is not here: start this on the cluster, or "
            "try it with executor=local"
        )


class Slurm:
    """SLURM's queue.

    Args:
        folder: of submitit's files; the nodes must see it.
        name: of the jobs.
    """

    room = sys.maxsize

    def __init__(self, folder: Path, name: str, settings: SlurmSettings) -> None:
        self._folder = folder
        self._name = name
        self._settings = settings

    def submit(self, shape: Shape, runs: Sequence[SubmittedRun]) -> list[str]:
        """Queue them as arrays; returns their jobs' ids. Raises UserError for what sbatch refuses."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        jobs: list[str] = []
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.max_requeues)
            with _importable(), _deaf_to_ctrl_c():
                executor.update_parameters(**self._parameters(shape))
                for i in range(0, len(runs), _MOST_IN_ARRAY):
                    jobs += [job.job_id for job in executor.submit_array(runs[i : i + _MOST_IN_ARRAY])]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = (str(error).strip().splitlines() or ["nothing"])[-1]
            queued = f"; {len(jobs)} jobs were queued before" if jobs else ""
            raise UserError(f"sbatch refuses the jobs: {said}{queued}") from None
        return jobs

    def alive(self) -> dict[str, str]:
        """The jobs that are queued or running, and how SLURM calls that. Raises UserError when it does not answer."""
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T"]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER, start_new_session=True
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"squeue does not answer ({error})") from None
        if answer.returncode:
            raise UserError(f"squeue does not answer ({' '.join(answer.stderr.split())})")
        return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip())

    def state(self, job: str) -> str:
        """The state of an ended job, where the cluster keeps accounts; else UNKNOWN."""
        import submitit

        state: str = submitit.SlurmJob(self._folder, job).watcher.get_state(job, mode="force")
        return state

    def stop(self) -> None:
        """The jobs go on without this command."""

    def _parameters(self, shape: Shape) -> dict[str, Any]:
        settings, more = self._settings, self._settings.additional_parameters
        parameters = {
            "job_name": self._name,
            "partition": settings.partition,
            "account": settings.account,
            "qos": settings.qos,
            "time": settings.minutes,
            "nodes": shape.nodes,
            "ntasks_per_node": shape.tasks,
            "cpus_per_task": settings.cpus_per_task,
            # srun no longer takes this over from sbatch.
            "srun_args": settings.cpus_per_task and [f"--cpus-per-task={settings.cpus_per_task}"],
            "gpus_per_node": None if any(name in more for name in _GPU_OPTIONS) else shape.gpus,
            "mem": settings.mem_gb and f"{round(settings.mem_gb * 1024)}M",
            "array_parallelism": settings.max_parallel,
            "signal_delay_s": settings.signal_delay_s,
            "setup": settings.setup or None,
            "additional_parameters": more or None,
        }
        return {key: value for key, value in parameters.items() if value is not None}


class Processes:
    """submitit's own processes on this machine, to try out what a cluster would run. Arguments: see `Slurm`."""

    def __init__(self, folder: Path, settings: SlurmSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._jobs: dict[str, submitit.Job[int]] = {}

    @property
    def room(self) -> int:
        """The number of jobs that may still start."""
        return self._settings.at_once - len(self.alive())

    def submit(self, shape: Shape, runs: Sequence[SubmittedRun]) -> list[str]:
        import submitit

        executor = submitit.LocalExecutor(self._folder, max_num_timeout=self._settings.max_requeues)
        executor.update_parameters(
            timeout_min=self._settings.minutes,
            signal_delay_s=self._settings.signal_delay_s,
            gpus_per_node=shape.gpus or 0,
        )
        with _importable(), _deaf_to_ctrl_c():
            jobs = executor.submit_array(runs)
        self._jobs |= {job.job_id: job for job in jobs}
        return [job.job_id for job in jobs]

    def alive(self) -> dict[str, str]:
        return {name: job.state for name, job in self._jobs.items() if not job.done()}

    def state(self, job: str) -> str:
        return self._jobs[job].state

    def stop(self) -> None:
        """Let them save, and end."""
        for job in self.alive():
            with suppress(ProcessLookupError):
                os.kill(int(job), signal.SIGTERM)  # submitit names them by their process


class Foreground:
    """One run after the other, each to its end before `submit` returns, on this terminal. Arguments: see `Slurm`."""

    room = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, shape: Shape, runs: Sequence[SubmittedRun]) -> list[str]:
        import submitit

        jobs = submitit.DebugExecutor(self._folder).submit_array(runs)
        for job in jobs:
            job.wait()
        return [job.job_id for job in jobs]

    def alive(self) -> dict[str, str]:
        return {}

    def state(self, job: str) -> str:
        return "DONE"

    def stop(self) -> None:
        """Its run receives every signal itself."""


Scheduler = Slurm | Processes | Foreground


def make_scheduler(folder: Path, settings: SlurmSettings) -> Scheduler:
    """The executor of hydra.launcher.executor.

    Args:
        folder: of the sweep.
    """
    files = folder.absolute() / ".submitit"
    files.mkdir(exist_ok=True)
    if settings.executor == "local":
        return Processes(files, settings)
    if settings.executor == "debug":
        return Foreground(files)
    return Slurm(files, f"losslab-{folder.name}", settings)


@contextmanager
def _importable() -> Iterator[None]:
    """Jobs take over this environment, and find losslab, and nothing of the current folder before it, where we did."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with changed_environment({"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}):
        yield


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that start in here leave a terminal's Ctrl-C to this one."""
    with handling({signal.SIGINT: signal.SIG_IGN}):
        yield
