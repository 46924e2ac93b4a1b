"""Open a run again to score one of its checkpoints: weights, configuration, text and device, all of them checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from losslab.config.binding import bind_components
from losslab.config.stored import INPUTS, moved_inputs, open_config, override
from losslab.contracts import DataModule
from losslab.errors import UserError
from losslab.records import CHECKPOINTS, CONFIG, Record, read, read_config
from losslab.training.factory import build_data, hash_inputs, open_data
from losslab.training.output.messages import quiet_lightning
from losslab.training.run import set_threads
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.scoring.loading import Loaded, find_checkpoint, rebuild
from losslab.training.trainer import make_trainer

CHANGEABLE = (
    "data.path",
    "data.val_path",
    "data.test_path",
    "data.tokenizer",
    "data.documents",
    "data.separator",
    "data.val_batch_size",
    "trainer.accelerator",
    "trainer.threads",
)
_OF_ANOTHER_TEXT = {"val_path": None, "test_path": None, "rules": 2}


@dataclass(frozen=True)
class Reopened:
    """A checkpoint, and the text that it is to be scored on, not yet opened."""

    folder: Path
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
        data = open_data(self.folder, self.config)
        if data.info.artifacts != self.loaded.info.artifacts:
            raise UserError(f"the tokenizer of {self.path} is not the one that its text gives now; put that back")
        return data

    def evaluator(self, data: DataModule) -> Evaluator:
        """Moves the network to the device."""
        return Evaluator(self.loaded.network.to(self.device), data, device=self.device, context=self.context)


def _placed(config: dict[str, Any], folder: Path, made_at: str | None, overrides: list[str]) -> dict[str, Any]:
    """The configuration with its inputs where they lie now; of another text the run's own val and test are none."""
    try:
        return moved_inputs(config, folder, made_at, overrides)
    except UserError:
        if not _names_a_text(overrides):
            raise
        return moved_inputs(_for_another_text(config), folder, made_at, overrides)


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


def reopen(folder: Path, *, checkpoint: str, overrides: list[str], trust: list[str]) -> Reopened:
    """Rebuild what a checkpoint of the run in `folder` holds.

    Args:
        checkpoint: `best`, `last`, or a path.
        overrides: KEY=VALUE for CHANGEABLE.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a folder or checkpoint that cannot be opened, or a text that is not where it was.
    """
    record = read(folder)
    stored = open_config(read_config(folder), trust, folder / CONFIG)
    path = find_checkpoint(folder, checkpoint)
    loaded = rebuild(path, trust)
    config = loaded.config
    if of_run := path.resolve().parent == (folder / CHECKPOINTS).resolve():
        # The path of the text may have been changed since this checkpoint was written.
        inputs = {key: stored["data"].get(key) for name in INPUTS if (key := name.rpartition(".")[2]) in config["data"]}
        config = {**config, "data": config["data"] | inputs}
    config = _placed(config, folder, record.provenance.get("folder"), overrides)
    changeable = (*CHANGEABLE, *(["loss.teacher"] if "teacher" in config["loss"] else []))
    config = bind_components(open_config(override(config, overrides, changeable), trust, path))
    settings = config["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    config = {**config, "trainer": settings}
    set_threads(config, record)
    with quiet_lightning():
        trainer = make_trainer(config, folder)
    data = build_data(config)
    if _names_a_text(overrides) and source_of(config, data) != record.hashes.get("data"):
        config = _for_another_text(config)
        data = build_data(config)
    return Reopened(
        folder=folder,
        record=record,
        path=path,
        of_run=of_run,
        loaded=loaded,
        config=config,
        data=data,
        source=source_of(config, data),
        device=trainer.strategy.root_device,
        context=trainer.precision_plugin.val_step_context,
    )
