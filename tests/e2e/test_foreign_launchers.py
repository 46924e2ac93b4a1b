"""Launchers of somebody else's: the records say what became of the jobs, and so do Hydra's own objects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from losslab.records import read
from runs import TINY, find_runs

LAUNCHER = '''
import pickle, subprocess, sys
from pathlib import Path
import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher

RUN = """import cloudpickle, pickle, sys
from hydra.core.singleton import Singleton
state, call = pickle.load(sys.stdin.buffer)
Singleton.set_state(state)
sys.stdout.flush()
cloudpickle.dump(call(), open(sys.argv[1], "wb"))
"""


class Elsewhere(Launcher):
    """Each job in a process of its own, by pickling, as joblib's and submitit's do."""

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        done = []
        for i, overrides in enumerate(job_overrides):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            config.hydra.job.num = initial_job_idx + i
            config.hydra.job.id = str(i)
            config.hydra.hydra_logging = self.config.hydra.hydra_logging
            def call(config=config, task=self.task, context=self.context):
                return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
            sent = cloudpickle.dumps((Singleton.get_state(), call))
            subprocess.run([sys.executable, "-c", RUN, "back"], input=sent, check=True)
            done.append(pickle.loads(Path("back").read_bytes()))
        for one in done:
            print("JobReturn", one.status.name, type(one._return_value).__name__)
        return done


class Listener(Callback):
    def on_job_end(self, config, job_return, **rest):
        print("on_job_end", job_return.status.name)
'''
LOSS = """
import os
from losslab.losses.base import Loss


class FailsFrom(Loss):
    def __init__(self, *, step: int = 0):
        super().__init__()
        self.step, self.seen = step, 0

    def from_log_prob(self, log_prob):
        self.seen += self.training
        if self.seen >= abs(self.step) > 0:
            if self.step < 0:
                os._exit(9)
            raise ArithmeticError("no luck here")
        return -log_prob
"""


def sweep(workplace: Path, *arguments: str, launcher: str = "elsewhere") -> subprocess.CompletedProcess[str]:
    """`losslab train -m` under a launcher, with that loss."""
    (workplace / "site/hydra_plugins").mkdir(parents=True)
    (workplace / "site/hydra_plugins/elsewhere.py").write_text(LAUNCHER)
    (workplace / "fails.py").write_text(LOSS)
    for name, text in {
        "loss/fails": "_target_: fails.FailsFrom\nstep: 0\n",
        "hydra/launcher/elsewhere": "_target_: hydra_plugins.elsewhere.Elsewhere\n",
    }.items():
        (workplace / f"my_conf/{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (workplace / f"my_conf/{name}.yaml").write_text(text)
    command = ["-m", "losslab", "train", "-m", "--config-dir", "my_conf", *TINY, f"hydra/launcher={launcher}"]
    return subprocess.run(
        [sys.executable, *command, "loss=fails", *arguments],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(workplace / "site"), str(workplace)])},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_crashed_run_of_another_launcher_is_counted_and_gives_code_1(workplace: Path) -> None:
    listener = "+hydra.callbacks.listener._target_=hydra_plugins.elsewhere.Listener"
    result = sweep(workplace, listener, "loss.step=3,0")
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "runs: 1 completed, 1 failed\n" in result.stdout, said
    assert "[1/2] failed: loss.step=3: ArithmeticError: no luck here; see " in result.stderr
    assert "Traceback" not in said and "Error executing job" not in said
    assert [line for line in said.splitlines() if line.startswith("on_job_end")] == [
        "on_job_end FAILED",
        "on_job_end COMPLETED",
    ]
    assert "JobReturn FAILED RunFailed" in said and "JobReturn COMPLETED" in said


def test_a_launcher_that_gives_up_over_a_killed_run_is_a_sentence_and_the_records_are_read(workplace: Path) -> None:
    result = sweep(workplace, "loss.step=0,-3")
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "losslab: hydra/launcher=elsewhere gave up (HYDRA_FULL_ERROR=1 shows where): CalledProcessError: " in said
    assert "runs: 1 completed, 1 failed\n" in result.stdout, said
    assert "[2/2] failed: loss.step=-3: its process ended before the run did; see " in result.stderr
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("launcher", "settings"),
    [("joblib", ["hydra.launcher.n_jobs=2"]), ("submitit_local", ["hydra.launcher.timeout_min=5"])],
)
def test_hydras_own_launchers_survive_a_crashed_run(launcher: str, settings: list[str], workplace: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    result = sweep(workplace, "loss.step=3,0", "trainer.max_steps=4", *settings, launcher=launcher)
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "runs: 1 completed, 1 failed\n" in result.stdout, said
    assert "[1/2] failed: loss.step=3: ArithmeticError: no luck here; see " in result.stderr, said
    assert "Traceback" not in said
    assert sorted(read(run).status for run in find_runs(workplace / "outputs/runs")) == ["completed", "failed"]
