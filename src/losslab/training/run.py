"""The one place where a run is assembled, trained, evaluated and noted."""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from losslab import console
from losslab.config.components import build, foreign_targets
from losslab.data.module import TextDataModule
from losslab.errors import Diverged, Interrupted, UserError
from losslab.losses.base import Loss
from losslab.records import Record, lock, now, read, read_config
from losslab.training.checkpoints import BEST, FOLDER, LAST, link, load_weights, read_state
from losslab.training.evaluation import LAST_FIT_POSITIONS, Evaluator
from losslab.training.keeper import Intervals, RunKeeper, RunState
from losslab.training.logs import MetricsLog, metric_columns, open_tensorboard
from losslab.training.messages import introduce, logging_to, quiet_lightning, report
from losslab.training.module import LossModule
from losslab.training.network import Network
from losslab.training.optimizers import parameter_groups
from losslab.training.progress import RunProgress
from losslab.training.provenance import hardware, hash_code, peak_memory_mib, reset_peak_memory, versions
from losslab.training.random import derive_seed, generator, hash_weights
from losslab.training.reduce import StepReducer
from losslab.training.signals import StopFlag
from losslab.training.trainer import make_trainer

CACHE = ".cache"

_DEFAULT_THREADS = torch.get_num_threads()

_log = logging.getLogger("losslab")


def execute(folder: Path) -> Record:
    """Train, or continue, the run that `folder` describes (config.yaml, run.json), and evaluate it.

    Called in the process that does the work, once on each rank. Whatever happens is in the record that comes back;
    only bad input is raised.

    Raises:
        UserError: for bad input, and when another process holds the run.
    """
    rank = int(os.environ.get("RANK", 0))
    console.out.quiet = rank != 0
    with lock(folder) if rank == 0 else nullcontext(), logging_to(folder, rank):
        config = read_config(folder)
        record = read(folder)
        record.status, record.error = "running", None
        try:
            _train(folder, config, record, rank)
            record.status = "completed"
        except Diverged as error:
            record.status, record.error = "diverged", str(error)
        except Interrupted as error:
            record.status, record.error = "interrupted", str(error)
        except KeyboardInterrupt:
            record.status, record.error = "interrupted", "stopped by a signal"
        except SystemExit:  # what Lightning makes of a Ctrl-C outside our handler, and rich of a closed pipe (| head)
            record.status, record.error = "interrupted", "stopped by a signal, or its output was closed"
        except UserError as error:
            record.status, record.error = "failed", str(error)
            raise
        except Exception as error:
            # A person's own loss, model or data may raise anything; the sweep goes on, the log keeps the traceback.
            _log.error("%s", traceback.format_exc())
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        finally:
            if rank == 0:
                record.write(folder)
    return record


