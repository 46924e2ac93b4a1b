"""The SLURM launcher's parts: its keys, what it asks of a cluster, and what it makes of the answers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from losslab.choices import conf_dir
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.locks import lock
from losslab.records import Record, read
from losslab.run_folder import RunFolder
from losslab.sweeps import cluster, scheduler
from losslab.sweeps.cluster import Cluster
from losslab.sweeps.followed_run import Run
from losslab.sweeps.scheduler import Shape, Slurm
from losslab.sweeps.settings import SlurmSettings
from losslab.sweeps.submitted import SubmittedRun

SHIPPED: dict[str, Any] = yaml.safe_load((conf_dir() / "hydra/launcher/slurm.yaml").read_text())


def settings(**keys: Any) -> SlurmSettings:
    return SlurmSettings.of(SHIPPED | keys)


WRONG = [
    ("executor", "slrum", "did you mean 'slurm'?"),
    ("partition", "", "must be a name"),
    ("account", True, "must be a name"),
    ("qos", ["a"], "must be a name"),
    ("time_limit", None, "must be given, such as 90m or 4h"),
    ("time_limit", "soon", "must be seconds, or such as 90m or 2h"),
    ("time_limit", "2m", "signal_delay_s must be whole seconds, fewer than the time_limit has, not 120"),
    ("cpus_per_task", 0, "from 1 to 4096"),
    ("cpus_per_task", 1.5, "from 1 to 4096"),
    ("mem_gb", -1, "above 0"),
    ("mem_gb", "8GB", "above 0"),
    ("max_parallel", 0, "from 1 to"),
    ("signal_delay_s", 0, "whole seconds"),
    ("max_requeues", -1, "from 0 to"),
    ("max_requeues", None, "from 0 to"),
    ("setup", "module load cuda", "a list of shell lines"),
    ("additional_parameters", ["a"], "options of sbatch"),
    ("additional_parameters", {"gres": ["gpu"]}, "options of sbatch"),
    ("wait", "yes", "true or false"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG)
def test_a_wrong_value_is_one_sentence(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(**{key: value})
    message = str(caught.value)
    assert "hydra.launcher." in message and sentence in message and "\n" not in message


def test_what_ends_with_the_command_is_waited_for() -> None:
    with pytest.raises(UserError, match="wait=false is for executor=slurm"):
        settings(executor="local", wait=False)


def test_a_wrong_value_is_told_before_anything_is_composed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.commands.expand.job_overrides", lambda *_: pytest.fail("the jobs were expanded"))
    with pytest.raises(UserError, match=r"hydra\.launcher\.mem_gb must be a number above 0"):
        train(["-m", "hydra/launcher=slurm", "hydra.launcher.mem_gb=0", "seed=1,2"])


def test_a_launcher_of_ones_own_is_checked_as_early(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.commands.expand.job_overrides", lambda *_: pytest.fail("the jobs were expanded"))
    own = Path("conf/hydra/launcher/mine.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [slurm]\nmem_gb: lots\n")
    with pytest.raises(UserError, match=r"hydra\.launcher\.mem_gb must be a number above 0, not 'lots'"):
        train(["-m", "--config-dir", "conf", "hydra/launcher=mine", "seed=1,2"])


def test_missing_tools_are_one_sentence(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["-m", "hydra/launcher=slurm", "seed=1,2"]
    monkeypatch.setattr(scheduler, "which", lambda name: None)
    with pytest.raises(UserError, match="needs sbatch, which is not here"):
        train(command)
    monkeypatch.setattr(scheduler, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'losslab\[slurm\]'"):
        train(command)


def test_a_task_of_srun_starts_no_multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="without srun"):
        train(["-m", "seed=1,2"])


@pytest.mark.parametrize(
    ("shape", "keys", "expected"),
    [
        (Shape(1, 1, "cpu"), {}, {"nodes": 1, "ntasks_per_node": 1, "time": 240, "signal_delay_s": 120}),
        (Shape(1, 8, "gpu"), {}, {"nodes": 1, "ntasks_per_node": 1, "gpus_per_node": 8}),
        (Shape(2, 4, "cuda"), {}, {"nodes": 2, "ntasks_per_node": 4, "gpus_per_node": 4}),
        (
            Shape(1, 4, "gpu"),
            {"additional_parameters": {"gres": "gpu:a100:4"}},
            {"additional_parameters": {"gres": "gpu:a100:4"}, "gpus_per_node": None},
        ),
        (Shape(1, 1, "cpu"), {"cpus_per_task": 4}, {"cpus_per_task": 4, "srun_args": ["--cpus-per-task=4"]}),
        (Shape(1, 1, "cpu"), {"time_limit": "90.5m"}, {"time": 91}),
        (Shape(1, 1, "cpu"), {"mem_gb": 2.5, "account": 17}, {"mem": "2560M", "account": "17"}),
    ],
)
def test_what_is_asked_of_sbatch(tmp_path: Path, shape: Shape, keys: dict[str, Any], expected: dict[str, Any]) -> None:
    parameters = Slurm(tmp_path, "sweep", settings(**keys))._parameters(shape)
    assert {name: parameters.get(name) for name in expected} == expected
    assert None not in parameters.values()


def test_a_submitted_run_survives_pickling(tmp_path: Path) -> None:
    run = SubmittedRun(RunFolder(tmp_path), ["my.Loss"], ["/somewhere"], 2)
    assert pickle.loads(pickle.dumps(run)) == run
    again = run.checkpoint()
    assert again.function == SubmittedRun(RunFolder(tmp_path), ["my.Loss"], ["/somewhere"], 2)


@dataclass
class Queue:
    """Answers as it is told."""

    answers: Iterator[dict[str, str]]
    submitted: list[str] = field(default_factory=list)
    room: int = 100

    def alive(self) -> dict[str, str]:
        return next(self.answers)

    def submit(self, shape: Shape, runs: list[SubmittedRun]) -> list[str]:
        self.submitted += [run.folder.name for run in runs]
        return [f"7_{i}" for i in range(len(runs))]

    def state(self, job: str) -> str:
        return "OUT_OF_MEMORY"

    def stop(self) -> None: ...


def sweep(folder: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch, **status: str) -> Cluster:
    """Planned runs by name and status."""
    runs = []
    (folder / ".submitit").mkdir(exist_ok=True)
    for i, (name, state) in enumerate(status.items(), 1):
        run = folder / name
        run.mkdir(exist_ok=True)
        if not (run / "run.json").exists():
            Record(identity=name, name="s", status=state, step=3).write(run)
        runs.append(Run(i, name, RunFolder(run), 1, 8, [], read(run).status, step=3))
    monkeypatch.setattr(cluster, "make_scheduler", lambda *_: queue)
    monkeypatch.setattr(Cluster, "_pause", lambda *_: None)
    shapes = {run.number: Shape(1, 1, "cpu") for run in runs}
    return Cluster(runs, shapes, folder, settings())


def test_a_job_that_the_cluster_killed_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue(iter([{}, {"7_0": "RUNNING"}, {}, {}]))
    work = sweep(tmp_path, queue, monkeypatch, run="running")
    assert work.work() is False
    record = read(tmp_path / "run")
    assert (record.status, record.step) == ("failed", 3)
    assert "its job 7_0 ended before the run did, in state OUT_OF_MEMORY" in str(record.error)
    assert "[1/1] failed: run:" in capsys.readouterr().err


def test_a_run_that_another_process_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(iter([{}] * 9))
    work = sweep(tmp_path, queue, monkeypatch, run="running")
    with lock(tmp_path / "run"):
        work._submit(list(work._waiting))
        assert not queue.submitted
        for _ in range(4):
            work._look()
        assert work._watched
        record = read(tmp_path / "run")
        record.status = "completed"
        record.write(tmp_path / "run")
    work._look()
    assert not work._watched and work.runs[0].status == "completed"


def test_only_runs_without_a_job_are_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(tmp_path, Queue(iter([{}])), monkeypatch, a="planned", b="failed")
    first._submit(list(first._waiting))
    queue = Queue(iter([{"7_1": "PENDING", "8": "RUNNING"}]))
    second = sweep(tmp_path, queue, monkeypatch, a="planned", b="failed", c="completed", d="interrupted")
    second._submit(list(second._waiting))
    assert queue.submitted == ["a", "d"]
    assert [run.label for run in second._watched] == ["b", "a", "d"]


def test_an_old_failure_does_not_end_a_run_that_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(tmp_path, Queue(iter([{}, {"7_0": "PENDING"}])), monkeypatch, a="failed")
    first._submit(list(first._waiting))
    first._look()
    read(tmp_path / "a").write(tmp_path / "a")  # as the second invocation does when it plans
    second = sweep(tmp_path, Queue(iter([{"7_0": "PENDING"}] * 2)), monkeypatch, a="failed")
    second._submit(list(second._waiting))
    second._look()
    assert first._watched and second._watched


def test_a_queue_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = sweep(tmp_path, Queue(iter([{}])), monkeypatch, a="planned")
    work._submit(list(work._waiting))

    def refuse() -> dict[str, str]:
        raise UserError("squeue does not answer (busy)")

    monkeypatch.setattr(work._scheduler, "alive", refuse)
    work._look()
    assert work._watched and "note: squeue does not answer (busy)" in capsys.readouterr().err
