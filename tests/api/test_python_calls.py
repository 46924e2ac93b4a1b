"""losslab.train, sweep, runs and compare: the same runs as the command line's, in a process that stays as it was."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
import torch
from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from swept_words import WORDS

import losslab
from losslab.commands.compare import compare
from losslab.commands.doctor import examine
from losslab.commands.train import train as command
from losslab.run_folder import find_runs
from losslab.sweeps.local import Sweep as LocalSweep
from runs import TINY, make_text

PAGE = Path(__file__).parents[2] / "docs/python.md"
FIRST = [*TINY, "name=swept"]


def state() -> dict[str, Any]:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "random": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "folder": Path.cwd(),
        "signals": [signal.getsignal(number) for number in signals],
        "environment": dict(os.environ),
        "loggers": [(log.level, list(log.handlers)) for log in map(logging.getLogger, (None, "losslab", "lightning"))],
        "warnings": list(warnings.filters),
        "living": {thread.name for thread in threading.enumerate()},
        "hydra": GlobalHydra.instance().hydra,
    }


def test_a_call_leaves_the_process_as_it_was(swept: losslab.Sweep) -> None:
    torch.manual_seed(3)
    before = state()
    run = losslab.train([*FIRST, "seed=3"], progress=False)
    assert state() == before
    assert run.status == "completed" and run not in swept
    losslab.sweep(WORDS, progress=False)
    str(swept.compare())
    assert state() == before


def test_runs_are_those_of_the_command_line(lab: Path, swept: losslab.Sweep) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        assert command([*TINY, "name=typed", "seed=2"]) == 0
    (typed,) = losslab.runs("outputs/typed")
    own = swept[1]
    assert own.record.identity == typed.record.identity
    assert own.record.metrics == typed.record.metrics
    assert own.record.hashes == typed.record.hashes
    assert own.record.provenance["command"].startswith("losslab.sweep(['data=text'")


def test_the_same_call_again_trains_nothing(swept: losslab.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    before = [run.record.timing for run in swept]
    assert list(losslab.sweep(WORDS)) == list(swept)
    assert losslab.train(FIRST) == swept[0]
    assert [run.record.timing for run in swept] == before
    assert "runs: 4 skipped" in (told := capsys.readouterr().out)
    assert "already completed: outputs/swept/cross_entropy-seed1" in told


def test_a_running_event_loop_is_no_obstacle(swept: losslab.Sweep) -> None:
    async def cell() -> losslab.Run:
        return losslab.train(FIRST, progress=False)

    assert asyncio.run(cell()) == swept[0]


def test_an_application_of_hydra_may_call(swept: losslab.Sweep) -> None:
    with initialize(version_base=None):
        running = GlobalHydra.instance().hydra
        assert losslab.train(FIRST, progress=False) == swept[0]
        assert GlobalHydra.instance().hydra is running


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: losslab.train(["los=focal"]), "'los'"),
        (lambda: losslab.train("loss=focal"), "a list of words"),
        (lambda: losslab.train([object()]), "loss._target_=my_losses.MyLoss"),  # type: ignore[list-item]
        (lambda: losslab.train(loss=ValueError()), "'loss._target_=my_module.ValueError'"),  # type: ignore[arg-type]
        (lambda: losslab.sweep(model=ValueError), "'model._target_=my_module.ValueError'"),  # type: ignore[arg-type]
        (lambda: losslab.train(["loss._target_=__main__.MyLoss"]), "put it into a .py file"),
        (lambda: losslab.train(["-m", "seed=1,2"]), "flag of the command line"),
        (lambda: losslab.train(["seed=1,2"]), "call losslab.sweep to run them all"),
        (lambda: losslab.sweep(["hydra/launcher=basic"]), "trains in the calling process"),
        (lambda: losslab.train([word for word in FIRST if "batch_size" not in word]), "yes=True"),
        (lambda: losslab.sweep([*FIRST, "loss=square", "data.path=nothing.txt"]), "nothing.txt"),
        (lambda: losslab.runs("nowhere"), "nowhere is not a folder"),
        (lambda: losslab.Run("outputs"), "not a run's folder"),
        (lambda: losslab.compare([]), "the list is empty"),
        (lambda: losslab.compare("outputs/swept", margin="0.01"), "margin must be a number, not '0.01'"),  # type: ignore[arg-type]
        (lambda: losslab.plan("outputs/swept", detect="0.01"), "detect must be a number, not '0.01'"),  # type: ignore[arg-type]
        (lambda: losslab.plan("outputs/swept", power=True), "power must be a number, not True"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], object], told: str, swept: losslab.Sweep) -> None:
    with pytest.raises(losslab.UserError) as caught:
        call()
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_failed_run_raises_alone_and_is_listed_in_a_sweep(swept: losslab.Sweep) -> None:
    words = [*TINY, "name=broken", "trainer.max_steps=40", "loss=square"]
    runs = losslab.sweep([*words, "loss._target_=losslab.losses.square.Square,api_losses.Breaks"], progress=False)
    assert [run.status for run in runs] == ["completed", "failed"]
    assert runs.failed == [runs[1]]
    with pytest.raises(losslab.RunFailed, match=r"failed: ZeroDivisionError: on purpose; see .*train\.log") as caught:
        losslab.train([*words, "loss._target_=api_losses.Breaks"], progress=False)
    assert caught.value.run == runs[1]
    assert "Traceback" in runs[1].log.read_text()
    assert runs[1].load("last").step > 0, "its classes are those that this program named"
    with pytest.raises(losslab.UserError, match=r"api_losses\.Breaks"):
        losslab.load(runs[1].folder, checkpoint="last")


def test_an_interrupted_run_is_saved_and_goes_on(swept: losslab.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "name=stopped", "trainer.max_steps=400", "trainer.val_check_interval=200"]
    words += ["checkpoints.every_n_steps=25", "trainer.log_every_n_steps=25"]
    folder = Path("outputs/stopped")

    def press() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if any(run.last.exists() for run in find_runs(folder)):
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        losslab.train(words)
    (run,) = losslab.runs(folder)
    assert f"stopped; the same call continues {run.folder} after step {run.record.step}" in capsys.readouterr().out
    assert run.status == "interrupted" and 0 < run.record.step < 400
    with pytest.raises(losslab.UserError, match=r"optimizer\.lr"):
        run.resume(["optimizer.lr=1"])
    assert run.status == "interrupted"
    assert run.resume(progress=False).status == "completed"
    assert run.record.step == 400


def test_a_stopped_sweep_raises_what_stopped_it(swept: losslab.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalSweep, "work", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        losslab.sweep(WORDS, progress=False)


def test_a_run_shows_its_record(swept: losslab.Sweep) -> None:
    run = swept[0]
    best = run.record.metrics["best"]
    assert run.metrics == best and run.config["seed"] == 1
    assert repr(run) == f"<Run {run.folder}: completed, step 8 of 8, test/nll_scaled {best['test/nll_scaled']:.4f}>"
    html = run._repr_html_()
    assert "completed, step 8 of 8" in html
    assert f"<td>nll_scaled</td><td>{best['val/nll_scaled']:.4f}</td><td>{best['test/nll_scaled']:.4f}</td>" in html


def test_a_history_is_a_table_with_and_without_pandas(swept: losslab.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    found = swept[0].history
    assert isinstance(found, pandas.DataFrame) and list(found["step"]) == [1, 2, 4, 6, 8]
    monkeypatch.setattr("losslab.api.tables.find_spec", lambda name: None)
    plain = swept[0].history
    assert plain["step"] == [1, 2, 4, 6, 8]
    assert plain["train/objective"] == list(found["train/objective"])
    assert isinstance(swept.compare().table, list)


def test_a_sweep_is_a_sequence(swept: losslab.Sweep) -> None:
    assert len(swept) == 4 and isinstance(swept[:2], losslab.Sweep) and list(swept[:2]) == [swept[0], swept[1]]
    assert [run.config["loss"]["_target_"].rpartition(".")[2] for run in swept] == ["CrossEntropy"] * 2 + ["Square"] * 2
    assert swept.folder == Path("outputs/swept") and swept.failed == []
    assert repr(swept[:3]) == "<Sweep of 3 runs: 3 completed>"
    assert swept._repr_html_().count("<td>completed</td>") == 4


def test_a_comparison_says_what_the_command_prints(swept: losslab.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    answer = losslab.compare("outputs/swept", where="seed=1,2")
    assert compare(Path("outputs/swept"), where=["seed=1,2"]) == 0
    printed = capsys.readouterr().out
    assert str(answer) == printed[: printed.index("written:")].strip()
    assert answer.verdicts == {"cross_entropy": "baseline", "square": "undecided"}
    assert swept.compare(where="seed=1,2", margin=1000.0).verdicts["square"].startswith("equivalent (within ±1000;")
    table = answer.table
    assert list(table["loss"]) == ["cross_entropy", "square"]
    assert table["mean"][1] - table["mean"][0] == pytest.approx(table["difference"][1])
    html = answer._repr_html_()
    assert "<b>Which final loss gives the smallest test/nll_scaled" in html and "undecided" in html


def test_figures_are_matplotlibs_and_the_report_is_written_when_it_is_asked_for(swept: losslab.Sweep) -> None:
    before = dict(matplotlib.rcParams)
    answer = swept[1:].compare()
    figures = answer.figures()
    assert "curves" in figures and isinstance(figures["curves"], matplotlib.figure.Figure)
    assert not answer._asked.target.exists()
    report = answer.report
    assert report.parent.name.startswith("comparison-runs=3-") and report.parent.parent == Path("outputs/swept")
    assert "only 3 of" in report.read_text(encoding="utf-8")
    assert dict(matplotlib.rcParams) == before


def test_runs_of_two_folders_are_not_compared(swept: losslab.Sweep, tmp_path: Path) -> None:
    with pytest.raises(losslab.UserError, match="within one folder"):
        losslab.compare([swept[0], tmp_path / "elsewhere" / "run"])


@pytest.mark.parametrize("path", [lambda run: run, lambda run: run.folder, lambda run: str(run.folder)])
def test_a_run_is_loaded(swept: losslab.Sweep, path: Callable[[losslab.Run], object]) -> None:
    loaded = losslab.load(path(swept[0]))  # type: ignore[arg-type]
    assert loaded.step == swept[0].metrics["step"]


def test_a_language_model_scores_predicts_and_writes(swept: losslab.Sweep) -> None:
    loaded = swept[0].load()
    log_probs = loaded.log_probs("the ca")
    assert torch.equal(log_probs, loaded.log_probs(loaded.encode("the ca"))) and log_probs.shape == (1, 7, 257)
    (told,) = loaded.predict(["the ca"])
    values, ids = log_probs[0, -1].exp().topk(5)
    assert [entry["id"] for entry in told["next"]] == ids.tolist()
    assert [entry["probability"] for entry in told["next"]] == pytest.approx(values.tolist(), rel=1e-4)
    text = loaded.generate("the ca", max_tokens=12, seed=4)
    assert text == loaded.generate("the ca", max_tokens=12, seed=4) != loaded.generate("the ca", max_tokens=12, seed=5)


def test_the_script_of_the_page_runs(
    swept: losslab.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    script = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert len([line for line in script.splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(make_text(), encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script, "python.md", "exec"), names)
    assert Path("curves.pdf").is_file()
    assert "runs: 3 completed, 1 skipped" in (printed := capsys.readouterr().out)
    assert "Which final loss gives the smallest test/nll_scaled" in printed and "'probability'" in printed
    assert isinstance(names["answer"], losslab.Comparison)


def test_the_doctor_starts_a_process_as_a_call_does(swept: losslab.Sweep) -> None:
    assert examine(Path("outputs"))["processes"] | {"seconds": 0} == {
        "method": "forkserver" if sys.platform == "linux" else "spawn", "works": True, "seconds": 0, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "word"),
    [({"seed": "auto"}, "'seed=auto'"), ({"max_seeds": 8}, "'max_seeds=8'"), ({"seed": range(1, 4)}, "'seed=1,2,3'")],
)
def test_a_value_by_keyword_is_shown_as_a_word(given: dict[str, Any], word: str) -> None:
    with pytest.raises(losslab.UserError, match=f"put it among the words, {word}$"):
        losslab.sweep(["loss=cross_entropy,square"], **given)
