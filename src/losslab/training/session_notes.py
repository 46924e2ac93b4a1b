"""The record at the beginning and at the end of a session of training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from losslab.config.stored import LOGGERS
from losslab.config.trust import foreign_components
from losslab.contracts import DataModule
from losslab.errors import UserError, error_sentence
from losslab.records import Record, now
from losslab.run_folder import RunFolder
from losslab.training.network import Network
from losslab.training.output.loggers import Loggers
from losslab.training.output.logs import Shown
from losslab.training.output.messages import note, positions_of
from losslab.training.output.provenance import hardware, hash_code, versions
from losslab.training.scoring.teacher import teacher_hash

_HASHED_BATCHES = 50


def note_start(
    run: RunFolder,
    config: dict[str, Any],
    record: Record,
    data: DataModule,
    network: Network,
    device: torch.device,
    step: int,
) -> None:
    """Record what a session begins with: hashes, versions, hardware, sizes.

    Args:
        step: optimizer steps done before this session.

    Raises:
        UserError: where batches, artifacts or teacher are not those that the run began with.
    """
    settings = config["trainer"]
    code = hash_code(foreign_components(config))
    began = {name: record.hashes.get(name) for name in code}
    if step and (began, record.versions) != (code, versions()):
        note(f"the code or a package has changed since this run began; run.json says what it was up to step {step}")
        change = {"step": step, **began, "versions": record.versions}
        record.provenance.setdefault("changes", []).append(change)
    batches = min(_HASHED_BATCHES, data.repeats_after or _HASHED_BATCHES)
    hashes = {"batches": data.hash_batches(batches)} | data.artifact_hashes()
    hashes |= {key.rpartition(".")[2]: digest for key, digest in teacher_hash(config).items()}
    for name, value in hashes.items():
        if step and record.hashes.get(name) not in (None, value):
            raise UserError(f"the {name} of {run} are not those it began with; train it again, under another name=…")
    if "backbone_init" not in record.hashes:  # a continued run's weights are no longer the initial ones
        record.hashes |= network.hash_start()
    record.hashes |= hashes | code
    record.versions = versions()
    record.hardware = hardware(device, settings["devices"] * settings["num_nodes"]) | {
        key: settings[key] for key in ("micro_batch_size", "accumulate_grad_batches", "precision", "strategy")
    }
    record.provenance["text"] = data.summary()
    record.throughput["flops_per_token"] = network.flops_per_position(data.info)  # type: ignore[assignment]
    record.provenance |= network.sizes(data.info)
    record.provenance["positions_per_sample"] = data.info.mean_positions
    record.provenance["positions"] = positions_of(network.task, data.info)
    if data.samples_per_step != data.batch_size:
        record.provenance["samples_per_step"] = data.samples_per_step
    record.max_steps = settings["max_steps"]
    record.timing.setdefault("started", now())
    run.write(record)


def note_end(run: RunFolder, record: Record, loggers: Loggers) -> None:
    """Record how a session ended, and let the loggers know."""
    _write(run, record)
    lost = len(str(record.provenance.get(LOGGERS)))
    if not loggers.has_begun and record.status in ("failed", "diverged") and record.metrics_info:
        step = record.step
        shown = Shown(record.primary_metric, record.names_shown("events"), record.max_steps)
        loggers.begin(partial(shown.history, run.metrics), step=step, metrics=shown.names, trains=False)
    loggers.close(record.status)
    if len(str(record.provenance.get(LOGGERS))) != lost:
        _write(run, record)


def _write(run: RunFolder, record: Record) -> None:
    try:
        run.write(record)
    except OSError as error:
        # The run ends here either way; its last record still stands, and its lock is free, so that it counts as over.
        record.status, record.error = "failed", record.error or error_sentence(error)
