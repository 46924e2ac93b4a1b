"""Words after `losslab train`, up to the list of jobs: every note and question comes before any starts."""

from __future__ import annotations

import shlex
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobStatus

from losslab.commands.command_line import CommandLine, parse
from losslab.commands.expand import expand
from losslab.commands.train import train
from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain
from losslab.config.jobs import is_multirun, job_overrides, open_multirun
from losslab.errors import UserError
from losslab.sweeps.multirun import Multirun, RunFailed
from losslab.sweeps.settings import LocalSettings
from losslab.training.process.claim import Finder
from runs import TINY

SWEEP = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: range(0,40)\n      loss: square,kl_divergence\n"


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each call of `server.warm_up`, which is left out."""
    calls: list[str] = []
    monkeypatch.setattr("losslab.sweeps.server.warm_up", lambda: calls.append("warm"))
    return calls


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, warmed: list[str]) -> Any:
    """A person at a terminal, if `terminal`, who gives these answers."""

    class Asked:
        questions: list[str] = []  # noqa: RUF012
        answers = False
        terminal = True

        def confirm(self, question: str) -> bool:
            self.questions.append(question)
            return self.answers

    person = Asked()
    person.questions = []
    monkeypatch.setattr("losslab.commands.expand.typer.confirm", person.confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: person.terminal, raising=False)
    return person


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ([], 1),
        (["seed=7"], 1),
        (["seed=1,2", "loss=square,kl_divergence"], 4),
        (["seed=range(0,1000)", "optimizer.lr=0.1,0.2,0.3"], 3000),
        (["seed=1,2", "seed=5"], 1),
        (["seed=5", "seed=1,2"], 2),
        (["seed=1,1"], 1),
        (["seed=shuffle(1,2,3)"], 3),
        (["seed=range(0,100000)"], 100_000),
        (["seed=range(0,100000)", "data.batch_size=range(1,100001)"], 10**10),
        (["~loggers", "seed=1,2"], 2),
        (["optimizer.betas=[0.9,0.95]"], 1),
    ],
    ids=str,
)
def test_combinations_are_counted_and_not_made(typed: list[str], count: int) -> None:
    opened = open_multirun(typed)
    assert opened.count == count
    if count < 10**5:
        assert len(job_overrides(opened)) == count


def test_the_sweep_of_an_experiment_counts_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/swept.yaml").write_text(f"# @package _global_\n{SWEEP}")
    assert open_multirun(["experiment=swept"], tmp_path).count == 80
    assert open_multirun(["experiment=swept", "seed=1,2"], tmp_path).count == 4, "what is typed replaces"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["seed=range(0,0)"], "seed=range(0,0) is no value at all"),
        (["loss=glob(nothing_*)"], "loss=glob(nothing_*) is no value at all"),
        (["loss=square", "seed=range(0,100001)"], "seed has more than 100,000 values"),
        (["seed=range(0,1000000000)"], "seed has more than 100,000 values"),
        (["seed=1,2", "hydra.sweeper.max_batch_size=2"], "leave out hydra.sweeper.max_batch_size"),
        (["seed=1,2", "hydra.launcher.slots=1,2"], "hydra.launcher.slots=1,2: a multirun has one value"),
        (["seed=1,2", "hydra/launcher=local,basic"], "hydra/launcher=local,basic: a multirun has one value"),
        (["seed=1,2", "hydra/launcher=loca"], "did you mean 'local'?"),
        (["seed=[1,2"], "'seed=[1,2' cannot be read"),
    ],
)
def test_what_cannot_be_counted_is_told(typed: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        open_multirun(typed)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_without_end_is_told() -> None:
    with pytest.raises(UserError, match=r"INTERVAL|interval"):
        job_overrides(open_multirun(["optimizer.lr=interval(0,1)"]))


def test_hydras_own_overrides_are_kept_apart() -> None:
    typed = ["hydra.launcher.slots=2", "seed=1,2", "hydra/launcher=local", "loss=square", "hydra.launcher.retries=3"]
    opened = open_multirun(typed)
    assert opened.overrides == ["seed=1,2", "loss=square"]
    assert opened.hydra_overrides == [typed[0], typed[2], typed[4]]
    assert opened.launcher == "local"
    assert (opened.settings["slots"], opened.settings["retries"]) == (2, 3)
    assert job_overrides(opened) == [["seed=1", "loss=square"], ["seed=2", "loss=square"]]
    assert open_multirun(["hydra/launcher=basic"]).launcher == "basic"


@pytest.mark.parametrize(
    "typed",
    [
        ["loss=square", "-m", "seed=1"],
        ["-m", "loss=square", "seed=1"],
        ["loss=square", "seed=1", "--multirun"],
    ],
)
def test_flags_and_overrides_may_stand_anywhere(typed: list[str]) -> None:
    line = parse([*typed, "--config-dir", "conf", "--yes"])
    expected = CommandLine(["loss=square", "seed=1"], multirun=True, yes=True, config_dir=Path("conf"))
    assert line == expected
    assert line.argv() == ["--multirun", "--config-dir", "conf", "loss=square", "seed=1"]


def test_the_jobs_are_those_that_were_typed(warmed: list[str]) -> None:
    jobs, of_hydra = expand(parse(["loss=square", "-m", "seed=1,2", "hydra.launcher.slots=2"]))
    assert jobs == [["loss=square", "seed=1"], ["loss=square", "seed=2"]]
    assert of_hydra == ["hydra.launcher.slots=2"]
    assert warmed == ["warm"]


def test_the_server_starts_for_right_settings_of_our_launcher_only(warmed: list[str]) -> None:
    expand(parse(["-m", "seed=1,2", "hydra/launcher=basic"]))
    with pytest.raises(UserError, match=r"hydra\.launcher\.slots"):
        expand(parse(["-m", "seed=1,2", "hydra.launcher.slots=none"]))
    assert warmed == []


def test_a_multirun_under_torchrun_is_refused(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="without torchrun"):
        expand(parse(["-m", "seed=1,2"]))
    assert warmed == []


@pytest.mark.parametrize("terminal", [True, False])
def test_a_thousand_runs_are_not_asked_about(terminal: bool, asked: Any) -> None:
    asked.terminal = terminal
    assert len(expand(parse(["-m", "seed=range(0,1000)"]))[0]) == 1000
    assert asked.questions == []


def test_more_runs_are_asked_about_on_a_terminal(asked: Any) -> None:
    with pytest.raises(UserError, match="nothing was started"):
        expand(parse(["-m", "seed=range(0,1001)"]))
    asked.answers = True
    assert len(expand(parse(["-m", "seed=range(0,1001)"]))[0]) == 1001
    assert asked.questions == ["these are 1,001 runs; start them?"] * 2


def test_more_runs_are_refused_where_nobody_can_be_asked(asked: Any) -> None:
    asked.terminal = False
    with pytest.raises(UserError, match="these are 1,001 runs: add --yes"):
        expand(parse(["-m", "seed=range(0,1001)"]))
    with pytest.raises(UserError, match=r"these are 10,000,000,000 runs"):
        expand(parse(["-m", "seed=range(0,100000)", "data.batch_size=range(1,100001)"]))
    with pytest.raises(UserError, match="max_seeds=501: choose 6 to 500"):  # which --yes would not make right
        expand(parse(["-m", "loss=cross_entropy,focal", "seed=auto", "max_seeds=501", "decide=0.01"]))
    assert asked.questions == []


@pytest.mark.parametrize("terminal", [True, False])
def test_yes_answers_for_its_person(terminal: bool, asked: Any) -> None:
    asked.terminal = terminal
    assert len(expand(parse(["-m", "--yes", "seed=range(0,1001)"]))[0]) == 1001
    assert asked.questions == []


@pytest.mark.parametrize(
    "override", ["hydra.launcher.slots=2", "hydra/launcher=basic", "+hydra.launcher.x=1", "~hydra.launcher.slots"]
)
def test_a_launcher_without_a_multirun_is_refused(
    override: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslab.commands.train._run_job", lambda *arguments: pytest.fail("a run was started"))
    with pytest.raises(UserError) as caught:
        train(["seed=1", override])
    assert str(caught.value) == f"{override} is about a multirun: add -m, or leave it out"
    assert not Path("outputs").exists()


def test_every_job_is_checked_before_the_launcher_has_any(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, warmed: list[str]
) -> None:
    monkeypatch.setattr(Multirun, "launch", lambda *arguments: pytest.fail("a job was started"))
    with pytest.raises(UserError, match=r"trainer\.threads must be above 0"):
        train(["-m", "trainer.threads=1,0", "data=text", "data.path=book.txt"])
    assert not Path("outputs").exists()


def test_the_launcher_gets_each_job_and_the_settings_that_were_typed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, warmed: list[str]
) -> None:
    got: list[Any] = []

    def launch(self: Multirun, jobs: list[list[str]], settings: dict[str, Any]) -> list[str]:
        got.extend([jobs, settings])
        self.launched, self.statuses = True, ["completed", "failed"]
        return self.statuses

    monkeypatch.setattr(Multirun, "launch", launch)
    ended: list[Any] = []
    monkeypatch.setattr(Callbacks, "on_job_end", lambda self, config, job_return: ended.append(job_return))
    typed = ["seed=1,2", "-m", "hydra.launcher.slots=1", "hydra.launcher.time_limit=90m", "name=x"]
    assert train(typed) == 1, "one of them failed"
    assert [one.status for one in ended] == [JobStatus.COMPLETED, JobStatus.FAILED]
    assert [type(one._return_value) for one in ended] == [str, RunFailed]
    assert got[0] == [["seed=1", "name=x"], ["seed=2", "name=x"]]
    assert LocalSettings.of(got[1]) == LocalSettings(slots=1, on_error="continue", retries=0, time_limit=5400.0)


def test_an_experiment_is_no_value_of_a_sweep() -> None:
    with pytest.raises(UserError, match="one at a time"):
        open_multirun(["experiment=smoke,lr_fairness"])


def printed_jobs(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[list[str]], str]:
    """Words of each line that --print-jobs prints, and what it says beside them."""
    assert train([*TINY, *arguments, "--print-jobs"]) == 0
    said = capsys.readouterr()
    return [shlex.split(line) for line in said.out.splitlines()], said.err


def test_a_shell_line_is_printed_for_each_missing_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "name=a b", "loss=cross_entropy,focal", "loss.gamma=1,2", "seed=1,2"]
    jobs, said = printed_jobs(capsys, *words)
    assert len(jobs) == 6 and all(job[:2] == ["losslab", "train"] for job in jobs)
    assert jobs[2][-4:] == [r"name=a\ b", "loss=focal", "loss.gamma=1", "seed=1"]
    assert "6 to run, 0 done" in said and "runs once" in said
    assert not list(Path("outputs").rglob("run.json")), "nothing is claimed"
    config, choices = compose_job(jobs[2][2:])
    assert config["name"] == "a b"
    place = Finder().find(check_run(config), defaults=compose_plain([]), choices=choices, overrides=[])
    Finder().claim(place, "completed")
    rest, said = printed_jobs(capsys, *words)
    assert rest == [job for job in jobs if job != jobs[2]] and "5 to run, 1 done" in said


def test_printed_jobs_of_an_experiment_are_single_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "conf" / "experiment").mkdir(parents=True)
    (workplace / "conf" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{SWEEP}")
    arguments = ["--config-dir", "conf", "experiment=mine", "seed=1,2", "--yes"]
    jobs, _ = printed_jobs(capsys, *arguments)
    assert len(jobs) == 4
    for job in jobs:
        line = parse(job[2:])
        assert line.yes and line.config_dir == Path("conf")
        assert not is_multirun(line.overrides, line.config_dir)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1"], "--print-jobs is about a multirun: add -m"),
        (["-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0,1)"], "start the same command in several jobs"),
    ],
)
def test_what_has_no_list_of_jobs_says_so(workplace: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train([*TINY, *words, "--print-jobs"])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "fresh=true",
            "fresh=true repeats runs, and seed=auto continues them: .* another name=… trains the whole sweep",
        ),
        ("seeds.data_order=1", "^seeds.data_order=1 fixes what seed=auto varies"),
        ("seeds.data_order=1,2", "^seeds.data_order=1,2 fixes what seed=auto varies"),
    ],
)
@pytest.mark.usefixtures("warmed", "workplace")
def test_what_a_growing_sweep_cannot_hold_is_refused(word: str, told: str) -> None:
    """The first seed's own number is fixed for the others, too."""
    with pytest.raises(UserError, match=told):
        train(["-m", *TINY, "loss=cross_entropy,focal", "seed=auto", "max_seeds=8", "decide=0.1", word])


class _Dead:
    """A process that ended before it answered."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def join(self) -> None:
        pass


@pytest.mark.parametrize(("code", "kind"), [(-15, KeyboardInterrupt), (-1, KeyboardInterrupt), (3, UserError)])
def test_a_plan_that_a_signal_ended_was_stopped(
    code: int, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*_: Any, name: str) -> tuple[_Dead, Any]:
        receiving, sending = Pipe(duplex=False)
        sending.close()
        return _Dead(code), receiving

    monkeypatch.setattr("losslab.sweeps.server.follow", follow)
    with pytest.raises(kind):
        Multirun({}, None, lambda *_: "")._ask(lambda: None)
