"""Each task of conf/task with each loss of conf/loss, in configurations whose runs take a tenth of a second; and their
evaluation by two ranks. Whether two of them fit is told by what they declare."""

from __future__ import annotations

import faulthandler
import functools
import json
import math
import os
import random
import shutil
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from stopped_runs import make_run, plain_checkpoint
from torch import distributed

from losslab.config.binding import bind_component, bind_components, import_target
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.config.paths import conf_dir
from losslab.config.schema import RegularizersConfig
from losslab.contracts import Share, Task
from losslab.losses.base import Loss
from losslab.run_folder import RunFolder
from losslab.training import run as training_run
from losslab.training import session_notes
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.factory import build_loss, build_task
from losslab.training.fitting import fits
from losslab.training.scoring.evaluator import Evaluator
from runs import make_text

STEPS, STOP = 10, 8
SECONDS = 240

COMMON = [
    "data.batch_size=4",
    "data.val_batch_size=16",
    "scheduler.warmup_steps=2",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    f"checkpoints.every_n_steps={STEPS}",
    "trainer.interim_eval_tokens=0",
    "trainer.log_every_n_steps=4",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "loggers=none",
]
MODEL = ["model.num_layers=1", "model.num_heads=2", "model.width=8", "model.context=16"]
WITHOUT_ROWS = {"copying": ["data.rows=64", "data.eval_rows=24", "data.length=4"]}
"""Settings of data that is called as its task."""
FURTHER = {"lm packed": ["task=lm", "data.packing=documents"]}

LOSS_SETTINGS: dict[str, dict[str, Any]] = {
    "adaptive_softmax": {"model.tie_embeddings": False},
    "coral": {"model.tie_embeddings": False},
    "sampled_softmax": {"loss.samples": 2},
    "hl_gauss": {"loss.num_bins": 8},
}
"""Loss → the keys that it needs, or that make it do on a few classes what it does on many."""
ORDERS = {"tags": ["I-X", "B-X", "O"]}
"""Kind of a column → an order of its classes, where they are no numbers."""
REGULARIZED, TEACHER = "regularized", "cross_entropy"
REGULARIZERS = {"z_loss": 1e-2, "confidence_penalty": 0.1, "mu_loss": 1e-2, "soft_cap": 5.0}
assert REGULARIZERS.keys() == {field.name for field in fields(RegularizersConfig)}


def task_rows() -> dict[str, list[str]]:
    """Name → overrides of each file in conf/task."""
    return {path.stem: [f"task={path.stem}"] for path in sorted((conf_dir() / "task").glob("*.yaml"))}


def further_rows() -> dict[str, list[str]]:
    """Name → overrides of each setting under which a task reads other columns, and of those in FURTHER."""
    rows: dict[str, list[str]] = {}
    for name, overrides in task_rows().items():
        node = yaml.safe_load((conf_dir() / f"task/{name}.yaml").read_text(encoding="utf-8"))
        kind = import_target(node.pop("_target_"), "task")
        hints = typing.get_type_hints(kind.__init__)
        for key, value in node.items():
            others = [not value] if isinstance(value, bool) else typing.get_args(hints[key])
            for other in others:
                if other != value and kind(**node | {key: other}).columns != kind(**node).columns:
                    rows[f"{name} {key}={other}"] = [*overrides, f"task.{key}={other}"]
    return rows | FURTHER


def loss_columns() -> dict[str, str]:
    """Name → file of each loss, and of one with all regularizers. The teacher of others stands first."""
    losses = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))
    return {name: name for name in sorted(losses, key=lambda name: name != TEACHER)} | {REGULARIZED: "cross_entropy"}


