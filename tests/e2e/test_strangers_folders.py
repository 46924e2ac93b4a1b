"""Files beside and inside a folder that somebody sent are neither run, written through, nor removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from losslab.commands.clean import clean
from losslab.commands.evaluate import evaluate
from losslab.commands.export import export
from losslab.commands.resume import resume
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.records import read
from losslab.training.output.checkpoints import read_checkpoint
from losslab.training.process.worker import main as worker
from runs import BETTER_EARLY, TINY, only_run, stopping_after


def score(run: Path, *overrides: str, checkpoint: str = "best", split: str | None = None) -> int:
    return evaluate(run, checkpoint=checkpoint, split=split, overrides=list(overrides), trust=[])


@pytest.fixture
def stopped(run_tiny: Callable[..., int]) -> Callable[..., Path]:
    """A run that was stopped after a step."""

    def make(step: int, *arguments: str) -> Path:
        with stopping_after(step):
            assert run_tiny(*arguments) == 1
        return only_run(Path("outputs/runs"))[0]

    return make


@pytest.mark.parametrize("name", ["train.log", "evaluations.jsonl", "export", "checkpoints", ".lock", "metrics.csv"])
def test_a_link_inside_a_run_s_folder_is_refused(stopped: Callable[..., Path], name: str) -> None:
    run = stopped(4)
    mine = Path("mine")
    mine.mkdir()
    (mine / "last.ckpt").write_text("precious")
    (mine / "file").write_text("precious")
    entry = run / name
    if entry.is_dir():
        shutil.rmtree(entry)
    entry.unlink(missing_ok=True)
    entry.symlink_to((mine if name in ("export", "checkpoints") else mine / "file").absolute())
    for command in (
        lambda: resume(run, [], []),
        lambda: score(run),
        lambda: export(run, checkpoint="best", output=None, trust=[]),
    ):
        with pytest.raises(UserError, match="symbolic link"):
            command()
    assert worker([str(run / "config.yaml")]) == 2
    assert clean(Path("outputs"), checkpoints=True, cache=True, dry_run=False) == 2
    assert [path.read_text() for path in sorted(mine.iterdir())] == ["precious", "precious"]


def test_clean_leaves_other_programs_caches_and_what_is_being_built(run_tiny: Callable[..., int]) -> None:
    assert run_tiny() == 0
    theirs = [Path(".cache/huggingface/model"), Path(".cache/.theirs.tmp/x"), Path("outputs/.cache/notes/x")]
    for path in theirs:
        path.mkdir(parents=True)
    (key,) = (path.name for path in Path("outputs/.cache").iterdir() if path.is_dir() and len(path.name) == 20)
    building = Path(f"outputs/.cache/.{key}.abc.tmp")
    building.mkdir()
    with FileLock(f"outputs/.cache/{key}.lock"):
        assert clean(Path("outputs"), checkpoints=False, cache=True, dry_run=False) == 0
        assert building.is_dir() and Path(f"outputs/.cache/{key}").is_dir()
    assert clean(Path("outputs/runs"), checkpoints=False, cache=True, dry_run=False) == 0
    assert not building.exists() and not Path(f"outputs/.cache/{key}").exists()
    assert all(path.is_dir() for path in theirs)


def test_a_lost_best_checkpoint_does_not_keep_a_run_from_its_end(
    stopped: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(9, *BETTER_EARLY)
    best = run / "checkpoints/best.ckpt"
    assert read_checkpoint(best)["losslab"]["step"] == 3
    best.write_bytes(best.read_bytes()[:1000])
    assert resume(run, [], []) == 0
    assert "of step 3, is lost" in capsys.readouterr().err
    record = read(run)
    assert record.status == "completed"
    assert record.metrics["best"]["step"] == 9
    assert record.provenance["changes"] == [{"step": 9, "lost_best": 3}]


NUMPY_SCHEDULE = """
import numpy as np

class Table:
    def __init__(self, *, max_steps: int):
        self.table = np.linspace(1, 0, max_steps + 1)

    def __call__(self, step: int) -> float:
        return float(self.table[step])
"""
NUMPY_OPTIMIZER = """
import numpy as np
import torch

class Noted(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["note"] = np.linspace(0, 1, 3)
        return super().step(closure)
"""


def test_a_schedule_s_own_objects_stay_out_of_checkpoints(run_tiny: Callable[..., int]) -> None:
    Path("tables.py").write_text(NUMPY_SCHEDULE)
    Path("conf/scheduler").mkdir(parents=True)
    Path("conf/scheduler/table.yaml").write_text("_target_: tables.Table\n")
    start = [option for option in TINY if not option.startswith("scheduler.")]
    assert train([*start, "--config-dir", "conf", "scheduler=table"]) == 0
    run, _ = only_run(Path("outputs/runs"))
    assert read_checkpoint(run / "checkpoints/last.ckpt")["lr_schedulers"][0]["lr_lambdas"] == [None, None]


def test_a_state_that_could_not_be_read_back_ends_the_run_at_its_first_checkpoint(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("noted.py").write_text(NUMPY_OPTIMIZER)
    own = ["optimizer._target_=noted.Noted", "~optimizer.betas", "~optimizer.eps"]
    assert run_tiny(*own) == 2
    told = capsys.readouterr().err
    assert "could not be continued from" in told and "numpy" in told


def test_evaluate_mixes_up_neither_parts_nor_runs(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("name=a", "loss=square") == 0
    assert run_tiny("name=b", "loss=square", "seed=2") == 0
    (a, one), (b, two) = only_run(Path("outputs/a")), only_run(Path("outputs/b"))
    with pytest.raises(UserError, match="train would leak"):
        score(a, "data.documents=block")
    Path("other.txt").write_text(Path("book.txt").read_text()[:3000])

    def scale_of(run: Path, checkpoint: str) -> float:
        assert score(run, "data.path=other.txt", checkpoint=checkpoint) == 0
        entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
        assert (entry["part"], entry["documents"], entry["own_text"]) == ("the whole", "auto", False)
        scale: float = entry["metrics"]["text/scale"]
        return scale

    assert scale_of(a, "best") == one.metrics["best"]["val/scale"]
    assert scale_of(b, "best") == two.metrics["best"]["val/scale"]
    assert scale_of(a, str(b / "checkpoints/best.ckpt")) == two.metrics["best"]["val/scale"]


def test_a_run_on_the_built_in_corpus_is_evaluated_on_a_text(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from losslab.data import python_docs

    texts = [f"{i} {part}" for i, part in enumerate(Path("book.txt").read_text().split("\n\n"))]
    monkeypatch.setattr(python_docs, "read_texts", lambda: texts)
    assert run_tiny("data=python_docs", "data.path=null") == 0
    run, _ = only_run(Path("outputs/runs"))
    assert score(run, "data.path=book.txt") == 0


def test_a_run_that_moves_twice_with_its_text_finds_it(stopped: Callable[..., Path]) -> None:
    run = stopped(4, "trainer.max_steps=12")
    name = run.name

    def move(source: str, target: str) -> Path:
        place = Path(target) / "outputs/runs" / name
        place.parent.mkdir(parents=True)
        (Path(source) / "outputs/runs" / name).rename(place)
        (Path(source) / "book.txt").rename(Path(target) / "book.txt")
        return place

    second = move(".", "b")
    state = torch.load(second / "checkpoints/last.ckpt", weights_only=True)["losslab"]
    assert state["step"] == 4
    assert resume(second, [], []) == 0
    assert score(move("b", "c")) == 0
