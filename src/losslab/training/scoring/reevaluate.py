"""Evaluate a checkpoint again: on its own text, or on another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.records import EVALUATIONS, Record, now, plain
from losslab.training.output.messages import note
from losslab.training.output.provenance import hardware, versions
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.scoring.loading import Loaded
from losslab.training.scoring.reopen import reopen
from losslab.training.scoring.teacher import attach_teacher, teacher_hash


def reevaluate(
    folder: Path, *, checkpoint: str, split: str | None, overrides: list[str], trust: list[str]
) -> dict[str, Any]:
    """Score a checkpoint of the run in `folder`; returns the entry that `note_evaluation` keeps.

    On the run's own text the temperature of nll_scaled is fitted on val, as in training, and the metrics of a
    completed run come out again. On another text it is the run's, frozen.

    Args:
        checkpoint: `best`, `last`, or a path.
        split: `val` or `test`; None: test of the run's own text, or the whole of another.
        overrides: KEY=VALUE for reopen.CHANGEABLE.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a folder, checkpoint or text that cannot be evaluated.
    """
    opened = reopen(folder, checkpoint=checkpoint, overrides=overrides, trust=trust)
    record, loaded, config = opened.record, opened.loaded, opened.config
    if opened.own:
        data = opened.own_data()
    else:
        data = opened.data
        if not isinstance(data, TextDataModule):
            raise UserError(f"{type(data).__name__} cannot be evaluated on other data than its run's own")
        data.info = data.open_text(loaded.tokenizer, split)
    if record.hashes.get("teacher") not in (None, teacher_hash(config).get("loss.teacher")):
        raise UserError(f"loss.teacher={config['loss']['teacher']} is another run than the one that taught {folder}")
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
    return {
        "time": now(),
        "checkpoint": os.path.relpath(opened.path, folder),
        "step": loaded.step,
        "text": str(config["data"].get("path") or config["data"].get("corpus") or config["data"]["_target_"]),
        "text_sha256": opened.source,
        "own_text": opened.own,
        "part": (split or "test") if opened.own else (split or "the whole"),
        "files": data.told(),
        **about,
        "metrics": metrics,
        "versions": versions(),
        "hardware": hardware(opened.device, 1) | {"precision": config["trainer"]["precision"]},
    }


def note_evaluation(folder: Path, entry: dict[str, Any]) -> None:
    """Add an evaluation to evaluations.jsonl in the run's folder; one line each."""
    path = folder / EVALUATIONS
    before = path.read_bytes() if path.exists() else b""
    write_atomic(path, before + json.dumps(plain(entry)).encode() + b"\n")


def _score_own(evaluator: Evaluator, split: str | None) -> dict[str, float]:
    validated = evaluator.validate(thorough=True)
    return validated if split == "val" else evaluator.test(evaluator.calibration_of(validated))


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
