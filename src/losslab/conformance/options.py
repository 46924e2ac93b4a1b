"""Checks that need to construct a loss again, or to train it."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import torch

from losslab.conformance.subject import Subject, near, single
from losslab.contracts import TargetKind
from losslab.errors import Fault, UserError, error_sentence
from losslab.losses.execution import LinearMap

_STEPS = 20
_FEW = 2
_PER_CLASS = (
    "it has something for each class, or keeps their number: declare per_class = True, so that tasks whose classes are "
    "the places of a sample refuse it"
)


def any_number_of_classes(subject: Subject) -> str:
    """Bound for two classes, the loss of more of them is that of one that was bound for so many, unless it is declared
    otherwise: so many places may a sample have (`Task.points`)."""
    loss = subject.loss
    if loss.target_kind is not TargetKind.CLASSES or loss.per_class:
        return "the same at every position"
    if not loss.position_wise or loss.reads_teacher or loss.needs or not subject.takes(_FEW):
        return "not tried: it reads more than one position's logits, or is for one number of them"
    problem = subject.problem()
    features, projection = single(problem.features), LinearMap(problem.projection.float(), None)
    try:
        with torch.no_grad():
            few, usual = (subject.fresh(size)(features, projection) for size in (_FEW, subject.size))
    except Exception as error:  # a person's loss may raise anything, which the check reports
        raise Fault(f"{_PER_CLASS} (bound for {_FEW} classes, it raises {error_sentence(error)})") from error
    if not near(few.total, usual.total) or not near(few.weight, usual.weight):
        raise Fault(f"{_PER_CLASS} (bound for {_FEW} classes, it gives another sum for {subject.size} of them)")
    return f"bound for {_FEW}, it takes {subject.size}"


def options_are_checked(subject: Subject) -> str:
    """Each number of the constructor, and of its lists, at 0, at 1 and doubled: refused in a sentence, or finite. NaN
    is not tried: no configuration may hold one."""
    kind = type(subject.loss)
    parameters = inspect.signature(kind).parameters.items()
    signature = {n: p for n, p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if any(parameter.default is parameter.empty for parameter in signature.values()):
        return "it has options without defaults"
    tried = {n: trials for n, p in signature.items() if (trials := _trials(p.default))}
    for name, trials in tried.items():
        for value in trials:
            option = f"{name}={_shown(value)}"
            accepted = False
            try:
                loss = kind(**{name: value})
                accepted = True
                of_its_own = Subject(loss)  # an option may change the number of outputs
                problem = of_its_own.problem()
                outcome = of_its_own.run(problem.features, problem.projection)
            except Exception as error:  # a person's loss may raise anything, which the check reports
                if isinstance(error, UserError) and not accepted:
                    continue
                how = "is accepted, and then" if accepted else "is not refused in a sentence (UserError), but"
                raise Fault(f"{option} {how} raises {error_sentence(error)}; refuse it") from None
            if not (outcome.total.isfinite() and outcome.hidden.isfinite().all()):
                raise Fault(f"{option} is accepted, and gives a total or gradient that is not finite; refuse it")
    return ", ".join(tried) or "it has no numbers"


def _trials(default: object) -> list[Any]:
    """Values to try instead of a default: none unless it is a number, or a list of them."""
    if isinstance(default, list | tuple):
        changed = [[*default[:i], value, *default[i + 1 :]] for i, own in enumerate(default) for value in _trials(own)]
        return [[], *changed] if changed else []
    if isinstance(default, bool) or not isinstance(default, int | float):
        return []
    return [*dict.fromkeys(type(default)(value) for value in (0, 1, 2 * default))]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def training_lowers_it(subject: Subject) -> str:
    """Steps of AdamW on one batch, through a small body."""
    problem = subject.problem()
    features = single(problem.features)
    generator = torch.Generator().manual_seed(11)
    body = torch.nn.Linear(features.hidden.shape[1], features.hidden.shape[1])
    with torch.no_grad():
        body.weight.copy_(torch.randn(body.weight.shape, generator=generator) / 2)
    projection = (problem.projection.float() / 4).requires_grad_()
    loss = subject.fresh()
    optimizer = torch.optim.AdamW([*body.parameters(), projection, *loss.parameters()], lr=0.01)
    objectives = []
    for _ in range(_STEPS + 1):
        result = loss(replace(features, hidden=body(features.hidden).tanh()), LinearMap(projection, None))
        objectives.append((result.total / result.weight).item())
        if not math.isfinite(objectives[-1]):
            raise Fault(f"after {len(objectives) - 1} steps of AdamW the objective is {objectives[-1]}")
        optimizer.zero_grad()
        (result.total / result.weight).backward()
        optimizer.step()
    if not loss.has_detached and not objectives[-1] < objectives[0]:
        raise Fault(
            f"{_STEPS} steps of AdamW on one batch take it from {objectives[0]:.4g} to {objectives[-1]:.4g}: its "
            "gradient points the wrong way, or nowhere"
        )
    return f"{_STEPS} steps: {objectives[0]:.4g} → {objectives[-1]:.4g}"
