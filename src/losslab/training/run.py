"""The one place where a run is assembled, trained, evaluated and noted."""

from __future__ import annotations

import logging
import os
import time
import traceback
from contextlib import nullcontext
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from losslab import console
from losslab.config.optimizer_groups import GROUPS
from losslab.config.streams import seed_of
from losslab.contracts import DataModule, Share, Task
from losslab.errors import Diverged, Interrupted, UserError, error_sentence
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder
from losslab.training.callbacks.bookkeeper import Bookkeeper
from losslab.training.callbacks.configured import averages_weights, build_callbacks, note_callbacks
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.callbacks.state import Intervals, RunState
from losslab.training.compute import set_threads
from losslab.training.ema import find_averages, with_averaged
from losslab.training.factory import build_network, open_data
from losslab.training.finishing import finish
from losslab.training.limits import Limits
from losslab.training.mixing import parts_of
from losslab.training.module import LossModule
from losslab.training.network import Network
from losslab.training.optimizers import make_optimizer, own_keys
from losslab.training.origins.branch import take_over
from losslab.training.origins.initial import begin_pretrained, begin_with
from losslab.training.origins.twin import make_twin
from losslab.training.output.checkpoints import ReadCheckpoint, is_whole, keep_newest, link, newest
from losslab.training.output.loggers import Loggers, placeholders
from losslab.training.output.logs import MetricsLog, Shown, metric_columns
from losslab.training.output.memory import keep_freed_memory, peak_memory_mib, reset_peak_memory
from losslab.training.output.messages import introduce, logging_to, note, positions_of, report
from losslab.training.output.progress import RunProgress
from losslab.training.penalties import penalty_names
from losslab.training.process.signals import StopFlag, postponed_signals
from losslab.training.profiling import named_anomalies, write_reports
from losslab.training.random import global_stream
from losslab.training.reduce import StepReducer
from losslab.training.schedules import make_scheduler
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.scoring.loading import PREFIX
from losslab.training.scoring.teacher import attach_teacher
from losslab.training.session_notes import note_end, note_start
from losslab.training.trainer import has_own_bar, make_trainer
from losslab.training.trial.start import try_own_parts

_log = logging.getLogger("losslab")


def execute(run: RunFolder, *, began: float | None = None) -> Record:
    """Train, or continue, the run that its folder describes (config.yaml, run.json), and evaluate it.

    Called in the process that does the work, once on each rank. Whatever happens is in the record that comes back;
    only bad input is raised. A run that another process has finished meanwhile stays as it is.

    Args:
        began: when this process started, by time.monotonic(); default: now.

    Raises:
        UserError: for bad input, and when another process holds the run.
    """
    began = time.monotonic() if began is None else began
    rank = int(os.environ.get("RANK", 0))
    if rank != 0:
        console.out.quiet = console.err.quiet = True
    with run.lock() if rank == 0 else nullcontext(), logging_to(run, rank):
        config = run.config()
        record = run.record()
        if record.status in DONE:
            return record
        record.status, record.error = "running", None
        loggers = Loggers(run, config, record)
        try:
            if rank == 0:
                run.write(record)  # a record like this without a lock means that the process died
            with global_stream(config["seed"], "run"):
                _train(run, config, record, rank, began, loggers)
            record.status = "completed"
        except Diverged as error:
            _log.error("%s", error)
            record.status, record.error = "diverged", str(error)
        except Interrupted as error:
            record.status, record.error = "interrupted", str(error)
        except KeyboardInterrupt:
            record.status, record.error = "interrupted", "stopped by a signal"
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # what Lightning makes of one outside our handler
                record.status, record.error = "interrupted", "stopped by a signal"
            else:
                _log.error("%s", traceback.format_exc())
                record.status, record.error = "failed", f"the code called sys.exit({error.code})"
        except UserError as error:
            record.status, record.error = "failed", str(error)
            raise
        except Exception as error:
            # A person's own loss, model or data may raise anything; the sweep goes on, the log keeps the traceback.
            _log.error("%s", traceback.format_exc())
            record.status, record.error = "failed", error_sentence(error)
        finally:
            if rank == 0:
                with postponed_signals():
                    note_end(run, record, loggers)
    return record


