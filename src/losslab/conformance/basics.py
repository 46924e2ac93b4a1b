"""Checks that come first: does the function return what the contract says, and does it train every class towards it?"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from losslab.conformance.subject import Problem, Subject, single
from losslab.contracts import Features, TargetKind, added
from losslab.errors import Fault
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap

_LOW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)


class AllDouble(TorchFunctionMode):
    """Every cast to a lower precision is one to float64: what the same code computes without rounding."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return torch.Tensor.double(args[0])
        args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in _LOW else a for a in args)
        kwargs = {
            name: torch.float64 if isinstance(value, torch.dtype) and value in _LOW else value
            for name, value in (kwargs or {}).items()
        }
        return func(*args, **kwargs)


def scores_of(loss: Loss, problem: Problem, scale: float = 1.0) -> Tensor:
    """float64 [N, V]: the scores of hidden states that are `scale` times those of a problem."""
    with torch.no_grad(), AllDouble():
        return loss.scores(scale * problem.features.hidden, LinearMap(problem.projection, None))


@contextmanager
def named() -> Iterator[None]:
    """Turn torch's words about a forbidden write into ours."""
    try:
        yield
    except RuntimeError as error:
        if "in-place" in str(error) or "inplace" in str(error):
            raise Fault(
                "it writes into a tensor in place that autograd needs, its logits mostly; leave out the underscore "
                f"(masked_fill, not masked_fill_), or clone() first ({str(error).splitlines()[0]})"
            ) from None
        raise


def returns_one_value_a_position(subject: Subject) -> str:
    """The other checks need this one."""
    problem = single(subject.problem().features)
    loss = subject.fresh()
    features = loss.select(problem.kept()).kept()
    projection = subject.problem().projection.float()
    scores = loss.scores(features.hidden, LinearMap(projection, None))
    if loss.written_as() != "values":
        before = scores.clone()
        leaf = scores.clone().requires_grad_()
        with named():
            values = _values(loss, lambda: loss.from_logits(leaf, features), len(features))
        loss.from_logits(scores, features)
        if not torch.equal(scores, before):
            raise Fault("it writes into its logits in place; leave out the underscore (masked_fill), or clone() first")
        if not values.isfinite().all() and not scores.isfinite().all():
            raise Fault(
                "map_logits gives logits that are not finite (-inf), and the loss then is not either: something, label "
                "smoothing mostly, multiplies every logit, and 0 × inf is NaN; mask with a large finite number"
            )
    return "one finite value for each position" if len(features) else "no position"


def _values(loss: Loss, compute: Callable[[], Any], count: int) -> Tensor:
    given = compute()
    if loss.terms and isinstance(given, dict):
        wrong = next((value for value in given.values() if _is_wrong(value, count)), None)
    else:
        wrong = given if _is_wrong(given, count) else None
    if wrong is not None:
        got = f"shape {list(wrong.shape)}" if isinstance(wrong, Tensor) else f"a {type(wrong).__name__}"
        mean = isinstance(wrong, Tensor) and wrong.dim() == 0
        hint = "it is reduced already: write reduction='none', no .mean() or .sum()" if mean else "one number for each"
        raise Fault(f"{loss.written_as()} returns {got} for {count} positions, not [{count}]; {hint}")
    return added(given)


def _is_wrong(value: object, count: int) -> bool:
    return not isinstance(value, Tensor) or value.shape != (count,)


def target_is_what_it_trains(subject: Subject) -> str:
    """Each class in turn is a target: the loss is smaller where its logit is high, and has a gradient; at improbable
    targets, too. Not where a teacher is the target."""
    loss, kind = subject.fresh(), subject.loss.target_kind
    if kind is not TargetKind.CLASSES or loss.reads_teacher or loss.written_as() == "values":
        return "its targets are not classes alone"
    problem = subject.problem(positions=11)
    size = loss.num_classes(len(problem.projection))
    target = torch.arange(size)
    features = replace(problem.features, target=target, weight=torch.ones(size).double())
    if len(features) != size:
        return "its outputs are no classes"
    noise = 0.1 * torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _every_class(loss, features, noise)
    _towards_it(loss, features, noise)
    _no_floor(loss, features, noise)
    _no_softmax_twice(loss, features, 10 * noise)
    return "every class, and improbable ones"


