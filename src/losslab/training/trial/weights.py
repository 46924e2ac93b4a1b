"""Trials of a model's weights: what they are drawn from, what saves them, what trains them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losslab.contracts import projection_of
from losslab.errors import Doubt, Fault, UserError
from losslab.models.projection import OutputProjection
from losslab.training.network import check_projection
from losslab.training.random import global_stream
from losslab.training.trial.model import ModelTrial, forward, run, same

_DRAWS = 3


def projection_fits(trial: ModelTrial) -> str:
    """A projection of its own, tied for the most part, has the size that task and loss want."""
    model = trial.make(1)
    found = projection_of(model, trial.num_outputs, torch.Generator().manual_seed(1), OutputProjection)
    try:
        check_projection(found, model, trial.num_outputs, int(model.width))  # type: ignore[arg-type]
    except UserError as error:
        raise Fault(str(error).removeprefix("model: ")) from None
    return "tied" if any(found.weight is p for p in model.parameters()) else f"{list(found.weight.shape)}"


def seeds(trial: ModelTrial) -> str:
    """The weights are a function of the seed."""
    first, again, other = (_state(trial.make(seed)) for seed in (1, 1, 2))
    if wrong := _differing(first, again):
        raise Fault(
            f"constructed twice under one seed it has two {wrong[0]}: it draws from a generator that no seed reaches "
            "(os.urandom, numpy's default_rng()); draw from `generator`, or torch's global one"
        )
    if first and not _differing(first, other):
        raise Doubt(
            "two seeds give the same weights, so that runs of several seeds begin alike: it seeds a generator itself "
            "(torch.manual_seed, default_rng(0)), or reads weights from a file"
        )
    return f"{len(first)} tensors"


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved, too."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _differing(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    names = sorted(left.keys() | right.keys())
    return [n for n in names if n not in left or n not in right or not _equal(left[n].detach(), right[n].detach())]


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)


def round_trip(trial: ModelTrial) -> str:
    """All that decides its outputs is in its state_dict."""
    model = trial.fresh()
    with global_stream(0, "trial"):
        forward(model.train(), trial.inputs).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad.sign())
    other = trial.make(2)
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise Fault(f"a fresh instance cannot load its state_dict: {' '.join(str(error).split())}") from None
    if not same(run(model, trial.inputs), run(other, trial.inputs)):
        loose = _differing(dict(model.named_buffers()), dict(other.named_buffers()))
        where = f"the buffer {loose[0]} (persistent=False)" if loose else "a tensor in a plain attribute or list"
        raise Fault(
            f"a fresh instance that loads its state_dict has other outputs: {where} is drawn or changed and not saved; "
            "register_buffer(name, tensor) keeps it"
        )
    return "a fresh instance gives the same outputs"


def gradients(trial: ModelTrial) -> str:
    """Every parameter is trained."""
    if unreached := unreached_parameters(trial):
        more = f" and {len(unreached) - 1} more" if len(unreached) > 1 else ""
        raise Doubt(
            f"no gradient reaches {unreached[0]}{more}: it is never used, or something on the way is detached; "
            "requires_grad_(False) says that it is meant"
        )
    return "every parameter has one"


def unreached_parameters(trial: ModelTrial) -> list[str]:
    """Names of the parameters whose gradient is missing or 0 in three batches."""
    model = trial.fresh().train()
    projection = projection_of(model, trial.num_outputs, torch.Generator().manual_seed(1), OutputProjection)
    for draw in range(_DRAWS):
        with global_stream(draw, "trial"):
            hidden = forward(model, trial.inputs)
            if hidden.requires_grad:
                outputs = projection(hidden.flatten(0, -2))
                (outputs * torch.randn_like(outputs)).sum().backward()  # type: ignore[no-untyped-call]
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
