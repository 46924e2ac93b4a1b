"""Trials of a model on a few samples, on the CPU. Each returns what it saw, or raises a Fault with the likely cause."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from losslab.choices import chosen
from losslab.contracts import OF_SOURCE, Batch, TargetKind, Task, cache_of, mixes_samples
from losslab.errors import Doubt, Fault, UserError, error_sentence
from losslab.training.random import global_stream

_SAME = 1e-5
"""Largest difference between equal hidden states, relative to the largest of them: other roundings, no other inputs."""
_SMALLEST = 1e-6
_OPENED = 0.1
_MASKS = ("mask", "source_mask")
_BESIDE = frozenset({"mask", "segments"}) | OF_SOURCE
"""Inputs that no target is read off, whatever their shape."""
_WRAP = "; it gets a dict of named inputs: wrap a module of ids in losslab.models.adapters.HiddenStatesAdapter"


class CannotRun(Fault):
    """The forward pass raised an exception of its own."""


class ModelTrial(NamedTuple):
    """A model on trial."""

    make: Callable[[int], nn.Module]
    """Seed → a fresh model on the CPU."""
    batch: Batch
    """A few samples, two or more."""
    task: Task
    kind: TargetKind
    """Kind of targets of the loss."""
    num_outputs: int
    """V, as task and loss want it."""
    vocab_size: int | None

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self.batch.inputs

    def fresh(self, seed: int = 1) -> nn.Module:
        """A model whose gates are open: a parameter that begins as one constant (0, or a LayerScale of 1e-6) hides
        what is behind it, and gets some noise."""
        model = self.make(seed)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if bool((parameter == parameter.flatten()[:1]).all()):
                    parameter.add_(_OPENED * torch.randn(parameter.shape, generator=noise).to(parameter.dtype))
        return model


def run(model: nn.Module, inputs: Mapping[str, Tensor], *, train: bool = False, draw: int = 0) -> Tensor:
    """Hidden states of a copy of the model, whose state no forward pass changes; the global generators are seeded."""
    with global_stream(draw, "trial"), torch.no_grad():
        return forward(_copied(model).train(train), inputs)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception:  # a model may hold what cannot be copied
        return model


@contextmanager
def evaluating(trial: ModelTrial) -> Iterator[nn.Module]:
    """A model in evaluation mode; afterwards it is in the mode in which it was."""
    model = trial.make(1)
    training = model.training
    try:
        with global_stream(0, "trial"), torch.no_grad():
            yield model.eval()
    finally:
        model.train(training)


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Call the model as a task does. Raises Fault for an input that there is not, or that is written to."""
    given = {name: value.clone() for name, value in inputs.items()}
    try:
        hidden = model(given)
    except KeyError as error:
        if error.args and error.args[0] not in given:
            raise Fault(
                f"forward reads the input {error.args[0]!r}, and this data and task give {', '.join(sorted(inputs))}"
            ) from None
        raise CannotRun(f"forward raises {error_sentence(error)}") from error
    except UserError as error:
        raise Fault(str(error)) from None
    except Exception as error:  # a person's model may raise anything
        hint = _WRAP if isinstance(error, (TypeError, AttributeError)) and "dict" in str(error) else ""
        raise CannotRun(f"forward raises {error_sentence(error)}{hint}") from error
    if not isinstance(hidden, Tensor):
        raise Fault(f"forward returns a {type(hidden).__name__}, not the tensor of hidden states [B, T, D] or [B, D]")
    changed = [name for name in inputs if name not in given or not torch.equal(given[name], inputs[name])]
    if changed:
        raise Fault(f"forward changes its input {changed[0]!r} in place, which others read after it: clone() it first")
    return hidden


