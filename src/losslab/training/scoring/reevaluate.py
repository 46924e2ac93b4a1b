"""`losslab evaluate`: score a checkpoint of a run again, on its own text or on another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from losslab.config.binding import bind_components
from losslab.config.stored import INPUTS, moved_inputs, open_config, override, with_inputs_of
from losslab.contracts import Batch, DataModule
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.records import Record, now, plain
from losslab.run_folder import RunFolder
from losslab.training.compute import first_device, input_converter, precision_context, set_determinism, set_threads
from losslab.training.factory import build_data, build_task, hash_inputs, open_data
from losslab.training.limits import Limits
from losslab.training.output.messages import note
from losslab.training.output.progress import shown_work
from losslab.training.output.provenance import hardware, versions
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.scoring.loading import Loaded, find_checkpoint, rebuild
from losslab.training.scoring.teacher import attach_teacher, teacher_hash

CHANGEABLE = (
    *INPUTS,
    "data.documents",
    "data.separator",
    "data.eval_stride",
    "data.val_batch_size",
    "trainer.accelerator",
    "trainer.threads",
)
_OF_ANOTHER_TEXT = {"val_path": None, "test_path": None, "rules": 2}


def reevaluate(
    run: RunFolder, *, checkpoint: str, split: str | None, overrides: list[str], trust: list[str]
) -> dict[str, Any]:
    """Score a checkpoint of a run; returns the entry that `note_evaluation` keeps.

    On the run's own text the temperature of nll_scaled is fitted on val, as in training, and the metrics of a
    completed run come out again. On another text it is the run's, frozen.

    Args:
        checkpoint: `best`, `last`, or a path.
        split: `val` or `test`; None: test of the run's own text, or the whole of another.
        overrides: KEY=VALUE for CHANGEABLE.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a folder, checkpoint or text that cannot be evaluated.
    """
    opened = reopen(run, checkpoint=checkpoint, overrides=overrides, trust=trust)
    record, loaded, config = opened.record, opened.loaded, opened.config
    if opened.own:
        data = opened.own_data()
    else:
        data = opened.data
        if not isinstance(data, TextDataModule):
            raise UserError(f"{type(data).__name__} cannot be evaluated on other data than its run's own")
        data.info = data.open_text(loaded.network.task, loaded.tokenizer, split)
    if record.hashes.get("teacher") not in (None, teacher_hash(config).get("loss.teacher")):
        raise UserError(f"loss.teacher={config['loss']['teacher']} is another run than the one that taught {run}")
    attach_teacher(loaded.network, config, loaded.info)
    evaluator = opened.evaluator(data)
    about = {}
    if isinstance(data, TextDataModule):
        lossless = data.round_trip.lossless
        words = data.count_words((split or "test") if opened.own else "text")
        about = {"documents": config["data"]["documents"], "words": words, "tokenizer_lossless": lossless}
        if not lossless:
            note(data.round_trip.told(str(config["data"]["tokenizer"])))
    if opened.own:
        metrics = _score_own(evaluator, split)
    else:
        metrics = evaluator.text({"scale": _frozen_scale(record if opened.of_run else None, loaded)})
    task = build_task(config)
    task.bind(replace(loaded.info, references=evaluator.info.references))
    signatures = {metric.name: metric.signature for metric in task.metrics if metric.signature}
    return {
        "time": now(),
        "checkpoint": os.path.relpath(opened.path, run),
        "step": loaded.step,
        "text": _named(opened),
        "text_sha256": opened.source,
        "own_text": opened.own and not opened.changed,
        "part": (split or "test") if opened.own else (split or "the whole"),
        "files": data.told(),
        "eval_stride": config["data"].get("eval_stride"),
        **about,
        "metrics": metrics,
        **({"signatures": signatures} if signatures else {}),
        "versions": versions(),
        "hardware": hardware(opened.device, 1) | {"precision": config["trainer"]["precision"]},
    }


def _named(opened: Reopened) -> str:
    """The text that was scored, for people."""
    data = opened.config["data"]
    if opened.own and opened.changed:
        return ", ".join(f"{key}={data[key.removeprefix('data.')]}" for key in opened.changed)
    found = [data.get(key) for key in ("path", "source", "corpus")]
    return next((value for value in found if isinstance(value, str) and value), str(data["_target_"]))


def note_evaluation(run: RunFolder, entry: dict[str, Any]) -> None:
    """Add an evaluation to evaluations.jsonl in the run's folder; one line each."""
    path = run.evaluations
    before = path.read_bytes() if path.exists() else b""
    write_atomic(path, before + json.dumps(plain(entry)).encode() + b"\n")


