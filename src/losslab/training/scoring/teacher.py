"""The run that a distillation loss learns from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.config.identity import HASHED_METRICS
from losslab.config.trust import allowed, foreign_targets, targets
from losslab.contracts import Batch, DataInfo, context_of
from losslab.data.tokenizer import FileTokenizer, tokenizer_of
from losslab.errors import UserError
from losslab.losses.execution import LinearMap
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.long_inputs import reader_of
from losslab.training.network import Network
from losslab.training.scoring.loading import load

KEY = "teacher"
_SIZES = {"vocab_size": "tokens in its vocabulary", "num_classes": "classes", "frame_width": "values in a vector"}
"""Facts of the data that decide the shapes of a network, which no artifact need tell."""


def teacher_hash(config: dict[str, Any], text: str | None = None) -> dict[str, str]:
    """`loss.teacher` → what stands for the teacher's weights in a run's identity: its own identity and its results.

    Args:
        text: the hash of the run's own text, where the run is new: from another text another tokenizer is trained.

    Raises:
        UserError: where the teacher is no completed run, or has another tokenizer.
    """
    run = _run(config)
    if run is None:
        return {}
    if not run.path.is_dir():
        raise UserError(f"loss.teacher={run} is not there: say where that run lies, loss.teacher=…")
    record = run.record()
    if record.status != "completed":
        raise UserError(f"loss.teacher={run} is {record.status}: a teacher must have completed its training")
    unknown = sorted(targets(run.config()) - allowed() - {*foreign_targets(config)})
    if unknown:
        raise UserError(
            f"loss.teacher={run} uses code outside losslab ({', '.join(unknown)}), which a teacher may only where "
            "the run that it teaches uses it too"
        )
    _check_tokenizer(run, record, config, text)
    return {f"loss.{KEY}": results_hash(record)}


def results_hash(record: Record) -> str:
    """SHA-256 of a teacher's identity and results. A metric that is added to a task later changes no student's
    identity: the language model's metrics count by their names of today, and of another task's the primary one alone.
    """
    names = {*HASHED_METRICS, record.primary}
    results = {
        part: {key: value for key, value in values.items() if key.rpartition("/")[2] in names}
        for part, values in record.metrics.items()
    }
    return hashlib.sha256(json.dumps([record.identity, results], sort_keys=True).encode()).hexdigest()


def _check_tokenizer(run: RunFolder, record: Record, config: dict[str, Any], text: str | None) -> None:
    """Refuse, before anything is claimed or tokenised, a teacher with another tokenizer than the run will have.

    A tokenizer that is yet to be trained is that of the same text, cut in the same way, with the same vocabulary.
    """
    own, stored = config["data"], run.config()["data"]
    choices = [str(data.get("tokenizer")) for data in (own, stored)]
    if {"bytes", "None"} & {*choices}:
        same = choices[0] == choices[1]
    elif choices[0] != "bpe":
        same = record.hashes.get("tokenizer") in (None, FileTokenizer.read(choices[0]).digest())
    elif choices[1] != "bpe":
        same = False
    else:
        same = own.get("vocab_size") == stored.get("vocab_size") and text in (None, record.hashes.get("data"))
    if not same:
        names = [_tokenizer_name(data) for data in (own, stored)]
        if names[0] == names[1]:
            names[0] = "those of a tokenizer trained on another text"
        raise UserError(
            f"loss.teacher={run} reads {names[1]}, and this run would read {names[0]}: give both runs the same "
            "data.tokenizer, such as the tokenizer.json that losslab export writes"
        )


def _tokenizer_name(data: dict[str, Any]) -> str:
    choice = str(data.get("tokenizer"))
    return {
        "None": "no text",
        "bytes": "bytes",
        "bpe": f"bpe tokens with data.vocab_size={data.get('vocab_size')}",
    }.get(choice, f"tokens of {choice}")


def attach_teacher(network: Network, config: dict[str, Any], info: DataInfo) -> None:
    """Give a network whose loss learns from a run that run's best weights; another network stays as it is.

    Raises:
        UserError: where the teacher cannot be loaded, or reads another vocabulary or shorter windows.
    """
    if not network.loss.reads_teacher:
        return
    run = _run(config)
    if run is None:
        raise UserError(f"loss.teacher is missing: {chosen('loss', network.loss)} learns from a run, name its folder")
    loaded = load(run.path, trust=foreign_targets(config))
    if loaded.info.artifacts != info.artifacts:
        reads_text = tokenizer_of(loaded.info.artifacts) is not None
        what = "vocabulary: give both runs the same data.tokenizer" if reads_text else "data: its artifacts differ"
        raise UserError(f"loss.teacher={run} reads another {what}")
    for name, what in _SIZES.items():
        own, others = getattr(info, name), getattr(loaded.info, name)
        if own != others:
            raise UserError(f"loss.teacher={run} was trained on data with {others} {what}, and this data has {own}")
    context = context_of(loaded.network.backbone)
    if context is not None and context < info.mean_positions:
        raise UserError(
            f"loss.teacher={run} reads {context} tokens at most, and data.context is {info.mean_positions:g}"
        )
    network.teacher = TeacherRun(loaded.network, info)


def _run(config: dict[str, Any]) -> RunFolder | None:
    folder = config["loss"].get(KEY)
    return RunFolder(Path(folder).expanduser()) if isinstance(folder, str) else None


class TeacherRun:
    """A frozen network, moved to whatever device asks.

    Args:
        network: in evaluation mode.
        info: of its data.
    """

    def __init__(self, network: Network, info: DataInfo) -> None:
        self.network = network.requires_grad_(False)
        self.info = info

    @torch.no_grad()
    def hidden(self, batch: Batch) -> Tensor:
        self.network.to(batch.target.device)
        kind = self.network.loss.target_kind
        body = reader_of(self.network.backbone, batch)  # type: ignore[arg-type]
        return self.network.task.features(body, batch, kind, {}).hidden

    @torch.no_grad()
    def log_probs(self, hidden: Tensor) -> Tensor:
        loss, projection = self.network.loss, self.network.projection
        bias = None if projection.bias is None else projection.bias.float()
        return loss.predict_log_probs(loss.scores(hidden.float(), LinearMap(projection.weight.float(), bias)))

    def flops_per_position(self) -> int | None:
        flops = self.network.flops_per_position(self.info, predicting=True)
        return None if flops is None else flops // 3  # a backward pass costs two forward ones