def _train(run: RunFolder, config: dict[str, Any], record: Record, rank: int, began: float, loggers: Loggers) -> None:
    settings = config["trainer"]
    ranks = settings["devices"] * settings["num_nodes"]
    set_threads(config, record)
    keep_freed_memory()
    reset_peak_memory()
    intervals = Intervals.of(config)
    take_over(run, config, record, rank=rank, intervals=intervals)
    state, resumed = _take_up(run, record, rank, keep=config["checkpoints"]["keep"])
    data = open_data(run, config)
    data.start_at(step=state.step, accumulate=settings["accumulate_grad_batches"], rank=rank, ranks=ranks)
    network = build_network(config, data.info)
    metrics = with_averaged(network.task.metrics, network.task.primary, config["callbacks"])
    record.declare(metrics, network.task.primary)
    attach_teacher(network, config, data.info)
    if resumed is not None:
        _check_fit(resumed, network)
    else:
        begin_pretrained(network, config, record)
        try_own_parts(config, network, data)
        begin_with(network, config, data.info, record, rank=rank)
        make_twin(network, config)
    stop = StopFlag()
    module = _build_module(config, network, data, ranks, intervals, stop)
    callbacks = build_callbacks(config, metrics, network.task.primary, run)
    writes = rank == 0
    shown_to = loggers.lightning if writes else placeholders(config)
    trainer = make_trainer(config, run.path, resumed, shown_to, list(callbacks.values()))
    device = trainer.strategy.root_device
    evaluator = Evaluator(
        network, data, device=device, rank=rank, ranks=ranks,
        interim_positions=settings["interim_eval_tokens"], limits=Limits.of(config, data.info),
        context=trainer.precision_plugin.val_step_context, convert=trainer.precision_plugin.convert_input,
        averages=find_averages(callbacks.values()),
    )  # fmt: skip
    log = None
    if writes:
        note_callbacks(record, callbacks, state.stopped)
        note_start(run, config, record, data, network, device, state.step)
        introduce(run, config, record, data, network, state.step)
        groups = config["optimizer"].get(GROUPS, {})
        terms = (*network.terms, *penalty_names(own_keys(config["optimizer"]) | {GROUPS: groups}))
        columns = metric_columns(record.metrics_info, module.hidden_gradients.names, terms, groups)
        total = state.stopped["step"] if state.stopped else intervals.total
        loggers.ends_at(total)
        log = MetricsLog(
            run,
            step=state.step - (state.due is not None),
            columns=columns,
            shown=Shown(record.primary_metric, record.names_shown("events"), total),
            loggers=loggers,
            of_callbacks=state.logged,
        )
    progress = RunProgress(
        first=state.step,
        total=intervals.total,
        positions_per_step=data.samples_per_step * data.info.mean_positions,
        positions=positions_of(network.task, data.info),
        metric=f"val/{record.primary}",
        enabled=writes and settings["enable_progress_bar"] and not has_own_bar(trainer.callbacks),  # type: ignore[attr-defined]
    )
    evaluator.work = progress.work
    keeper = RunCallback(
        run=run,
        state=state,
        intervals=intervals,
        evaluator=evaluator,
        primary=record.primary_metric,
        progress=progress,
        contents={"config": config, "data": data.info.stored()},
        keep=config["checkpoints"]["keep"],
        metrics_log=log,
        record=record if writes else None,
        callbacks=callbacks,
        before_fit=stop.install,
        began=began,
    )
    module.complete_checkpoint = keeper.complete
    trainer.callbacks = [Bookkeeper(keeper, seed=seed_of(config, "callbacks")), *trainer.callbacks, keeper]  # type: ignore[attr-defined]
    if settings["compile"]:
        network.compile_layers()
    if settings["activation_checkpointing"]:
        network.checkpoint_layers()
    try:
        with named_anomalies(trainer):
            _fit(trainer, module, data, resumed, stop, progress)
        averaged = averages_weights(callbacks.values())
        finish(run, module, evaluator, state, record, keep=config["checkpoints"]["keep"], averaged=averaged)
        if log is not None:
            log.finish(state.step, record.metrics)
    finally:
        if log is not None:
            log.close()
    record.memory["peak_mib"] = peak_memory_mib(device)
    report(record)


