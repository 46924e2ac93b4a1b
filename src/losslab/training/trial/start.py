"""The cheap part of `losslab check`, of which `losslab train` tries a person's own parts before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import nn

from losslab.config.streams import SEEDS
from losslab.config.trust import allowed, targets
from losslab.contracts import Batch, DataInfo, DataModule, Share
from losslab.errors import Doubt, Fault, UserError
from losslab.training.factory import build_backbone
from losslab.training.network import Network
from losslab.training.output.messages import note
from losslab.training.random import generator, global_stream
from losslab.training.trial import data as data_trials
from losslab.training.trial import model as model_trials
from losslab.training.trial import pooling
from losslab.training.trial import task as task_trials
from losslab.training.trial import weights as weight_trials
from losslab.training.trial.documents import SEGMENTS, documents_apart
from losslab.training.trial.model import CannotRun, ModelTrial

_PARTS = ("data", "model", "task")
_SAMPLES = 2
_MOST = 2e9
"""Parameters times positions of a forward pass that takes a tenth of a second; of more, one pass is tried."""


def try_own_parts(config: dict[str, Any], network: Network, data: DataModule) -> None:
    """Try the model, data and task of a run that are not losslab's, every model on packed windows, and what stands for
    a text. Streams, weights and state stay what they are.

    Raises:
        UserError: for a part that breaks a promise; what may be meant is a note.
    """
    own = [part for part in _PARTS if targets({part: config[part]}) - allowed()]
    names = {part: config[part]["_target_"].rpartition(".")[2] for part in _PARTS}
    with global_stream(config["seed"], "trial"):
        batch = data.train_batch(0, Share())
        for part, trial in chain(_trials(config, network, data, own, batch), _of_texts(network, batch)):
            try:
                trial()
            except Doubt as doubt:
                note(f"{part}: {names[part]}: {doubt}")
            except CannotRun as fault:
                if config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available():
                    raise UserError(f"{part}: {names[part]}: {fault}") from None
                note(f"{part}: {names[part]} was not tried before training: on the CPU its {fault}")
                return
            except Fault as fault:
                raise UserError(f"{part}: {names[part]}: {fault}") from None


def _trials(
    config: dict[str, Any], network: Network, data: DataModule, own: list[str], batch: Batch
) -> Iterator[tuple[str, Callable[[], object]]]:
    if not own and SEGMENTS not in batch.inputs:
        return
    if "data" in own:
        yield "data", partial(data_trials.form, batch, "train_batch(0, …)")
        yield "data", partial(data_trials.repeats, data)
    batch = head(batch, _SAMPLES)
    trial = _trial(config, network, data.info, batch)
    if len(batch.weight) == _SAMPLES:
        yield "model", partial(documents_apart, trial, large=_is_large(network, batch))
    if not own:
        return
    yield "model", partial(model_trials.shape, trial)
    if network.passes is not None and "model" in own:
        yield "model", partial(model_trials.draws, trial)
    if "task" in own:
        yield (
            "task",
            partial(task_trials.features_of, network, data.info, batch, network.loss.target_kind, network.loss.needs),
        )
        if not network.loss.reads_teacher:
            yield "task", partial(_measure, network, data)
    if "model" in own and len(batch.weight) == _SAMPLES:
        if _is_large(network, batch):
            note("the model is large, and was tried with one pass: losslab check model tries it thoroughly")
            return
        checks = [weight_trials.seeds, model_trials.repeats, model_trials.batch_composition, model_trials.padding]
        checks += [model_trials.causal] if network.task.causal else []
        for check in (*checks, weight_trials.round_trip, weight_trials.gradients):
            yield "model", partial(check, trial)


def _of_texts(network: Network, batch: Batch) -> Iterator[tuple[str, Callable[[], object]]]:
    if (text := pooling.longest_text(batch)) is not None:
        yield "task", partial(pooling.reads_more_than_the_first, network, text)


def _is_large(network: Network, batch: Batch) -> bool:
    return sum(p.numel() for p in network.backbone.parameters()) * batch.weight.numel() > _MOST


def _trial(config: dict[str, Any], network: Network, info: DataInfo, batch: Batch) -> ModelTrial:
    def make(seed: int) -> nn.Module:
        if _is_large(network, batch):
            return network.backbone
        with torch.device("cpu"):
            other = {**config, "seed": seed, SEEDS: dict.fromkeys(config[SEEDS])}
            return build_backbone(other, info, generator(seed, "backbone_init"))

    return ModelTrial(
        make, batch, network.task, network.loss.target_kind, len(network.projection.weight), info.vocab_size
    )  # fmt: skip


def _measure(network: Network, data: DataModule) -> None:
    """A validation of a few samples. What an exception of a meter means for so few, nobody can say: a note."""
    fit, scored = (
        [head(batch, _SAMPLES) for batch in islice(data.eval_batches("val", Share(), subset, 1), 1)]
        for subset in ("fit", "all")
    )
    try:
        task_trials.meters(network, data.info, fit, scored)
    except Fault:
        raise
    except Exception as error:  # a person's meter may raise anything
        raise Doubt(f"a validation of {_SAMPLES} samples raises {type(error).__name__}: {error}") from error
    finally:
        network.train()


def head(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""
    inputs = {name: value[:count] for name, value in batch.inputs.items()}
    extras = {name: value[:count] for name, value in batch.extras.items()}
    return batch._replace(inputs=inputs, target=batch.target[:count], weight=batch.weight[:count], extras=extras)