@dataclass(frozen=True)
class Reopened:
    """A checkpoint, and the text that it is to be scored on, not yet opened."""

    run: RunFolder
    record: Record
    path: Path
    """The checkpoint."""
    of_run: bool
    """The checkpoint lies in the run's own folder."""
    loaded: Loaded
    config: dict[str, Any]
    """The checkpoint's, with what was changed for this evaluation."""
    data: DataModule
    source: str
    """SHA-256 of the text."""
    device: torch.device
    context: Callable[[], AbstractContextManager[object]]
    """Autocast or nothing, as in training."""
    convert: Callable[[Batch], Batch]
    """The cast of inputs, as in training."""
    changed: tuple[str, ...]
    """The keys of val and test files that are others than in training, while train is the run's own."""

    @property
    def own(self) -> bool:
        """The text is the one that the run was made from."""
        return self.source == self.record.hashes.get("data")

    def own_data(self) -> DataModule:
        """The run's own text, out of its cache. Raises UserError where it is cut or tokenised otherwise by now."""
        for key in ("documents", "separator"):
            if self.config["data"].get(key) != self.loaded.config["data"].get(key):
                raise UserError(
                    f"data.{key} cannot be changed for the run's own text: train would leak into val and test"
                )
        data = open_data(self.run, self.config)
        if data.info.artifacts != self.loaded.info.artifacts:
            if self.changed:
                raise UserError(
                    f"with another {' and '.join(self.changed)}, train is not what the run was trained on: its val and "
                    "test were cut out of the same files. Give new rows to losslab predict or losslab translate, or "
                    "train with files of their own for val and test"
                )
            raise UserError(f"the tokenizer of {self.path} is not the one that its text gives now; put that back")
        return data

    def evaluator(self, data: DataModule) -> Evaluator:
        """Moves the network to the device."""
        network = self.loaded.network.to(self.device)
        limits = Limits.of(self.config, data.info) if self.own else None
        return Evaluator(
            network, data, device=self.device, limits=limits, context=self.context, convert=self.convert,
            work=shown_work,
        )  # fmt: skip


def reopen(run: RunFolder, *, checkpoint: str, overrides: list[str], trust: list[str]) -> Reopened:
    """Rebuild what a checkpoint of a run holds, and find its text and the device to score it on.

    Args:
        checkpoint: `best`, `last`, or a path.
        overrides: KEY=VALUE for CHANGEABLE.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a folder or checkpoint that cannot be opened, or a text that is not where it was.
    """
    record = run.record()
    stored = open_config(run.config(), trust, run.config_file)
    path = find_checkpoint(run, checkpoint)
    loaded = rebuild(path, trust)
    config = loaded.config
    if of_run := path.resolve().parent == run.checkpoints.resolve():
        config = with_inputs_of(stored, config)
    config = _placed(config, run, record.provenance.get("folder"), overrides)
    changeable = (*CHANGEABLE, *(["loss.teacher"] if "teacher" in config["loss"] else []))
    config = bind_components(open_config(override(config, overrides, changeable), trust, path))
    settings = config["trainer"]
    device = first_device(settings["accelerator"])
    set_threads(config, record)
    set_determinism(settings["deterministic"])
    data = build_data(config)
    if _names_a_text(overrides) and source_of(config, data) != record.hashes.get("data"):
        config = _for_another_text(config)
        data = build_data(config)
    return Reopened(
        run=run,
        record=record,
        path=path,
        of_run=of_run,
        loaded=loaded,
        config=config,
        data=data,
        source=source_of(config, data),
        changed=_changed(overrides, loaded.config, config, data),
        device=device,
        context=precision_context(settings["precision"], device),
        convert=input_converter(settings["precision"], device),
    )


def _changed(
    overrides: list[str], trained: dict[str, Any], config: dict[str, Any], data: DataModule
) -> tuple[str, ...]:
    """The inputs among the overrides that are others than in training; the first is `source`."""
    given = {key for text in overrides if (key := text.partition("=")[0]) in INPUTS}
    if not given:
        return ()
    now_there = hash_inputs(config, data)
    first = next((key for key in now_there if key.startswith("data.")), "")
    try:
        before = hash_inputs(trained, build_data(trained))
    except UserError:  # the files of training are no longer there
        before = {}
    return tuple(sorted(key for key in given - {first} if now_there.get(key) != before.get(key)))


def _score_own(evaluator: Evaluator, split: str | None) -> dict[str, float]:
    return evaluator.validate(thorough=True) if split == "val" else evaluator.test(evaluator.calibrate())


def _frozen_scale(record: Record | None, loaded: Loaded) -> float:
    """The scale that the run's results at this step were scored with, or else the one of its last validation."""
    if record is None:  # a checkpoint of another run
        return loaded.scale
    best, final = (record.metrics.get(part, {}) for part in ("best", "final"))
    if best.get("step") == loaded.step and "test/nll" in best:
        return best["val/scale"]
    if record.step == loaded.step and "test/nll" in final:
        return final["val/scale"]
    return loaded.scale


def _placed(config: dict[str, Any], run: RunFolder, made_at: str | None, overrides: list[str]) -> dict[str, Any]:
    """The configuration with its inputs where they lie now; of another text the run's own val and test are none."""
    try:
        return moved_inputs(config, run.path, made_at, overrides)
    except UserError:
        if not _names_a_text(overrides):
            raise
        return moved_inputs(_for_another_text(config), run.path, made_at, overrides)


def _names_a_text(overrides: list[str]) -> bool:
    """One, and no val or test to go with it."""
    given = {text.partition("=")[0] for text in overrides}
    return "data.path" in given and given.isdisjoint({"data.val_path", "data.test_path"})


def _for_another_text(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the splits that the run was given, and cut by today's rules."""
    new = {key: value for key, value in _OF_ANOTHER_TEXT.items() if key in config["data"]}
    return {**config, "data": config["data"] | new}


def source_of(config: dict[str, Any], data: DataModule) -> str:
    """SHA-256 of the first input of the data."""
    return next((value for key, value in hash_inputs(config, data).items() if key.startswith("data.")), "")
