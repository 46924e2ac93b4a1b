"""`losslab train -m … --print-jobs`: lines that any queue runs, here xargs, and what they leave to print."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from losslab.commands.train import train
from losslab.errors import UserError
from losslab.locks import lock
from losslab.records import read
from runs import TINY, find_runs, unimported

TEXT = "my book, 'one'.txt"
LOSS = """
from losslab.losses.base import Loss


class Fails(Loss):
    def __init__(self, *, power: float = 1.0):
        super().__init__()
        self.power = power

    def from_log_prob(self, log_prob):
        if self.power > 2:
            raise ArithmeticError("no luck here")
        return -log_prob * self.power
"""
RECORDER = """#!/bin/sh
printf '%s\\0' "$@" > "$(mktemp calls/XXXXXX)"
"""


def words(*arguments: str) -> list[str]:
    return [*TINY, f'data.path="{TEXT}"', "trainer.max_steps=2", "--config-dir", "my conf", "name=queued", *arguments]


def sweep_words() -> list[str]:
    return words("-m", "loss=cross_entropy,mine:power=2,mine:power=3", "optimizer.betas=[0.9,0.95]")


@pytest.fixture
def folder(workplace: Path) -> Path:
    """A current folder with a text and a loss whose names a shell would take apart."""
    (workplace / "book.txt").rename(workplace / TEXT)
    (workplace / "my conf/loss").mkdir(parents=True)
    (workplace / "my conf/loss/mine.yaml").write_text("_target_: queued_losses.Fails\npower: 1.0\n")
    (workplace / "queued_losses.py").write_text(LOSS)
    return workplace


def printed(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[list[str], str]:
    """The lines of standard output, and the messages."""
    capfd.readouterr()
    assert train([*arguments, "--print-jobs"]) == 0
    out, err = capfd.readouterr()
    return out.splitlines(), err


def handed_out(lines: list[str], folder: Path) -> list[list[str]]:
    """Words of the commands that xargs starts, two at a time, by a shell each."""
    (folder / "bin").mkdir()
    (folder / "calls").mkdir()
    (folder / "bin/losslab").write_text(RECORDER)
    (folder / "bin/losslab").chmod(0o755)
    subprocess.run(
        ["xargs", "-0", "-P", "2", "-n", "1", "sh", "-c"],
        input="\0".join(lines),
        text=True,
        check=True,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
    )
    return [path.read_text().split("\0")[:-1] for path in (folder / "calls").iterdir()]


def test_xargs_trains_what_is_missing_and_the_rest_is_printed_again(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with unimported("queued_losses"):
        assert train(words("loss=cross_entropy", "optimizer.betas=[0.9,0.95]")) == 0
        lines, said = printed(capfd, sweep_words())
        assert len(lines) == 2 and all(line.startswith("losslab train --config-dir 'my conf' ") for line in lines)
        assert "2 to run, 1 done\n" in said
        commands = handed_out(lines, folder)
        assert [command[0] for command in commands] == ["train", "train"]
        assert sorted(train(command[1:]) for command in commands) == [0, 1]
        runs = find_runs(folder / "outputs/queued")
        assert sorted(read(run).status for run in runs) == ["completed", "completed", "failed"]
        (again,), _ = printed(capfd, sweep_words())
        assert again in lines and "loss.power=3" in again
        (failed,) = (run for run in runs if read(run).status == "failed")
        with lock(failed):
            lines, said = printed(capfd, sweep_words())
        assert lines == [] and "0 to run, 2 done, 1 running" in said


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("fresh=true", "fresh=true repeats a run at each start of a line: leave it out of --print-jobs"),
        (
            "hydra.launcher.slots=2",
            "hydra.launcher.slots=2 is about a launcher, and --print-jobs leaves the launching to you",
        ),
        ("hydra/launcher=slurm", "hydra/launcher=slurm is about a launcher"),
    ],
)
def test_what_lines_cannot_say_is_refused(typed: str, told: str, workplace: Path) -> None:
    with pytest.raises(UserError, match=told):
        train([*TINY, "-m", "seed=1,2", typed, "--print-jobs"])
    assert not list(workplace.rglob("run.json"))