def _cell(kind: str, rng: random.Random) -> Any:
    count = rng.randint(2, 4)
    return {
        "text": " ".join(rng.choices(make_words(), k=count)),
        "words": rng.choices(make_words(), k=4),
        "label": str(rng.randint(1, 3)),
        "labels": rng.sample("abc", rng.randint(0, 3)),
        "tags": rng.choices(ORDERS["tags"], k=4),
        "value": rng.uniform(-1, 1),
        "values": [rng.uniform(-1, 1), rng.uniform(5, 9)],
    }[kind]


@functools.cache
def make_words() -> list[str]:
    return sorted({word.strip(".").lower() for word in make_text().split()})[:40]


def short_documents(count: int = 60) -> str:
    rng = random.Random(0)
    return "\n\n".join(" ".join(rng.choices(make_words(), k=rng.randint(5, 9))) for _ in range(count))


def make_rows(columns: Mapping[str, str], count: int = 120) -> str:
    rng = random.Random(0)
    return "\n".join(json.dumps({name: _cell(kind, rng) for name, kind in columns.items()}) for _ in range(count))


@dataclass(frozen=True)
class Pair:
    """One cell of the table."""

    row: str
    column: str
    task: Task
    loss: Loss
    config: dict[str, Any]
    folder: RunFolder

    @property
    def fits(self) -> bool:
        return fits(self.loss, self.task)


def make_pairs(place: Path, row: str) -> dict[str, Pair]:
    """Column → cell of a row; what its runs read is written below `place`."""
    base, task = _of_task(row, place)
    sweep = place / _name(row)
    found = {}
    for column, name in loss_columns().items():
        node = dict(_loss_node(name))
        config = {**base, "loss": node, "model": dict(base["model"])}
        orders = [ORDERS[kind] for kind in task.columns.values() if kind in ORDERS]
        if "order" in node and orders:
            node["order"] = orders[0]
        if "teacher" in node:
            node["teacher"] = str(sweep / TEACHER)
        for key, value in LOSS_SETTINGS.get(column, {}).items():
            group, _, last = key.partition(".")
            config[group][last] = value
        config["loss"] = bind_component("loss", node)
        if column == REGULARIZED:
            config["regularizers"] = dict(REGULARIZERS)
        found[column] = Pair(row, column, task, build_loss(config), config, RunFolder(sweep / column))
    return found


def _of_task(row: str, place: Path) -> tuple[dict[str, Any], Task]:
    """The configuration of a row but for its loss, and its task."""
    overrides = (task_rows() | further_rows())[row]
    task = build_task(compose_plain([*overrides]))
    path = place / _name(row)
    if task.of_stream:
        path = path.with_suffix(".txt")
        path.write_text(short_documents(), encoding="utf-8")
        data = ["data=text", f"data.path='{path}'", "data.tokenizer=bytes"]
    elif task.columns:
        path = path.with_suffix(".jsonl")
        path.write_text(make_rows(task.columns), encoding="utf-8")
        data = ["data=jsonl", f"data.path='{path}'", "data.tokenizer=bytes"]
    else:
        data = [f"data={row}", *WITHOUT_ROWS.get(row, [])]
    model = ["model=encoder"] if task.masks else []
    config = compose_plain([*overrides, *data, *model, *MODEL, *COMMON, f"output_dir='{place}'"])
    return resolve_split(resolve_budget(bind_components(check_run(config)))), task


def _name(row: str) -> str:
    return row.replace(" ", "-").replace("=", "-")


@functools.cache
def _loss_node(name: str) -> dict[str, Any]:
    return compose_plain([f"loss={name}"])["loss"]  # type: ignore[no-any-return]


@contextmanager
def cheaply() -> Iterator[None]:
    """Within, hundreds of runs leave out what each of them repeats: the hashes of all sources and of batches beyond
    its steps, and the wait for the disk."""
    versions, code = session_notes.versions(), session_notes.hash_code([])
    with ExitStack() as stack:
        for owner, name, value in [
            (session_notes, "versions", lambda: versions),
            (session_notes, "hash_code", lambda foreign: code),
            (session_notes, "_HASHED_BATCHES", 10),
            (os, "fsync", lambda descriptor: None),
        ]:
            stack.enter_context(patch.object(owner, name, value))
        yield