def _gradient(loss: Loss, features: Features, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    with named(), AllDouble():
        values = added(loss.from_logits(leaf, features))
    if not values.requires_grad:
        raise Fault("the total has no gradient: it is computed from detached values, or without the projection")
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def _every_class(loss: Loss, features: Features, noise: Tensor) -> None:
    values, gradient = _gradient(loss, features, noise)
    silent = (gradient.abs().sum(dim=-1) == 0).nonzero()[:, 0].tolist()
    if silent and len(silent) < len(features):
        raise Fault(
            f"a position whose target is class {silent[0]} has the loss {values[silent[0]]:.4g} and no gradient: that "
            "class is never trained (an ignore_index inside?); ignored positions are dropped before, by their weight"
        )


def _towards_it(loss: Loss, features: Features, noise: Tensor) -> None:
    """A step down raises the target's logit more than any other; by the gradient, for part of a value may have none."""
    _, gradient = _gradient(loss, features, noise)
    means = torch.stack([gradient.roll(-k, dims=1).diagonal().mean() for k in range(len(gradient))])
    lowest = int(means.argmin())
    if lowest == 0:
        return
    if means[lowest] < -means[0].abs():
        raise Fault(
            f"a step down raises the logit of class y + {lowest} the most, and y is the target: it compares with "
            "another class (targets shifted?)"
        )
    raise Fault("a step down lowers the logit of the target: its sign is wrong, and it trains away from its targets")


def _no_floor(loss: Loss, features: Features, noise: Tensor) -> None:
    eye = torch.eye(len(features), dtype=torch.float64)
    (_, near), *far = [_gradient(loss, features, noise - gap * eye) for gap in (6.0, 22.0, 30.0)]
    if (near.abs().sum(dim=-1) > 0).all() and any((g.abs().sum(dim=-1) == 0).any() for _, g in far):
        raise Fault(
            "at improbable targets (p below 1e-9) it has no gradient, though it has one at 1e-3: a probability is "
            "clamped before its log (clamp_min(1e-7).log()), so what is most wrong learns nothing; use log_softmax"
        )


def _no_softmax_twice(loss: Loss, features: Features, logits: Tensor) -> None:
    own = added(loss.from_logits(logits, features)).detach().double()
    for what, given in (("softmax", logits.softmax(dim=-1)), ("sigmoid", logits.sigmoid())):
        twice = F.cross_entropy(given, features.target, reduction="none")
        a, b = own - own.mean(), twice - twice.mean()
        if (a @ b) ** 2 > (1 - 1e-9) * (a @ a) * (b @ b) > 0:
            raise Fault(
                f"it is cross-entropy of {what}(logits), and cross-entropy applies softmax itself: softmax is there "
                f"twice; leave out the {what} and give it logits"
            )


def mode_changes_nothing(subject: Subject) -> str:
    problem = single(subject.problem().features)
    projection = LinearMap(subject.problem().projection.float(), None)
    loss = subject.fresh()
    if loss.trains_otherwise:
        return "it computes something else in training (trains_otherwise)"
    with torch.no_grad():
        training, evaluating = (loss.train(mode)(problem, projection).total for mode in (True, False))
    if not torch.allclose(training, evaluating, rtol=1e-6):
        raise Fault(
            f"the total is {training:.6g} in training and {evaluating:.6g} in evaluation (self.training): then "
            "val/objective is not what is trained"
        )
    return "training and evaluation compute the same"


def nothing_stays_alive(subject: Subject) -> str:
    """Tensors as large as the logits of a chunk, once its sums are made."""
    problem = single(subject.problem().features)
    weight = subject.problem().projection.float().requires_grad_()
    loss = subject.fresh()
    many = len(loss.select(problem.kept()).kept().hidden) * len(weight)
    gc.freeze()  # what is there already is passed over, which would take most of a second
    try:
        result = loss(problem, LinearMap(weight, None))
        result.total.backward()
        del result
        gc.collect()
        kept = _large(many)
    finally:
        gc.unfreeze()
    if kept:
        raise Fault(
            f"{len(kept)} tensor(s) of shape {list(kept[0].shape)} stay alive after the call: a chunk's logits or "
            "probabilities are kept (self.… = p, a list that grows), which adds up to the logits of the whole batch"
        )
    return "nothing as large as logits stays after the call"


def _large(many: int) -> list[Tensor]:
    found = []
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and not issubclass(type(thing), torch._subclasses.FakeTensor):
            found += [thing] if thing.numel() >= many else []
    return found