def draws(trial: ModelTrial) -> str:
    """R-Drop compares two passes, in which something must be drawn: from torch's global generator, or so that the
    hidden states differ."""
    model = _copied(trial.make(1)).train()
    with global_stream(0, "trial"), torch.no_grad():
        before = torch.get_rng_state()
        first = forward(model, trial.inputs)
        if not torch.equal(before, torch.get_rng_state()) or not torch.equal(first, forward(model, trial.inputs)):
            return "two passes over a batch differ in training"
    raise Fault(
        "two passes over a batch are the same in training, and trainer.r_drop compares them: give it dropout, or leave "
        "out trainer.r_drop"
    )


def shape(trial: ModelTrial) -> str:
    """The other trials need this one."""
    with evaluating(trial) as model:
        hidden = forward(model, trial.inputs)
        _check_hidden(trial, model, hidden)
        _selects(trial, model)
    return f"{list(hidden.shape)}"


def _check_hidden(trial: ModelTrial, model: nn.Module, hidden: Tensor) -> None:
    count, width = len(trial.batch.weight), int(model.width)  # type: ignore[arg-type]
    if hidden.ndim not in (2, 3) or len(hidden) != count or hidden.shape[-1] != width:
        raise Fault(
            f"hidden states have the shape {list(hidden.shape)} for {count} samples; they are [B, T, D] or [B, D] with "
            f"B={count} and D=width={width}{_logits_hint(trial, hidden)}"
        )
    if not hidden.is_floating_point():
        raise Fault(f"hidden states are {hidden.dtype}, not floating-point numbers")
    if not hidden.isfinite().all():
        raise Fault("hidden states are not finite with the initial weights: is a row of attention masked throughout?")


def _logits_hint(trial: ModelTrial, hidden: Tensor) -> str:
    if hidden.ndim and hidden.shape[-1] in (trial.num_outputs, trial.vocab_size):
        return "; these look like logits: leave the output layer out, or use losslab.models.adapters.LogitsAdapter"
    return ""


def _selects(trial: ModelTrial, model: nn.Module) -> None:
    """Let the task select positions of the hidden states."""
    try:
        trial.task.features(model, trial.batch, trial.kind, {})  # type: ignore[arg-type]
    except UserError as error:
        raise Fault(str(error).removeprefix("model: ")) from None
    except Exception as error:  # a person's task may raise anything
        raise Fault(f"{type(trial.task).__name__}.features raises {error_sentence(error)}") from error


def repeats(trial: ModelTrial) -> str:
    """In evaluation mode nothing is drawn."""
    model = trial.fresh()
    first, second = (run(model, trial.inputs, draw=draw) for draw in (1, 2))
    if not same(first, second):
        raise Fault(
            "in evaluation mode two passes differ: something is drawn whatever the mode (F.dropout without "
            "self.training?)"
        )
    first, second = (run(model, trial.inputs, train=True, draw=3) for _ in range(2))
    if not same(first, second):
        raise Fault(
            "in training mode it draws from a generator that no seed reaches: a resumed run would not repeat it"
        )
    return "equal in evaluation mode"


def batch_composition(trial: ModelTrial) -> str:
    """A sample's hidden states are its own, whatever else is in the batch; in training, unless the model says so."""
    model = trial.fresh()
    declared = mixes_samples(model)
    replaced = {name: torch.cat([value[:1], value[:1].expand_as(value[1:])]) for name, value in trial.inputs.items()}
    for train in (False,) if declared else (False, True):
        whole, alone = (run(model, inputs, train=train)[0] for inputs in (trial.inputs, replaced))
        if not same(whole, alone):
            mode = "training" if train else "evaluation"
            raise (Doubt if train else Fault)(
                f"in {mode} mode a sample's hidden states depend on the other samples of its batch (batch norm, a mean "
                "over the batch, B and T exchanged: batch_first=True?): the gradient is not the same on 1 and 2 ranks; "
                "a model that means it declares mixes_samples = True"
            )
    return "in training alone, as mixes_samples declares" if declared else "no sample depends on another"