def check_components(config: dict[str, Any]) -> None:
    """Construct everything once, on no device and without data, so that bad values are refused before any is read."""
    with torch.device("meta"):
        build(config["model"], "model", vocab_size=1)
    loss = build(config["loss"], "loss")
    if not isinstance(loss, Loss):
        raise UserError(f"loss: {type(loss).__name__} must derive from losslab.losses.base.Loss")
    build(config["task"], "task")
    build(config["scheduler"], "scheduler", max_steps=config["trainer"]["max_steps"])
    build(config["optimizer"], "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])
    if config["trainer"]["precision"] == "16-mixed" and config["optimizer"].get("fused"):
        # A fused optimizer unscales inside its step: norms and clipping would see gradients of the scaled loss.
        raise UserError("trainer.precision=16-mixed does not go with optimizer.fused=true; leave one out")
    with quiet_lightning():
        make_trainer(config, Path(config["output_dir"]), None)


def _train(folder: Path, config: dict[str, Any], record: Record, rank: int) -> None:
    settings = config["trainer"]
    ranks = settings["devices"] * settings["num_nodes"]
    # CPU results depend on the number of threads: a continued run uses the one it began with.
    torch.set_num_threads(settings["threads"] or record.hardware.get("threads") or _DEFAULT_THREADS)
    reset_peak_memory()
    state = _read_run_state(folder, rank)
    data = _prepare_data(folder, config, state.step, rank, ranks)
    network = _build_network(config, data)
    intervals = Intervals(
        total=settings["max_steps"],
        log=settings["log_every_n_steps"],
        validate=settings["val_check_interval"],
        checkpoint=config["checkpoints"]["every_n_steps"],
    )
    stop = StopFlag()
    module = _build_module(config, network, data, ranks, intervals, stop)
    writes = rank == 0
    tensorboard = open_tensorboard(folder, state.step) if writes and config["logger"]["enabled"] else None
    trainer = make_trainer(config, folder, tensorboard)
    device = trainer.strategy.root_device
    evaluator = Evaluator(
        network, data, device=device, rank=rank, ranks=ranks, context=trainer.precision_plugin.val_step_context
    )
    log = None
    if writes:
        _note_start(folder, config, record, data, network, device, ranks)
        introduce(folder, config, record, data, network, state.step)
        columns = metric_columns(module.hidden_gradients.names)
        log = MetricsLog(folder, step=state.step, columns=columns, tensorboard=tensorboard)
    progress = RunProgress(
        first=state.step,
        total=intervals.total,
        tokens_per_step=data.batch_size * data.context,
        enabled=writes and settings["enable_progress_bar"],
    )
    keeper = RunKeeper(
        folder=folder,
        state=state,
        intervals=intervals,
        evaluator=evaluator,
        progress=progress,
        config=config,
        metrics_log=log,
        record=record if writes else None,
        before_fit=stop.install,
    )
    trainer.callbacks.append(keeper)  # type: ignore[attr-defined]
    try:
        checkpoint = folder / FOLDER / LAST if state.step else None
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    finally:
        stop.restore()
        progress.close()
        if log is not None:
            log.close()
    _finish(folder, module, evaluator, state, record)
    record.memory["peak_mib"] = peak_memory_mib(device)
    report(record)


def _prepare_data(folder: Path, config: dict[str, Any], step: int, rank: int, ranks: int) -> TextDataModule:
    """The tokenised text, placed at the batch that follows `step`."""
    data: TextDataModule = build(config["data"], "data")
    data.prepare(folder.absolute().parents[1] / CACHE)
    data.start_at(
        seed=derive_seed(config["seed"], "data_order"),
        step=step,
        micro_batch_size=config["trainer"]["micro_batch_size"],
        accumulate=config["trainer"]["accumulate_grad_batches"],
        rank=rank,
        ranks=ranks,
    )
    return data


def _build_network(config: dict[str, Any], data: TextDataModule) -> Network:
    """The backbone draws from its own stream, before and independently of projection and loss."""
    seed = config["seed"]
    backbone = build(config["model"], "model", vocab_size=data.num_outputs, generator=generator(seed, "backbone_init"))
    loss: Loss = build(config["loss"], "loss")
    task = build(config["task"], "task")
    if loss.target_kind is not task.target_kind:
        raise UserError(f"loss wants {loss.target_kind.value} as targets, and the task has {task.target_kind.value}")
    return Network(
        backbone=backbone, loss=loss, task=task, num_outputs=data.num_outputs, head_init=generator(seed, "head_init")
    )


def _build_module(
    config: dict[str, Any], network: Network, data: TextDataModule, ranks: int, intervals: Intervals, stop: StopFlag
) -> LossModule:
    settings = config["trainer"]
    reducer = StepReducer(
        nominal_weight=settings["micro_batch_size"] * data.context,
        accumulate=settings["accumulate_grad_batches"],
        ranks=ranks,
    )
    return LossModule(
        network=network,
        make_optimizer=lambda net: build(config["optimizer"], "optimizer", params=parameter_groups(net)),
        schedule=build(config["scheduler"], "scheduler", max_steps=settings["max_steps"]),
        seed=config["seed"],
        reducer=reducer,
        gradient_clip_val=settings["gradient_clip_val"],
        is_logged=intervals.logged,
        stop_requested=stop,
    )


def _read_run_state(folder: Path, rank: int) -> RunState:
    checkpoints = folder / FOLDER
    saved = read_state(checkpoints / LAST)
    state = RunState(**saved) if saved else RunState()
    if rank == 0 and state.step and state.best.get("step") == state.step:
        link(checkpoints / LAST, checkpoints / BEST)  # a kill may have come between the two names
    return state


def _note_start(
    folder: Path,
    config: dict[str, Any],
    record: Record,
    data: TextDataModule,
    network: Network,
    device: torch.device,
    ranks: int,
) -> None:
    settings = config["trainer"]
    if "backbone_init" not in record.hashes:  # a continued run's weights are no longer the initial ones
        record.hashes["backbone_init"] = hash_weights(network.backbone)
    record.hashes["batches"] = data.hash_batches(derive_seed(config["seed"], "data_order"))
    record.hashes["tokenizer"] = data.cache.meta["tokenizer"]
    record.hashes["code"] = hash_code(foreign_targets(config))
    record.versions = versions()
    record.hardware = hardware(device, ranks) | {
        key: settings[key] for key in ("micro_batch_size", "accumulate_grad_batches", "precision")
    }
    record.max_steps = settings["max_steps"]
    record.timing.setdefault("started", now())
    record.write(folder)


def _finish(folder: Path, module: LossModule, evaluator: Evaluator, state: RunState, record: Record) -> None:
    """Test the last and the best weights, each with the temperature fitted on val at those weights."""
    module.to(evaluator.device)
    final = state.latest | evaluator.test(state.latest["val/scale"])
    best = dict(final) | {"step": state.step}
    if state.best["step"] != state.step:
        load_weights(folder / FOLDER / BEST, module)
        validated = evaluator.validate(most=LAST_FIT_POSITIONS)
        best = validated | evaluator.test(validated["val/scale"]) | {"step": state.best["step"]}
    record.step = state.step
    record.yardsticks = {"final": final, "best": best}
    record.timing["seconds"] = state.seconds
