"""Evaluate a checkpoint again: on its own text, or on another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from losslab.config.check import bind_components
from losslab.config.components import build
from losslab.config.stored import moved_inputs, open_config, override
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.records import CHECKPOINTS, CONFIG, Record, now, read, read_config
from losslab.training.assemble import open_data
from losslab.training.evaluation import Evaluator
from losslab.training.loading import Loaded, find_checkpoint, rebuild
from losslab.training.messages import quiet_lightning
from losslab.training.provenance import hardware, versions
from losslab.training.run import set_threads
from losslab.training.teacher import attach_teacher, teacher_hash
from losslab.training.trainer import make_trainer

EVALUATIONS = "evaluations.jsonl"
CHANGEABLE = (
    "data.path",
    "data.tokenizer",
    "data.documents",
    "data.val_batch_size",
    "trainer.accelerator",
    "trainer.threads",
)


def reevaluate(
    folder: Path, *, checkpoint: str, split: str | None, overrides: list[str], trust: list[str]
) -> dict[str, Any]:
    """Score a checkpoint of the run in `folder`; returns the entry that `note_evaluation` keeps.

    On the run's own text the temperature of nll_scaled is fitted on val, as in training, and the yardsticks of a
    completed run come out again. On another text it is the run's, frozen.

    Args:
        checkpoint: `best`, `last`, or a path.
        split: `val` or `test`; None: test of the run's own text, or the whole of another.
        overrides: KEY=VALUE for CHANGEABLE.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a folder, checkpoint or text that cannot be evaluated.
    """
    record = read(folder)
    stored = open_config(read_config(folder), trust, folder / CONFIG)
    path = find_checkpoint(folder, checkpoint)
    loaded = rebuild(path, trust)
    config = loaded.config
    if of_run := path.resolve().parent == (folder / CHECKPOINTS).resolve():
        # Where the text lies may have been told anew since this checkpoint was written.
        inputs = {key: stored["data"].get(key) for key in ("path", "tokenizer")}
        config = {**config, "data": config["data"] | inputs}
    config = moved_inputs(config, folder, record.provenance.get("folder"), overrides)
    changeable = (*CHANGEABLE, *(["loss.teacher"] if "teacher" in config["loss"] else []))
    config = bind_components(open_config(override(config, overrides, changeable), trust, path))
    settings = config["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    set_threads(config, record)
    with quiet_lightning():
        trainer = make_trainer({**config, "trainer": settings}, folder)
    device = trainer.strategy.root_device
    data: TextDataModule = build(config["data"], "data")
    source = data.source_hash()
    own = source == record.hashes.get("data")
    if own and config["data"]["documents"] != loaded.config["data"]["documents"]:
        raise UserError("data.documents cannot be changed for the run's own text: train would leak into val and test")
    if own:
        data = open_data(folder, config)
        if data.tokenizer().digest() != loaded.tokenizer.digest():
            raise UserError(f"the tokenizer of {path} is not the one that its text gives now; put that back")
    else:
        data.open_text(loaded.tokenizer, split)
    if record.hashes.get("teacher") not in (None, teacher_hash(config).get("loss.teacher")):
        raise UserError(f"loss.teacher={config['loss']['teacher']} is another run than the one that taught {folder}")
    attach_teacher(loaded.network, config, data)
    evaluator = Evaluator(
        loaded.network.to(device), data, device=device, context=trainer.precision_plugin.val_step_context
    )
    yardsticks = (
        _score_own(evaluator, split) if own else evaluator.text(_frozen_scale(record if of_run else None, loaded))
    )
    return {
        "time": now(),
        "checkpoint": os.path.relpath(path, folder),
        "step": loaded.step,
        "text": str(config["data"]["path"] or config["data"]["corpus"]),
        "text_sha256": source,
        "own_text": own,
        "part": (split or "test") if own else (split or "the whole"),
        "documents": config["data"]["documents"],
        "yardsticks": yardsticks,
        "versions": versions(),
        "hardware": hardware(device, 1) | {"precision": settings["precision"]},
    }


def note_evaluation(folder: Path, entry: dict[str, Any]) -> None:
    """Add an evaluation to evaluations.jsonl in the run's folder; one line each."""
    path = folder / EVALUATIONS
    before = path.read_bytes() if path.exists() else b""
    write_atomic(path, before + json.dumps(entry).encode() + b"\n")


def _score_own(evaluator: Evaluator, split: str | None) -> dict[str, float]:
    validated = evaluator.validate(thorough=True)
    return validated if split == "val" else evaluator.test(validated["val/scale"])


def _frozen_scale(record: Record | None, loaded: Loaded) -> float:
    """The scale that the run's results at this step were scored with, or else the one of its last validation."""
    if record is None:  # a checkpoint of another run
        return loaded.scale
    best, final = (record.yardsticks.get(part, {}) for part in ("best", "final"))
    if best.get("step") == loaded.step and "test/nll" in best:
        return best["val/scale"]
    if record.step == loaded.step and "test/nll" in final:
        return final["val/scale"]
    return loaded.scale