def padding(trial: ModelTrial) -> str:
    """Masked positions change nothing."""
    if not (masks := [name for name in _MASKS if name in trial.inputs]):
        return "this data has no input `mask`"
    if not (masks := [name for name in masks if trial.inputs[name].ndim == 2 and trial.inputs[name].shape[1] > 1]):
        return "its mask has no positions"
    for name in masks:
        _excluded(trial, name)
    return "excluded positions change nothing"


def _excluded(trial: ModelTrial, mask: str) -> None:
    """Raises Fault where the positions that one mask excludes are read."""
    own, of_source = trial.inputs[mask], mask in OF_SOURCE
    kept = own.bool().clone()
    if bool(kept.all()):
        kept[:, -max(1, kept.shape[1] // 3) :] = False
    inputs = trial.inputs | {mask: kept.to(own.dtype)}
    changed = dict(inputs)
    for name, value in inputs.items():
        if name != mask and (name in OF_SOURCE) == of_source and value.shape[:2] == kept.shape:
            changed[name] = value.clone()
            changed[name][~kept] = value[:, :1].roll(1, 0).expand_as(value)[~kept]  # what another sample begins with
    model = trial.fresh()
    for train in (False, True):
        before, after = (run(model, given, train=train) for given in (inputs, changed))
        rows = kept if not of_source and before.shape[:2] == kept.shape else slice(None)
        if not same(before[rows], after[rows]):
            raise Fault(
                "what stands at positions that the mask excludes changes the hidden states of the others: attention, "
                f"pooling or a recurrence does not read inputs[{mask!r}] (1 = a position that counts)"
            )


def causal(trial: ModelTrial) -> str:
    """No hidden state depends on a later input, in either mode."""
    length = trial.batch.weight.shape[1] if trial.batch.weight.ndim == 2 else 0
    if length < 2:
        return "a sample has one position"
    model = trial.fresh()
    for train in (False, True):
        before = run(model, trial.inputs, train=train)
        for position in sorted({1, length // 2, length - 1}):
            changed = {name: value.clone() for name, value in trial.inputs.items()}
            for name, value in changed.items():
                if name not in _BESIDE and value.shape[:2] == trial.batch.weight.shape:
                    value[:, position:] = value.roll(1, 0)[:, position:]
            if not same(run(model, changed, train=train)[:, :position], before[:, :position]):
                raise Fault(
                    f"hidden states before position {position} change with the inputs from there on, and "
                    f"{chosen('task', trial.task)} predicts what follows: attention needs a causal mask, a "
                    "recurrence or convolution one direction"
                )
    return "nothing reads ahead"


def cached(trial: ModelTrial) -> str:
    """A beginning, and then one input after the other, with a cache, have the hidden states of the whole."""
    model = trial.fresh().eval()
    cache, length = cache_of(model), trial.batch.weight.shape[-1]
    if cache is None or length < 2:
        return "none: text is generated by passes over a window"
    inputs = {name: value for name, value in trial.inputs.items() if name != "segments"}  # a text is one document
    whole, starts = run(model, inputs), [0, *range(length // 2, length)]
    parts = [
        {name: value if name in OF_SOURCE else value[:, start:end] for name, value in inputs.items()}
        for start, end in zip(starts, [*starts[1:], length], strict=True)
    ]
    try:
        with global_stream(0, "trial"), torch.no_grad():
            joined = torch.cat([model(part, cache) for part in parts], dim=1)
    except Exception as error:  # a person's model may raise anything
        raise CannotRun(f"with a cache forward raises {error_sentence(error)}") from error
    if not same(joined, whole):
        raise Fault(
            "with a cache of new_cache(), inputs given one after the other have other hidden states than all at once: "
            "the cache must keep what came before, and positions go on from there"
        )
    return "one input after the other has the hidden states of the whole"


def same(left: Tensor, right: Tensor) -> bool:
    """Equal but for roundings."""
    if left.shape != right.shape or not left.numel():
        return left.shape == right.shape
    return bool((left - right).abs().amax() <= _SAME * right.abs().amax().clamp(min=_SMALLEST))