def train(run: RunFolder, config: dict[str, Any], *, stopped: bool) -> tuple[Evaluator, dict[str, float]]:
    """Train a run; returns its evaluator, which has the best weights, and their metrics.

    Args:
        stopped: keep the run's folder as it is after step STOP, too.
    """
    evaluators: list[Evaluator] = []
    finish, save = training_run.finish, RunCallback._save

    def finish_and_keep(run: RunFolder, module: Any, evaluator: Evaluator, *rest: Any, **options: Any) -> None:
        finish(run, module, evaluator, *rest, **options)
        evaluators.append(evaluator)

    def save_and_copy(self: RunCallback, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if self.state.step == STOP and self.record is not None:  # the rank that writes
            shutil.copytree(run.path, killed(run).path)

    every = {"every_n_steps": STOP if stopped else STEPS}
    if int(os.environ.get("RANK", 0)) == 0:
        make_run(run.path, config | {"checkpoints": config["checkpoints"] | every})
    if distributed.is_initialized():
        distributed.barrier()
    with patch.object(training_run, "finish", finish_and_keep), patch.object(RunCallback, "_save", save_and_copy):
        record = training_run.execute(run)
    assert record.status == "completed", record.error
    return evaluators[0], record.metrics["best"]


def killed(run: RunFolder) -> RunFolder:
    """The folder of a run as a kill after step STOP leaves it."""
    return RunFolder(run.path.with_name(f"{run.name}-killed"))


def ending(run: RunFolder) -> str:
    """All numbers of a run's end: NaN, too, is equal to itself here."""
    rows = run.metrics.read_text(encoding="utf-8")
    return repr([run.record().metrics, rows, plain_checkpoint(run.last)])


def numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Metrics of a record, which holds null for NaN and infinity, to compare with `approx`."""
    finite = {name: math.nan if value is None else value for name, value in metrics.items() if name != "step"}
    return {name: value if math.isfinite(value) else math.nan for name, value in finite.items()}


def evaluate_together(evaluators: dict[str, Evaluator], folder: Path) -> dict[str, dict[str, float]]:
    """Name → metrics on val and test of networks in memory, each evaluated by two processes."""
    on_two_ranks(_evaluate, evaluators, folder)
    return torch.load(folder / "metrics.pt", weights_only=True)  # type: ignore[no-any-return]


def _evaluate(rank: int, evaluators: dict[str, Evaluator], folder: Path) -> None:
    found = {}
    for name, evaluator in evaluators.items():
        evaluator.share = Share(rank, 2)
        validated = evaluator.validate(thorough=True)
        found[name] = validated | evaluator.test_after(validated)
    if rank == 0:
        torch.save(found, folder / "metrics.pt")


def train_together(runs: dict[RunFolder, dict[str, Any]], folder: Path) -> None:
    """Train runs of two devices and continue those that were killed, by the same two processes."""
    on_two_ranks(_train_and_continue, runs, folder)


def _train_and_continue(rank: int, runs: dict[RunFolder, dict[str, Any]], folder: Path) -> None:
    with cheaply():
        for run, config in runs.items():
            train(run, config, stopped=True)
            record = training_run.execute(killed(run))
            assert record.status == "completed", record.error


def on_two_ranks(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, *arguments)`, whose last is a folder of theirs, in two forks of this process."""
    forks = torch.multiprocessing.start_processes(
        _be_rank, args=(work, *arguments), nprocs=2, join=False, start_method="fork"
    )
    while not forks.join():  # an error of a rank is raised here
        pass


def _be_rank(rank: int, work: Callable[..., None], *arguments: Any) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "tests"}
    meeting = f"file://{arguments[-1]}/meeting"
    limit = timedelta(seconds=SECONDS)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    work(rank, *arguments)
    distributed.destroy_process_group()
