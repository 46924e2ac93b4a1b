"""Checks of a loss's values and gradients, at ordinary and at extreme logits."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from losslab.conformance.basics import AllDouble, scores_of
from losslab.conformance.subject import Subject, near, single
from losslab.contracts import TargetKind, added
from losslab.errors import Fault
from losslab.losses.execution import LinearMap


def extreme_logits_stay_finite(subject: Subject) -> str:
    """±1e4 in each precision that a projection may have, for the largest logit and for others."""
    num_outputs = len(subject.problem().projection)
    num_classes = subject.fresh().num_classes(num_outputs)
    extreme = 1e4 * torch.cat(
        [2 * torch.eye(num_outputs) - 1, torch.ones(2, num_outputs) * torch.tensor([[1.0], [-1]])]
    )
    base = subject.problem(positions=len(extreme)).features
    for shift in (0, 1):
        target = base.target
        if subject.loss.target_kind is TargetKind.CLASSES:
            target = (torch.arange(len(extreme)) + shift) % num_classes
        if base.lengths is None:
            features = replace(base, hidden=extreme, target=target.roll(shift, 0), weight=torch.ones(len(extreme)))
        else:  # each sequence keeps a target that has room in it
            features = replace(base, hidden=extreme.roll(shift, 0), weight=torch.ones(len(base)))
        for dtype in (None, torch.bfloat16, torch.float16):
            with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
                outcome = subject.run(features, torch.eye(num_outputs))
            if not outcome.total.isfinite():
                raise Fault(
                    f"logits of ±10,000 under {_name(dtype)} give the total {outcome.total:.6g}: an exp without its "
                    "largest logit subtracted, or a log of 0; use log_softmax or logsumexp"
                )
            gradients = [outcome.hidden, outcome.projection]
            if dtype is torch.float16:  # there a gradient times a hidden state of 10,000 overflows by itself
                gradients.pop()
                if subject.loss.target_kind is TargetKind.VALUES:  # and so may one that grows with the residual
                    gradients.pop()
            if not all(gradient.isfinite().all() for gradient in gradients):
                raise Fault(
                    f"logits of ±10,000 under {_name(dtype)} give a gradient that is not finite: a power or a log of a "
                    "probability that is 0 or 1; clamp it, or compute from log-probabilities"
                )
    return "finite in float32, bfloat16 and float16"


def gradient_is_that_of_the_value(subject: Subject) -> str:
    """Numerically, in float64, of the loss of each position; and of `forward`, against it."""
    problem = subject.problem(positions=8)
    loss = subject.fresh()
    if loss.has_detached:
        return "part of it is meant to have no gradient (has_detached)"
    logits = scores_of(loss, problem).requires_grad_()

    def values(z: Tensor) -> Tensor:
        with AllDouble():
            return added(loss.from_logits(z, problem.features)).double()

    if not torch.equal(values(logits), values(logits)):
        raise Fault("the same call gives another result the second time: it draws random numbers or keeps state")
    try:
        torch.autograd.gradcheck(values, logits)
    except RuntimeError as error:  # gradcheck's way to say no
        raise Fault(
            "the gradient in the logits is not that of the value: something on the way is detached (.detach(), .data, "
            f".item(), no_grad); {str(error).splitlines()[0]}"
        ) from None
    return "numerical and analytical gradients agree in float64"


def forward_equals_its_positions(subject: Subject) -> str:
    """`forward`, in whatever chunks and shortcuts, is Σ weight · position loss of all logits at once."""
    problem = subject.problem()
    loss = subject.fresh()
    if loss.trains_otherwise:
        return "it computes something else in training (trains_otherwise)"
    features = single(loss.select(problem.features).kept())
    hidden, projection = features.hidden.requires_grad_(), problem.projection.float().requires_grad_()
    values = added(loss.values(replace(features, hidden=hidden), LinearMap(projection, None)))
    expected = (features.weight * values).sum()
    of_hidden, of_weight = torch.autograd.grad(expected, [hidden, projection])
    own = subject.run(features, problem.projection)
    if not near(own.total, expected.detach()):
        raise Fault(f"forward gives {own.total:.6g}, and {loss.written_as()} summed by weight {expected:.6g}")
    if not (near(own.hidden, of_hidden) and near(own.projection, of_weight)):
        raise Fault(
            f"forward has another gradient than {loss.written_as()} over all logits: a factor is missing or detached"
        )
    return "values and gradients of all logits at once"


def arithmetic_is_float32(subject: Subject) -> str:
    """Float32 and the same code in float64, whatever it casts to, agree on the same logits, also where autocast makes
    the projection bf16."""
    problem = subject.problem(positions=512)
    loss = subject.fresh()
    logits = scores_of(loss, problem).float()
    with AllDouble():
        exact = added(loss.from_logits(logits.double(), problem.features)).double()
    with torch.autocast("cpu", torch.bfloat16):
        own = added(loss.from_logits(logits, single(problem.features)))
    error = ((own.double() - exact).abs().sum() / exact.abs().sum().clamp(min=1e-12)).item()
    if error > 1e-4:
        raise Fault(
            f"on the same logits float32 under autocast errs by {error:.1e} of the float64 value: it computes in "
            "bfloat16 or float16 (a .bfloat16(), .half() or a matrix product inside); keep to logits' own float32"
        )
    return f"errs by {error:.0e}"


def shift_changes_nothing(subject: Subject) -> str:
    loss, problem = subject.fresh(), subject.problem()
    if not loss.shift_invariant:
        return "not declared (shift_invariant)"
    scores = scores_of(loss, problem)
    shifted, straight = (added(loss.from_logits(scores + c, problem.features)) for c in (17.0, 0.0))
    if not near(shifted, straight):
        raise Fault("adding 17 to all logits changes the loss, though shift_invariant says that it does not")
    return "adding a constant to all logits changes nothing"


def temperature_keeps_the_gradient(subject: Subject) -> str:
    """The gradient of a distillation loss tends to a limit as T grows, thanks to its factor T² (Hinton et al. 2015,
    arXiv:1503.02531, section 2.1)."""
    kind = type(subject.loss)
    options = {
        name: getattr(subject.loss, name) for name in inspect.signature(kind).parameters if name in vars(subject.loss)
    }
    if not (subject.loss.reads_teacher and "temperature" in inspect.signature(kind).parameters):
        return "it learns from no teacher at a temperature"
    problem = subject.problem()
    whole = problem.features
    other = replace(whole, extras={**whole.extras, "teacher_hidden": -whole.extras["teacher_hidden"]})

    def of_teacher(temperature: float) -> Tensor:
        """The part of the gradient that another teacher would change; hard targets have none in it."""
        loss = Subject(kind(**{**options, "temperature": temperature}))
        return loss.run(whole, problem.projection).hidden - loss.run(other, problem.projection).hidden

    ratio = (of_teacher(100).norm() / of_teacher(50).norm()).item()
    if not 0.8 < ratio < 1.25:
        raise Fault(
            f"from T = 50 to T = 100 the gradient grows {ratio:.3g} times, and should stay: the divergence must be "
            "multiplied by T², or its weight against the hard targets depends on T"
        )
    return f"from T = 50 to T = 100 the gradient stays ({ratio:.3f} times)"


def _name(dtype: torch.dtype | None) -> str:
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")
