"""Multiruns that are stopped, extended, broken and shared."""

from __future__ import annotations

import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from losslab.commands.train import train
from losslab.locks import is_locked
from losslab.records import read
from runs import TINY, find_runs, losslab, make_text
from sweeps import descendants, kill_tree, records_by, wait_for_death, wait_until, write_wrong

LONG = [
    *TINY,
    "name=long",
    "model.dropout=0.1",
    "trainer.max_steps=90",
    "trainer.val_check_interval=30",
    "checkpoints.every_n_steps=7",
    "loggers=tensorboard",
    "loss=cross_entropy,square",
    "seed=1,2",
]
SWEEP = Path("outputs/long")


def contents(runs: list[Path]) -> dict[Path, tuple[bytes, int]]:
    """Bytes and time of each file; a lock's file is touched by everybody who asks whether it is held."""
    files = [path for run in runs for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def metrics(sweep: Path) -> dict[str, dict[str, dict[str, float]]]:
    return {run.name: read(run).metrics for run in find_runs(sweep)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, float]]]:
    """The metrics of LONG, run in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert train(["-m", *LONG]) == 0
    return metrics(folder / SWEEP)


def test_a_sweep_killed_three_times_ends_as_an_undisturbed_one(
    workplace: Path, undisturbed: dict[str, dict[str, dict[str, float]]]
) -> None:
    third = "loss=square", "seed=1"
    finished: dict[Path, tuple[bytes, int]] = {}
    for step in sorted(random.sample(range(10, 80), 3)):
        process = losslab("train", "-m", *LONG, cwd=workplace)

        def in_the_third(step: int = step) -> bool:
            found = [read(run) for run in find_runs(SWEEP)]
            states = [record for record in found if set(third) <= set(record.overrides)]
            return bool(states) and states[0].step >= step

        wait_until(in_the_third, process)
        kill_tree(process.pid)
        process.wait()
        done = [run for run in find_runs(SWEEP) if read(run).status == "completed"]
        deadline = time.monotonic() + 10  # the kernel lets go of a dead process's locks when it has cleared its memory
        while any(map(is_locked, find_runs(SWEEP))):
            assert time.monotonic() < deadline, "somebody still holds a run"
            time.sleep(0.05)
        assert {path: contents(done).get(path) for path in finished} == finished
        finished = contents(done)
    assert train(["-m", *LONG]) == 0
    assert metrics(SWEEP) == undisturbed
    assert {path: contents(find_runs(SWEEP))[path] for path in finished} == finished


def test_a_grown_sweep_adds_what_is_missing_and_touches_nothing_else(run_tiny: Callable[..., int]) -> None:
    sweep = Path("outputs/grown")
    assert run_tiny("-m", "name=grown", "seed=1,2") == 0
    before = contents(find_runs(sweep))
    assert run_tiny("-m", "name=grown", "seed=1,2,3", "loss=cross_entropy,square") == 0
    commands = {read(run).provenance["command"] for run in find_runs(Path("outputs/grown"))}
    typed = shlex.join(["losslab", "train", *TINY, "-m", "name=grown"])
    assert commands == {f"{typed} seed=1,2", f"{typed} seed=1,2,3 loss=cross_entropy,square"}
    assert len(find_runs(sweep)) == 6
    after = contents(find_runs(sweep))
    assert {path: after[path] for path in before} == before


def test_each_failure_has_its_record_and_its_log(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_wrong(workplace)
    code = run_tiny("-m", *wrong, "name=wrong", "loss.how=not,raise,exit,fine,segfault,memory")
    assert code == 1
    found = records_by(Path("outputs/wrong"), "loss.how")
    assert {how: record.status for how, record in found.items()} == {
        "not": "completed",
        "raise": "failed",
        "exit": "failed",
        "fine": "completed",
        "segfault": "failed",
        "memory": "failed",
    }
    assert found["raise"].error == "RuntimeError: a mistake of mine"
    assert found["exit"].error == "the code called sys.exit(1)"
    assert found["segfault"].error == "its process was killed by SIGSEGV"
    assert "out of memory" in str(found["memory"].error)
    logs = {how: Path(str(record.provenance["folder"]), "train.log").read_text() for how, record in found.items()}
    assert "a mistake of mine" in logs["raise"] and "Traceback" in logs["raise"]
    assert "sys.exit(1)" in logs["exit"]
    assert "printed before the crash" in logs["segfault"] and "Segmentation fault" in logs["segfault"]
    assert "go_wrong" in logs["segfault"] and "go_wrong" in logs["memory"]
    said = capsys.readouterr()
    assert "runs: 2 completed, 4 failed" in said.out
    for number in (2, 3, 5, 6):
        assert said.err.count(f"[{number}/6] failed") == 2, "at once, and in the summary"


def test_a_failure_can_stop_the_sweep(workplace: Path, run_tiny: Callable[..., int]) -> None:
    wrong = write_wrong(workplace)
    how = "loss.how=not,raise,fine,exit"
    assert run_tiny("-m", *wrong, "name=s", how, "hydra.launcher.slots=1", "hydra.launcher.on_error=stop") == 1
    found = records_by(Path("outputs/s"), "loss.how")
    assert [found[how].status for how in ("not", "raise", "fine", "exit")] == [
        "completed",
        "failed",
        "planned",
        "planned",
    ]


def test_a_failed_run_can_be_tried_again(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_wrong(workplace)
    assert run_tiny("-m", *wrong, "name=r", "loss.how=once,kill", "hydra.launcher.retries=1") == 1
    found = records_by(Path("outputs/r"), "loss.how")
    assert (found["once"].status, found["kill"].status) == ("completed", "failed")
    assert "killed by SIGKILL" in str(found["kill"].error)
    said = capsys.readouterr()
    assert said.out.count("started      loss.how=kill") == 2
    assert said.err.count("failed: loss.how=kill") == 3, "twice at once, and in the summary"


def test_retries_come_before_the_sweep_stops(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_wrong(workplace)
    launcher = ["hydra.launcher.slots=1", "hydra.launcher.on_error=stop", "hydra.launcher.retries=1"]
    assert run_tiny("-m", *wrong, "name=b", "loss.how=three,once,not", *launcher) == 1
    said = capsys.readouterr()
    assert said.out.count("started      loss.how=three") == 2
    assert said.out.count("will be tried again") == 1
    assert "runs: 1 failed, 2 planned" in said.out, "what has not begun is not counted as anything else"
    assert "exit code 3" in said.err, "not taken for a run that another process holds"


def test_a_damaged_record_ends_no_other_run(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_wrong(workplace)
    assert run_tiny("-m", *wrong, "name=d", "loss.how=damage,not", "hydra.launcher.slots=1") == 1
    (damaged,) = Path("outputs/d").glob("*how=damage*")
    assert (damaged / "run.json").read_text() == "{", "left as it is, for a person to look at"
    assert [read(run).status for run in find_runs(Path("outputs/d")) if run != damaged] == ["completed"]
    said = capsys.readouterr()
    assert "runs: 1 completed, 1 failed" in said.out and "run.json cannot be read" in said.err


def test_a_run_that_takes_too_long_is_saved_and_counts_as_failed(workplace: Path, run_tiny: Callable[..., int]) -> None:
    assert run_tiny("-m", "name=t", "trainer.max_steps=100000", "seed=1", "hydra.launcher.time_limit=6s") == 1
    (run,) = find_runs(Path("outputs/t"))
    record = read(run)
    assert (record.status, record.error) == ("failed", "stopped after hydra.launcher.time_limit=6 s")
    assert 0 < record.step < 100000


def test_a_signal_lets_the_runs_save(
    workplace: Path, undisturbed: dict[str, dict[str, dict[str, float]]], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, step in ((signal.SIGINT, 20), (signal.SIGTERM, 50)):
        process = losslab("train", "-m", *LONG, cwd=workplace)
        wait_until(lambda step=step: any(read(run).step >= step for run in find_runs(SWEEP)), process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
        assert "Traceback" not in output
        states = [read(run).status for run in find_runs(SWEEP)]
        assert states.count("planned") >= 2 and "running" not in states
        assert "interrupted" in states
    assert train(["-m", *LONG]) == 0
    assert "continued" in capsys.readouterr().out
    assert metrics(SWEEP) == undisturbed


def test_a_second_ctrl_c_ends_at_once(workplace: Path) -> None:
    wrong = write_wrong(workplace)
    process = losslab("train", "-m", *TINY, *wrong, "name=c", "loss.how=hang", cwd=workplace)
    wait_until(lambda: any(read(run).status == "running" for run in find_runs(Path("outputs/c"))), process)
    jobs = descendants(process.pid)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two at the same moment are one
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert read(find_runs(Path("outputs/c"))[0]).status == "interrupted"
    wait_for_death(jobs, seconds=5)


def test_a_second_ctrl_c_ends_the_ranks_too(workplace: Path) -> None:
    wrong = write_wrong(workplace)
    ranks = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    process = losslab("train", "-m", *TINY, *wrong, *ranks, "name=y", "loss.how=hang", cwd=workplace)
    wait_until(lambda: any(read(run).status == "running" for run in find_runs(Path("outputs/y"))), process)
    everybody = descendants(process.pid)
    assert len(everybody) > 5
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two at the same moment are one
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    wait_for_death(everybody, seconds=10)


@pytest.mark.parametrize("seconds", [0.6, 2.0])
def test_ctrl_c_on_a_terminal_while_the_sweep_gets_ready_prints_no_traceback(workplace: Path, seconds: float) -> None:
    long = [*TINY, "name=e", "seed=1,2", "trainer.max_steps=5000"]
    process = losslab("train", "-m", *long, cwd=workplace, group=True, new=True)

    def busy() -> float:
        """Seconds that it and its fork server have computed: they import, compose, import."""
        with suppress(psutil.NoSuchProcess):
            one = psutil.Process(process.pid)
            return sum(sum(each.cpu_times()[:2]) for each in [one, *one.children(recursive=True)])
        return 0.0

    wait_until(lambda: busy() >= seconds, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output


def test_runs_save_and_end_when_the_launcher_is_killed(workplace: Path) -> None:
    process = losslab("train", "-m", *TINY, "name=k", "trainer.max_steps=100000", "seed=1,2", cwd=workplace)
    sweep = Path("outputs/k")
    wait_until(lambda: [read(run).status for run in find_runs(sweep)].count("running") == 2, process)
    everybody = descendants(process.pid)
    process.kill()
    process.wait()
    wait_for_death(everybody)
    assert [read(run).status for run in find_runs(sweep)] == ["interrupted"] * 2


def test_a_run_outlives_its_fork_server_long_enough_to_save(workplace: Path) -> None:
    two_long, one_short = "100000,100001", "8"
    steps = f"trainer.max_steps={two_long},{one_short}"
    process = losslab("train", "-m", *TINY, "name=v", steps, cwd=workplace)
    sweep = Path("outputs/v")
    wait_until(lambda: [read(run).step > 0 for run in find_runs(sweep)].count(True) == 2, process)
    children = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(process.pid)}
    (server, *_) = (pid for pid, command in children.items() if "forkserver" in command)
    os.kill(server, signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert "Traceback" not in output
    states = [read(run).status for run in find_runs(sweep)]
    assert states.count("interrupted") == 2 and states.count("completed") == 1
    assert process.returncode == 1
