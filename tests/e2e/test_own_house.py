"""A person's own model, data and tasks, from a folder of their own, with every promise that ours have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import own_house
import pytest
import stopped_runs
import torch
import yaml
from stopped_runs import SECONDS, STEPS, STOPS, make_run, remains
from stopped_runs import train as train_run

import losslab
from losslab.commands.compare import compare
from losslab.commands.evaluate import evaluate
from losslab.commands.export import export
from losslab.commands.train import train
from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.records import read
from runs import find_runs, only_run

TASKS = {
    "regression": ("Regression", "mse,huber,gaussian_nll", "kind: sum", "last: true"),
    "tagging": ("Tagging", "cross_entropy,focal,brier", "kind: tags", "last: false"),
}
"""Name → class, losses, settings of data and model."""
OPTIONS = [
    "model=mine",
    "data=mine",
    "scheduler.warmup_steps=2",
    "optimizer.lr=0.03",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=3",
    "trainer.val_check_interval=5",
    "checkpoints.every_n_steps=4",
    "trainer.threads=1",
    "trainer.enable_progress_bar=false",
]
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true"]
LOSS = {"regression": "mse", "tagging": "focal"}
BASELINE = {"regression": "mse", "tagging": "cross_entropy"}
PRIMARY = {"regression": "rmse", "tagging": "top1"}
TRUST = [f"own_house.{name}" for name in ("MyLSTM", "MyData", "Regression", "Tagging")]
ANSWER = {
    "regression": "Which final loss gives the smallest test/rmse (root mean squared error, cm)?",
    "tagging": "Which final loss gives the largest test/top1 (top-1 accuracy)?",
}


@pytest.fixture(params=list(TASKS))
def task(request: pytest.FixtureRequest, workplace: Path) -> str:
    """The name of a task, whose parts have yaml files in the folder conf."""
    name: str = request.param
    kind, _, data, model = TASKS[name]
    nodes = {
        f"task/my_{name}": f"_target_: own_house.{kind}\n",
        "model/mine": f"_target_: own_house.MyLSTM\nwidth: 16\n{model}\ndropout: 0.1\n",
        "data/mine": f"_target_: own_house.MyData\nbatch_size: 8\n{data}\n",
    }
    for path, text in nodes.items():
        (workplace / f"conf/{path}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (workplace / f"conf/{path}.yaml").write_text(text)
    return name


def config_of(task: str, *arguments: str) -> dict[str, Any]:
    """The configuration that `start` would store."""
    composed = compose_plain([*OPTIONS, f"task=my_{task}", f"loss={LOSS[task]}", *arguments], config_dir=Path("conf"))
    return resolve_split(resolve_budget(bind_components(check_run(composed))))


def test_a_multirun_trains_and_is_evaluated_exported_loaded_and_compared(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = TASKS[task][1]
    words = ["-m", "--config-dir", "conf", *OPTIONS, f"task=my_{task}", f"loss={losses}", "seed=1,2", "name=mine"]
    assert train(words) == 0
    runs = find_runs(Path("outputs/mine"))
    records = [read(run) for run in runs]
    primary = f"test/{PRIMARY[task]}"
    assert {record.status for record in records} == {"completed"}
    for seed in ("seed1", "seed2"):
        alike = [record for run, record in zip(runs, records, strict=True) if seed in run.name]
        assert len(alike) == 3
        assert len({(record.hashes["backbone_init"], record.hashes["batches"]) for record in alike}) == 1
    run, record = runs[0], records[0]
    assert evaluate(run, checkpoint="best", split=None, overrides=[], trust=TRUST) == 0
    entry = yaml.safe_load((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert entry["metrics"][primary] == record.metrics["best"][primary]
    assert export(run, checkpoint="best", output=None, trust=TRUST) == 0
    exported, loaded = losslab.load(run / "export", trust=TRUST), losslab.load(run, trust=TRUST)
    assert exported.info.artifacts == loaded.info.artifacts
    assert ("labels.json" in loaded.info.artifacts) == (run / "export/labels.json").is_file() == (task == "tagging")
    frames = {"frames": torch.randn(3, own_house.LENGTH, 2)}
    assert torch.equal(exported.network.backbone(frames), loaded.network.backbone(frames))
    capsys.readouterr()
    assert compare(Path("outputs/mine"), baseline=BASELINE[task]) == 0
    (summary,) = (path.read_text() for path in Path("outputs/mine").glob("comparison*/summary.md"))
    assert ANSWER[task] in summary
    printed = capsys.readouterr().out
    assert "nll_scaled" not in printed and ("top1" in printed) == (task == "tagging")


def test_a_run_that_is_stopped_goes_on_bit_for_bit(task: str, tmp_path: Path) -> None:
    config = config_of(task)
    for name in ("undisturbed", "stopped"):
        make_run(tmp_path / "runs" / name, config)
    train_run(tmp_path / "runs/undisturbed")
    before = 0
    for step in (3, 7):
        train_run(tmp_path / "runs/stopped", after=before, stop_in=step)
        before = step
    train_run(tmp_path / "runs/stopped", after=before)
    assert remains(tmp_path / "runs/stopped") == remains(tmp_path / "runs/undisturbed")


def test_two_ranks_stopped_at_any_step_end_as_the_undisturbed_ones(task: str, tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(config_of(task, *RANKS)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, stopped_runs.__file__, str(folder)], capture_output=True, text=True, timeout=SECONDS + 60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    expected = remains(folder / f"{task}/0")
    for step in STOPS[task]:
        assert remains(folder / f"{task}/{step}") == expected, step


def test_two_ranks_score_as_one_does(task: str) -> None:
    words = ["--config-dir", "conf", *OPTIONS, f"task=my_{task}", f"loss={LOSS[task]}", "model.dropout=0.0"]
    assert train([*words, "name=one"]) == train([*words, "name=two", *RANKS]) == 0
    one, two = (only_run(Path("outputs") / name)[1] for name in ("one", "two"))
    assert two.metrics["final"] == pytest.approx(one.metrics["final"], rel=1e-4)
