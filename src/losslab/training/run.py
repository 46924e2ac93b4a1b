"""The one place where a run is assembled, trained, evaluated and noted."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from losslab import console
from losslab.config.components import build, foreign_targets
from losslab.data.module import TextDataModule
from losslab.errors import Diverged, Interrupted, UserError
from losslab.losses.base import Loss
from losslab.records import Record, lock, now, read
from losslab.training.checkpoints import BEST, FOLDER, LAST, AtomicCheckpointIO, link, load_weights, read_state
from losslab.training.evaluation import LAST_FIT_POSITIONS, Evaluator
from losslab.training.keeper import Intervals, RunKeeper, RunState
from losslab.training.logs import MetricsLog, open_tensorboard
from losslab.training.module import LossModule
from losslab.training.network import Network
from losslab.training.optimizers import parameter_groups
from losslab.training.progress import RunProgress
from losslab.training.provenance import hardware, hash_code, peak_memory_mib, versions
from losslab.training.random import derive_seed, generator, hash_weights
from losslab.training.reduce import StepReducer
from losslab.training.signals import StopFlag

CONFIG = "config.yaml"
LOG = "train.log"
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
    with lock(folder) if rank == 0 else nullcontext(), _logging(folder, rank):
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        record = read(folder)
        record.status, record.error = "running", None
        try:
            _train(folder, config, record, rank)
            record.status = "completed"
        except Diverged as error:
            record.status, record.error = "diverged", str(error)
        except (Interrupted, KeyboardInterrupt, SystemExit) as error:
            # Lightning turns a Ctrl-C outside our handler into SystemExit.
            record.status, record.error = "interrupted", str(error) or "stopped by a signal"
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
    build(config["loss"], "loss")
    build(config["task"], "task")
    build(config["scheduler"], "scheduler", max_steps=config["trainer"]["max_steps"])
    build(config["optimizer"], "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])
    with _quiet_lightning():
        make_trainer(config, Path(config["output_dir"]), None)


def _train(folder: Path, config: dict[str, Any], record: Record, rank: int) -> None:
    settings = config["trainer"]
    ranks = settings["devices"] * settings["num_nodes"]
    _set_threads(settings, record)
    data: TextDataModule = build(config["data"], "data")
    data.prepare(folder.absolute().parents[1] / CACHE)
    network = _build_network(config, data)
    state = _read_run_state(folder, rank)
    reducer = StepReducer(
        nominal_weight=settings["micro_batch_size"] * data.context,
        accumulate=settings["accumulate_grad_batches"],
        ranks=ranks,
    )
    data.start_at(
        seed=derive_seed(config["seed"], "data_order"),
        step=state.step,
        micro_batch_size=settings["micro_batch_size"],
        accumulate=settings["accumulate_grad_batches"],
        rank=rank,
        ranks=ranks,
    )
    intervals = Intervals(
        total=settings["max_steps"],
        log=settings["log_every_n_steps"],
        validate=settings["val_check_interval"],
        checkpoint=config["checkpoints"]["every_n_steps"],
    )
    stop = StopFlag()
    module = LossModule(
        network=network,
        make_optimizer=lambda net: build(config["optimizer"], "optimizer", params=parameter_groups(net)),
        schedule=build(config["scheduler"], "scheduler", max_steps=settings["max_steps"]),
        seed=config["seed"],
        reducer=reducer,
        gradient_clip_val=settings["gradient_clip_val"],
        is_logged=intervals.logged,
        stop_requested=stop,
    )
    writes = rank == 0
    tensorboard = open_tensorboard(folder, state.step) if writes and config["logger"]["enabled"] else None
    trainer = make_trainer(config, folder, tensorboard)
    device = trainer.strategy.root_device
    evaluator = Evaluator(
        network, data, device=device, rank=rank, ranks=ranks, context=trainer.precision_plugin.val_step_context
    )
    if writes:
        _note_start(folder, config, record, data, network, device, ranks)
        _introduce(folder, config, record, data, network, state)
    log = MetricsLog(folder, step=state.step, columns=_columns(module), tensorboard=tensorboard) if writes else None
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
    _report(record)


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


def _read_run_state(folder: Path, rank: int) -> RunState:
    checkpoints = folder / FOLDER
    saved = read_state(checkpoints / LAST)
    state = RunState(**saved) if saved else RunState()
    if rank == 0 and state.step and state.best.get("step") == state.step:
        link(checkpoints / LAST, checkpoints / BEST)  # a kill may have come between the two names
    return state


def _set_threads(settings: dict[str, Any], record: Record) -> None:
    """CPU results depend on the number of threads: a continued run uses the one it began with."""
    torch.set_num_threads(settings["threads"] or record.hardware.get("threads") or _DEFAULT_THREADS)


def make_trainer(config: dict[str, Any], folder: Path, logger: Any) -> pl.Trainer:
    """One endless epoch in optimizer steps; validation, checkpoints, bar and logs are the keeper's."""
    settings = config["trainer"]
    try:
        return pl.Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=settings["strategy"],
            precision=settings["precision"],
            deterministic=settings["deterministic"],
            max_steps=settings["max_steps"],
            max_epochs=-1,
            accumulate_grad_batches=settings["accumulate_grad_batches"],
            log_every_n_steps=settings["log_every_n_steps"],
            logger=logger or False,
            plugins=[AtomicCheckpointIO()],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            enable_autolog_hparams=False,
            default_root_dir=folder,
        )
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise UserError(f"the trainer refuses its settings: {' '.join(str(error).split())}") from None


