"""Lightning's Trainer, as every run uses it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment  # type: ignore[attr-defined]
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger, Logger

from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.training.compute import inputs_alone
from losslab.training.output.checkpoints import AtomicCheckpointIO, ReadCheckpoint
from losslab.training.profiling import make_profiler
from losslab.training.sharding import ShardedStrategy


def make_trainer(
    config: dict[str, Any],
    folder: Path,
    resumed: ReadCheckpoint | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """One endless epoch in optimizer steps; validation, checkpoints, bar and logs are the callback's, and limits the
    data's.

    Args:
        resumed: the checkpoint that training goes on from.
        loggers: those that callbacks find.
        callbacks: those of the configuration.
    """
    settings = config["trainer"]
    steps = settings["max_steps"] - (0 if resumed is None else resumed.content["losslab"]["step"])
    batches = steps * settings["accumulate_grad_batches"]
    profiler = make_profiler(settings["profiler"], RunFolder(folder).profile, batches)
    try:
        trainer = pl.Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=_strategy(settings),
            precision=settings["precision"],
            deterministic=settings["deterministic"],
            max_steps=settings["max_steps"],
            max_epochs=-1,
            accumulate_grad_batches=settings["accumulate_grad_batches"],
            log_every_n_steps=settings["log_every_n_steps"],
            logger=list(loggers) or [DummyLogger()],  # several of Lightning's callbacks refuse to work without one
            callbacks=list(callbacks),
            plugins=[AtomicCheckpointIO(resumed), _environment()],
            check_val_every_n_epoch=None,  # with 1, EarlyStopping would wait for the end of the one epoch
            val_check_interval=settings["val_check_interval"] * settings["accumulate_grad_batches"],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=has_own_bar(callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
            profiler=profiler,
            detect_anomaly=settings["detect_anomaly"],
            enable_autolog_hparams=False,
            default_root_dir=folder,
        )
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        said = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise UserError(f"the trainer refuses its settings: {said}") from None
    plugin = trainer.precision_plugin
    plugin.convert_input = inputs_alone(plugin)  # type: ignore[method-assign, assignment]
    return trainer


def has_own_bar(callbacks: Sequence[pl.Callback]) -> bool:
    """Whether a progress bar is among the callbacks, which then stands instead of losslab's."""
    return any(isinstance(callback, ProgressBar) for callback in callbacks)


def _environment() -> ClusterEnvironment:
    """An explicit environment: inside a SLURM allocation Lightning would count its tasks instead of our ranks."""
    return TorchElasticEnvironment() if "RANK" in os.environ else LightningEnvironment()


def _strategy(settings: dict[str, Any]) -> Any:
    """The name of one of Lightning's strategies, or FSDP2."""
    if settings["strategy"] != "fsdp":
        return settings["strategy"]
    return ShardedStrategy(settings["devices"] * settings["num_nodes"])