def _fit(
    trainer: pl.Trainer,
    module: LossModule,
    data: DataModule,
    checkpoint: ReadCheckpoint | None,
    stop: StopFlag,
    progress: RunProgress,
) -> None:
    try:
        path = None if checkpoint is None else checkpoint.path
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    except BaseException:  # a signal and Ctrl-C, too; raised again
        write_reports(trainer)  # Lightning does so at a run's end alone
        raise
    finally:
        stop.restore()
        progress.close()


def _take_up(run: RunFolder, record: Record, rank: int, *, keep: int) -> tuple[RunState, ReadCheckpoint | None]:
    """The newest checkpoint that loads, and its state of the run; files that a fault left beside it are mended."""
    found = newest(run)
    if found is None:
        return RunState(), None
    state = RunState.of(found.content, found.path)
    if rank == 0 and found.path == run.last:  # a kill may have come between its names
        keep_newest(run, state.step, keep)
        if state.best.get("step") == state.step:
            link(found.path, run.best)
    # Where a validation is due, it may be the best one by itself.
    lacking = state.due is None and state.best and state.best["step"] != state.step
    if lacking and not is_whole(run.best, state.best["step"]):
        note(f"the best checkpoint, of step {state.best['step']:.0f}, is lost; from here on the best one counts")
        record.provenance.setdefault("changes", []).append({"step": state.step, "lost_best": state.best["step"]})
        state.best = {}
    return state, found


def _check_fit(resumed: ReadCheckpoint, network: Network) -> None:
    """Refuse weights of another network before anything is trained or cut off."""
    saved = {name: value.shape for name, value in resumed.content["state_dict"].items()}
    own = {f"{PREFIX}{name}": value.shape for name, value in network.state_dict().items()}
    wrong = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    if wrong:
        raise UserError(f"{resumed.path} holds other weights than this run's network has ({wrong[0]}): move it away")


def _step_targets(task: Task, data: DataModule, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Target and weight of all positions of an optimizer step, counted from 0."""
    found = [task.flat_targets(part) for part in parts_of(data.batch_of(step, Share()))]
    return found[0] if len(found) == 1 else (torch.cat([t for t, _ in found]), torch.cat([w for _, w in found]))


def _build_module(
    config: dict[str, Any], network: Network, data: DataModule, ranks: int, intervals: Intervals, stop: StopFlag
) -> LossModule:
    settings = config["trainer"]
    reducer = StepReducer(
        nominal_weight=settings["micro_batch_size"] * data.info.mean_positions,
        accumulate=settings["accumulate_grad_batches"],
        ranks=ranks,
    )
    return LossModule(
        network=network,
        make_optimizer=global_stream(config["seed"], "optimizer")(
            # A fused optimizer would unscale the gradients of 16-mixed inside its step.
            partial(make_optimizer, config["optimizer"], fuse=settings["precision"] != "16-mixed")
        ),
        make_scheduler=global_stream(config["seed"], "scheduler")(
            partial(make_scheduler, config["scheduler"], max_steps=settings["max_steps"])
        ),
        dropout_seed=seed_of(config, "dropout"),
        loss_seed=seed_of(config, "loss"),
        reducer=reducer,
        gradient_clip_val=settings["gradient_clip_val"],
        is_logged=intervals.logged,
        stop_requested=stop,
        step_targets=partial(_step_targets, network.task, data) if network.reads_step else None,
    )
