"""Multiruns that share a folder, a machine, a cache; and those whose runs have several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain
from losslab.records import read
from losslab.sweeps.local import Sweep
from losslab.sweeps.multirun import open_runs
from losslab.sweeps.plan import Job
from losslab.sweeps.planning import plan
from losslab.sweeps.settings import LocalSettings
from losslab.sweeps.slots import Sharing, Slot
from losslab.sweeps.source import Listed
from runs import TINY, find_runs, losslab
from sweeps import wait_until
from warm_process import PYTHON, starting_cold

NOTED = """
import os
from pathlib import Path

import torch

from losslab.losses.base import Loss


class Noted(Loss):
    \"\"\"Notes when each process trains, and with what.\"\"\"

    def __init__(self):
        super().__init__()
        self.begun = False

    def position_loss(self, logits, target):
        if self.training and not self.begun:
            self.begun = True
            note = f"{os.getpid()} {torch.get_num_threads()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
            with Path("noted.txt").open("a") as file:
                file.write(note + chr(10))
        return -logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
"""
COUNTED = """
import os
import signal
from pathlib import Path

from losslab.data import cache
from losslab.data.module import TextDataModule

tokenise = cache._write


def counted(folder, *arguments):
    with Path("counted.txt").open("a") as file:
        file.write("x")
    tokenise(folder, *arguments)
    if Path("kill").exists():
        Path("kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)


cache._write = counted


class Text(TextDataModule):
    \"\"\"Counts how often a text is tokenised.\"\"\"
"""


def write_noted(folder: Path) -> list[str]:
    """The loss above as a person's own; returns what chooses it."""
    (folder / "slot_notes.py").write_text(NOTED)
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "noted.yaml").write_text("_target_: slot_notes.Noted\n")
    return ["--config-dir", "conf", "loss=noted"]