def _columns(module: LossModule) -> list[str]:
    norms = ["all", *module.hidden_gradients.names]
    yardsticks = [
        "nll",
        "nll_scaled",
        "nll_linked",
        "nll_linked_clipped",
        "perplexity",
        "bits_per_byte",
        "top1",
        "objective",
        "scale",
        "unigram_nll",
    ]
    return [
        "train/objective",
        "train/lr",
        "train/tokens",
        *(f"grad_norm/{name}" for name in norms),
        *(f"val/{name}" for name in yardsticks),
    ]


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


def _introduce(
    folder: Path, config: dict[str, Any], record: Record, data: TextDataModule, network: Network, state: RunState
) -> None:
    settings, meta = config["trainer"], data.cache.meta
    parameters = sum(p.numel() for p in network.parameters())
    tokens = " · ".join(f"{meta['tokens'][split]:,} {split}" for split in ("train", "val", "test"))
    console.say(f"run    {folder}" + (f" (continues after step {state.step})" if state.step else ""))
    console.say(f"model  {parameters:,} parameters, {network.flops_per_token() / 1e6:,.2f} MFLOP per trained token")
    console.say(f"data   {tokens} tokens, vocabulary {data.num_outputs:,}")
    console.say(
        f"train  {settings['max_steps']:,} steps of {data.batch_size} × {data.context} tokens "
        f"on {record.hardware['ranks']} {record.hardware['device']} ({record.hardware['threads']} threads), "
        f"{settings['precision']}"
    )


def _finish(folder: Path, module: LossModule, evaluator: Evaluator, state: RunState, record: Record) -> None:
    """Test the last and the best weights, each with the temperature fitted on val at those weights."""
    module.to(evaluator.device)
    final = state.latest | evaluator.test(state.latest["val/scale"])
    best = dict(final) | {"step": float(state.step)}
    if state.best["step"] != state.step:
        load_weights(folder / FOLDER / BEST, module)
        validated = evaluator.validate(most=LAST_FIT_POSITIONS)
        best = validated | evaluator.test(validated["val/scale"]) | {"step": state.best["step"]}
    record.step = state.step
    record.yardsticks = {"final": final, "best": best}
    record.timing["seconds"] = state.seconds


def _report(record: Record) -> None:
    """The yardsticks of the best checkpoint, val beside test, as a person reads them."""
    best = record.yardsticks["best"]
    console.say(
        f"best checkpoint: step {best['step']:.0f} of {record.step}, in {record.timing['seconds']:.0f} s of training"
    )
    console.say(f"{'':<16}{'val':>12}{'test':>12}")
    for name in ["nll", "nll_scaled", "nll_linked", "perplexity", "bits_per_byte", "top1", "unigram_nll", "objective"]:
        if f"val/{name}" in best:
            console.say(f"{name:<16}{best[f'val/{name}']:>12.4f}{best[f'test/{name}']:>12.4f}")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No banners about devices and tips on the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


@contextmanager
def _logging(folder: Path, rank: int) -> Iterator[None]:
    """Lightning's messages and all warnings go to train.log, beside our own; the terminal shows what a person needs."""
    if rank != 0:
        with _quiet_lightning():  # rank 0 keeps the messages
            yield
        return
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(n) for n in ("losslab", "lightning.pytorch", "lightning.fabric", "py.warnings")]
    saved = [(log, log.handlers, log.propagate, log.level) for log in loggers]
    for log in loggers:
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        logging.captureWarnings(False)
        for log, handlers, propagate, level in saved:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        handler.close()