def test_four_launches_in_one_second_train_each_run_once(workplace: Path) -> None:
    arguments = [*TINY, *write_noted(workplace), "name=shared", "seed=1,2,3,4"]
    processes = [losslab("train", "-m", *arguments, cwd=workplace) for _ in range(4)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    runs = find_runs(Path("outputs/shared"))
    assert [read(run).status for run in runs] == ["completed"] * 4
    assert len(Path("noted.txt").read_text().splitlines()) == 4
    for run in runs:
        steps = [line.partition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
        assert steps == ["1", "2", "4", "6", "8"]
    ended = [line for output in outputs for line in output.splitlines() if line.startswith("runs: ")]
    assert len(ended) == 4
    assert all(sum(int(part.split()[0]) for part in line[6:].split(", ")) == 4 for line in ended), ended


@pytest.mark.parametrize("killed", [False, True])
def test_a_cold_cache_is_tokenised_once(workplace: Path, run_tiny: Callable[..., int], killed: bool) -> None:
    (workplace / "counted.py").write_text(COUNTED)
    if killed:
        Path("kill").touch()
    arguments = ["-m", "name=cold", "data._target_=counted.Text", "seed=1,2,3,4", "hydra.launcher.slots=4"]
    assert run_tiny(*arguments) == int(killed)
    assert len(Path("counted.txt").read_text()) == 1 + killed
    states = sorted(read(run).status for run in find_runs(Path("outputs/cold")))
    assert states == ["completed"] * (4 - killed) + ["failed"] * killed
    assert run_tiny(*arguments) == 0
    assert len(Path("counted.txt").read_text()) == 1 + killed
    left = [path.name for path in (Path("outputs/.cache")).iterdir() if path.is_dir() and path.name[0] != "."]
    assert len(left) == 1


@pytest.mark.parametrize("gpus", [True, False])
def test_slots_are_given_to_one_run_at_a_time(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpus: bool
) -> None:
    *_, loss = write_noted(workplace)
    sys.path.append(str(workplace))
    typed = [*TINY, loss, "name=slots", "trainer.threads=null"]
    jobs = []
    for seed in range(5):
        config, choices = compose_job([*typed, f"seed={seed}"], Path("conf"))
        jobs.append(Job(check_run(config), compose_plain([]), choices, [f"seed={seed}"], f"seed={seed}"))
    monkeypatch.setattr("losslab.sweeps.planning.cores", lambda: 2)
    planned = plan(jobs, slots=2)
    sharing = planned.sharing
    assert isinstance(sharing, Sharing)
    if gpus:
        sharing = replace(sharing, slots=(Slot(0, ("3",)), Slot(1, ("7",))))
    runs = open_runs(planned, sharing)
    sweep = Sweep(Listed(runs), Path("outputs/slots"), sharing.slots, LocalSettings(2, "continue", 0, None))
    most: list[int] = []
    start = Sweep._start

    def start_and_count(self: Sweep, run, slots) -> None:
        start(self, run, slots)
        taken = [slot.index for running in self._running for slot in running.slots]
        assert len(taken) == len(set(taken)), "one slot twice"
        most.append(len(self._running))

    monkeypatch.setattr(Sweep, "_start", start_and_count)
    assert not sweep.work()
    assert [run.status for run in runs] == ["completed"] * 5
    assert max(most) == 2
    noted = [line.split() for line in Path("noted.txt").read_text().splitlines()]
    assert len({pid for pid, _, _ in noted}) == 5
    assert [threads for _, threads, _ in noted] == ["1", "1", "1", "1", "2"], "the odd one has all cores"
    devices = {run.folder.record().hardware["visible_devices"] for run in runs}
    assert devices == ({"3", "7"} if gpus else {os.environ.get("CUDA_VISIBLE_DEVICES")})
    assert {device for _, _, device in noted} == {str(device) for device in devices}


RANKS = [*TINY, "trainer.max_steps=20", "model.dropout=0", "loggers=tensorboard"]
DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


def test_ranks_in_a_multirun_equal_a_single_process(workplace: Path, run_tiny: Callable[..., int]) -> None:
    assert run_tiny("-m", *RANKS, "name=one", "seed=0") == 0
    (workplace / "elsewhere").mkdir()
    moved = ["data.path=../book.txt", "output_dir=../outputs", "name=two", "seed=0"]
    with starting_cold():  # the launcher, its fork server, torchrun and the ranks, as on a user's machine
        command = [PYTHON, "-c", "import sys; from losslab.cli import main; sys.exit(main())", "train", "-m"]
        subprocess.run([*command, *RANKS, *DDP, *moved], cwd=workplace / "elsewhere", check=True, timeout=200)
    assert list((workplace / "elsewhere").iterdir()) == []
    (alone,), (together,) = (find_runs(Path("outputs") / name) for name in ("one", "two"))
    assert alone.name == together.name
    assert [path.name for path in Path("outputs/two").iterdir() if path.is_dir() and path.name[0] != "."] == [
        together.name
    ]
    assert len(list(together.glob("events.out.tfevents.*"))) == 1
    assert read(together).hardware["ranks"] == 2
    expected, got = (read(run).metrics for run in (alone, together))
    for part, values in expected.items():
        assert got[part] == pytest.approx(values, rel=1e-6, abs=1e-5)


def test_a_stopped_run_of_several_ranks_continues_in_a_multirun(workplace: Path, run_tiny: Callable[..., int]) -> None:
    arguments = ["-m", *RANKS, *DDP, "name=stopped", "trainer.max_steps=150", "seed=1"]
    process = losslab("train", *TINY, *arguments, cwd=workplace)
    sweep = Path("outputs/stopped")
    wait_until(lambda: any(read(run).step > 0 for run in find_runs(sweep)), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    (run,) = find_runs(sweep)
    saved = read(run)
    assert saved.status == "interrupted" and 0 < saved.step < 150
    assert run_tiny(*arguments) == 0
    assert (read(run).status, read(run).step) == ("completed", 150)
