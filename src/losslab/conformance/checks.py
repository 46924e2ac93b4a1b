"""What every loss of classes must do. Each check returns what it saw, or raises a Fault with the likely cause."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from losslab.conformance.subject import NUM_OUTPUTS, Fault, Outcome, Problem, Subject
from losslab.errors import UserError, describe
from losslab.losses.base import Loss
from losslab.losses.execution import limit_rows
from losslab.types import Features

Check = Callable[[Subject], str]
_FLOAT32 = 1e-5
"""Sums of a few dozen float32 terms, in any order."""
_POSTERIOR = 1e-3


def sums_add_up(subject: Subject) -> str:
    """Σ over a batch = Σ over its parts, values and weights, and twice the weight is twice the total."""
    problem = Problem.random()
    whole, middle = problem.features(), len(problem.target) // 3
    parts = [subject.run(problem.features(rows), problem.projection) for rows in (slice(middle), slice(middle, None))]
    all_at_once = subject.run(whole, problem.projection)
    total, weight = (sum(getattr(part, name) for part in parts) for name in ("total", "weight"))
    if not _near(all_at_once.total, total):
        raise Fault(
            f"a batch has the total {all_at_once.total:.6g} and its two parts together {total:.6g}: it divides by the "
            "number of positions (a mean in place of a sum), or one position's loss depends on the others"
        )
    if not _near(all_at_once.weight, weight):
        raise Fault(f"a batch has the weight {all_at_once.weight:.6g} and its two parts together {weight:.6g}")
    doubled = Features(whole.hidden, whole.target, 2 * whole.weight)
    twice = subject.run(doubled, problem.projection)
    if not (_near(twice.total, 2 * all_at_once.total) and _near(twice.weight, 2 * all_at_once.weight)):
        raise Fault(
            "twice the weight is not twice the total and twice the weight: features.weight is not multiplied in"
        )
    return f"total {all_at_once.total:.4g} over weight {all_at_once.weight:.4g}"


def order_does_not_matter(subject: Subject) -> str:
    problem = Problem.random()
    order = torch.randperm(len(problem.target), generator=torch.Generator().manual_seed(3))
    straight, shuffled = (subject.run(problem.features(rows), problem.projection) for rows in (slice(None), order))
    if not (_near(straight.total, shuffled.total) and _near(straight.hidden[order], shuffled.hidden)):
        raise Fault("shuffled positions have another total or gradient: one position's loss depends on its neighbours")
    return "shuffled positions, the same sums"


def ignored_positions_change_nothing(subject: Subject) -> str:
    """Whatever they hold, NaN included."""
    problem = Problem.random()
    counted = problem.weight != 0
    hidden = problem.hidden.float().masked_fill(~counted[:, None], math.nan)
    target = problem.target.masked_fill(~counted, -100)
    among = subject.run(Features(hidden, target, problem.weight.float()), problem.projection)
    alone = subject.run(problem.features(counted.nonzero()[:, 0]), problem.projection)
    if not (_near(among.total, alone.total) and _near(among.weight, alone.weight)):
        raise Fault(
            f"with ignored positions among them the same positions have the total {among.total:.6g} in place of "
            f"{alone.total:.6g}: positions of weight 0 are counted (smoothing or penalty over padding, or 0 × NaN); "
            "drop them with features.kept() first"
        )
    if among.hidden[~counted].abs().sum() != 0 or not _near(among.projection, alone.projection):
        raise Fault("ignored positions have a gradient: drop them with features.kept() before anything is computed")
    return f"{int((~counted).sum())} of {len(counted)} positions ignored"


def all_ignored_is_zero(subject: Subject) -> str:
    problem = Problem.random()
    features = problem.features()
    outcome = subject.run(
        Features(features.hidden, features.target, torch.zeros_like(features.weight)), problem.projection
    )
    if not torch.equal(outcome.total, torch.zeros(())):
        raise Fault(
            f"a batch that is all ignored has the total {outcome.total:.6g}, not 0: it divides by its own count"
        )
    if outcome.hidden.abs().sum() != 0 or outcome.projection.abs().sum() != 0:
        raise Fault(
            "a batch that is all ignored has a gradient that is not 0 (NaN, mostly: 0 / 0 or a mean over nothing)"
        )
    return "0, with a gradient of 0 that is part of the graph"


def extreme_logits_stay_finite(subject: Subject) -> str:
    """±1e4 in each precision that a projection may have, for the largest logit and for others."""
    extreme = 1e4 * torch.cat(
        [2 * torch.eye(NUM_OUTPUTS) - 1, torch.ones(2, NUM_OUTPUTS) * torch.tensor([[1.0], [-1.0]])]
    )
    target = torch.arange(len(extreme)) % NUM_OUTPUTS
    for shift in (0, 1):
        features = Features(extreme, (target + shift) % NUM_OUTPUTS, torch.ones(len(extreme)))
        for dtype in (None, torch.bfloat16, torch.float16):
            with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
                outcome = subject.run(features, torch.eye(NUM_OUTPUTS))
            if not outcome.total.isfinite():
                raise Fault(
                    f"logits of ±10,000 under {_name(dtype)} give the total {outcome.total:.6g}: an exp without its "
                    "largest logit subtracted, or a log of 0; use log_softmax or logsumexp"
                )
            gradients = [outcome.hidden]
            if dtype is not torch.float16:  # there a gradient times a hidden state of 10,000 overflows by itself
                gradients.append(outcome.projection)
            if not all(gradient.isfinite().all() for gradient in gradients):
                raise Fault(
                    f"logits of ±10,000 under {_name(dtype)} give a gradient that is not finite: a power or a log of a "
                    "probability that is 0 or 1; clamp it, or compute from log-probabilities"
                )
    return "finite in float32, bfloat16 and float16"


def gradient_is_that_of_the_value(subject: Subject) -> str:
    """Numerically, in float64, of the loss of each position; and of `forward`, against it."""
    problem = Problem.random(positions=8)
    loss = subject.fresh()
    if loss.has_detached:
        return "part of it is meant to have no gradient (has_detached)"
    logits = (problem.hidden @ problem.projection.T).requires_grad_()
    try:
        torch.autograd.gradcheck(lambda z: loss.position_loss(z, problem.target), logits)
    except RuntimeError as error:  # gradcheck's way to say no
        raise Fault(
            "the gradient in the logits is not that of the value: something on the way is detached (.detach(), .data, "
            f".item(), no_grad) or not float64 where its input is; {str(error).splitlines()[0]}"
        ) from None
    return "numerical and analytical gradients agree in float64"


def forward_equals_its_positions(subject: Subject) -> str:
    """`forward`, in whatever chunks and shortcuts, is Σ weight · position loss of all logits at once."""
    problem = Problem.random()
    loss = subject.fresh()
    if type(loss).values is not Loss.values or type(loss).scores is not Loss.scores:
        return "it has values or scores of its own"
    hidden, projection = problem.hidden.float().requires_grad_(), problem.projection.float().requires_grad_()
    expected = (problem.weight.float() * loss.position_loss(hidden @ projection.T, problem.target)).sum()
    of_hidden, of_weight = torch.autograd.grad(expected, [hidden, projection])
    own = subject.run(problem.features(), problem.projection)
    if not _near(own.total, expected.detach()):
        raise Fault(f"forward gives {own.total:.6g}, and position_loss summed by weight {expected:.6g}")
    if not (_near(own.hidden, of_hidden) and _near(own.projection, of_weight)):
        raise Fault("forward has another gradient than position_loss over all logits: a factor is missing or detached")
    return "values and gradients of all logits at once"


def chunks_do_not_matter(subject: Subject) -> str:
    problem = Problem.random()
    at_once = subject.run(problem.features(), problem.projection)
    for rows in (1, 5):
        with limit_rows(rows):
            outcome = subject.run(problem.features(), problem.projection)
        if not all(_near(getattr(outcome, name), getattr(at_once, name)) for name in Outcome.__annotations__):
            raise Fault(
                f"{rows} position(s) at a time give the total {outcome.total:.6g} in place of {at_once.total:.6g}: one "
                "position's loss depends on the others, or on state that a call changes; say position_wise = False"
            )
    return "1, 5 or all positions at a time"


def arithmetic_is_float32(subject: Subject) -> str:
    """Also where autocast makes the projection bf16: given the same logits, float32 and float64 agree."""
    problem = Problem.random(positions=512)
    loss = subject.fresh()
    logits = (problem.hidden @ problem.projection.T).float()
    exact = loss.position_loss(logits.double(), problem.target)
    with torch.autocast("cpu", torch.bfloat16):
        own = loss.position_loss(logits, problem.target)
    error = ((own.double() - exact).abs().sum() / exact.abs().sum().clamp(min=1e-12)).item()
    if error > 1e-4:
        raise Fault(
            f"on the same logits float32 under autocast errs by {error:.1e} of the float64 value: it computes in "
            "bfloat16 or float16 (a .bfloat16(), .half() or a matrix product inside); keep to logits' own float32"
        )
    return f"errs by {error:.0e}"


def predictions_are_distributions(subject: Subject) -> str:
    problem = Problem.random()
    loss = subject.fresh()
    for scale in (1.0, 50.0):
        log_p = loss.predict_log_probs((scale * problem.hidden @ problem.projection.T).float())
        sums = log_p.exp().sum(dim=-1)
        if not torch.allclose(sums, torch.ones(()), atol=1e-4):
            raise Fault(
                f"predicted probabilities sum to {sums.min():.4g} … {sums.max():.4g}, not to 1: predict_log_probs must "
                "normalise (log_softmax as the last step)"
            )
    return "probabilities sum to 1"


def shift_changes_nothing(subject: Subject) -> str:
    loss, problem = subject.fresh(), Problem.random()
    if not loss.shift_invariant:
        return "not declared (shift_invariant)"
    logits = problem.hidden @ problem.projection.T
    if not _near(loss.position_loss(logits + 17.0, problem.target), loss.position_loss(logits, problem.target)):
        raise Fault("adding 17 to all logits changes the loss, though shift_invariant says that it does not")
    return "adding a constant to all logits changes nothing"


def same_call_same_value(subject: Subject) -> str:
    problem = Problem.random()
    once, again = (subject.run(problem.features(), problem.projection) for _ in range(2))
    if not all(torch.equal(getattr(once, name), getattr(again, name)) for name in Outcome.__annotations__):
        raise Fault("the same call gives another result the second time: it draws random numbers or keeps state")
    return "bit for bit"


def posterior_is_the_data(subject: Subject) -> str:
    """Where the expected loss under η is smallest, `posterior` says η; a proper loss predicts it as well."""
    loss = subject.fresh(4)
    if loss.posterior(torch.zeros(1, 4)) is None:
        if loss.is_proper:
            raise Fault("it says is_proper, and gives no posterior")
        return "no closed form"
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        eta = torch.rand(4, dtype=torch.float64, generator=generator) + 0.1
        eta = eta / eta.sum()
        z = minimise(loss, eta)[None]
        posterior = loss.posterior(z)
        assert posterior is not None
        error = (posterior / posterior.sum() - eta).abs().max().item()
        if error > _POSTERIOR:
            raise Fault(f"posterior is off by {error:.2g} where the expected loss is smallest: the link is another one")
        error = (loss.predict_log_probs(z).exp() - eta).abs().max().item()
        if loss.is_proper and error > _POSTERIOR:
            raise Fault(
                f"it says is_proper, and its prediction is off by {error:.2g} where the expected loss is smallest"
            )
    return "the data's distribution, and so is the prediction" if loss.is_proper else "the data's distribution"


def minimise(loss: Loss, eta: Tensor) -> Tensor:
    """The logits [V] of the smallest Σ_y η_y ℓ(z, y), by quasi-Newton steps."""
    z = torch.linspace(0.3, -0.2, len(eta), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (eta * loss.position_loss(z.expand(len(eta), -1), torch.arange(len(eta)))).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return z.detach()


def options_are_checked(subject: Subject) -> str:
    """Each number of the constructor at 0, at 1 and doubled: refused in a sentence, or finite; never NaN."""
    kind = type(subject.loss)
    signature = inspect.signature(kind).parameters
    if any(parameter.default is parameter.empty for parameter in signature.values()):
        return "it has options without defaults"
    numbers = {n: p.default for n, p in signature.items() if type(p.default) in (int, float)}
    problem = Problem.random()
    for name, default in numbers.items():
        not_a_number = [math.nan] if isinstance(default, float) else []
        for value in dict.fromkeys([0.0, 1.0, 2.0 * default, *not_a_number]):
            option = f"{name}={value:g}"
            accepted = False
            try:
                loss = kind(**{name: value if math.isnan(value) else type(default)(value)})
                accepted = True
                outcome = Subject(loss).run(problem.features(), problem.projection)
            except Exception as error:  # a stranger's loss may raise anything: it is the finding
                if isinstance(error, UserError) and not accepted:
                    continue
                how = "is accepted, and then" if accepted else "is not refused in a sentence (UserError), but"
                raise Fault(f"{option} {how} raises {describe(error)}; refuse it") from None
            if math.isnan(value):
                raise Fault(f"{option} is accepted; refuse it (not low <= {name} <= high refuses NaN too)")
            if not (outcome.total.isfinite() and outcome.hidden.isfinite().all()):
                raise Fault(f"{option} is accepted, and gives a total or gradient that is not finite; refuse it")
    return ", ".join(numbers) or "it has no numbers"


def _near(actual: Tensor, expected: Tensor | int) -> bool:
    expected = torch.as_tensor(expected)
    return bool((actual - expected).norm() <= _FLOAT32 * expected.norm().clamp(min=1e-3))


def _name(dtype: torch.dtype | None) -> str:
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


CHECKS: dict[str, Check] = {
    "sums, not means": sums_add_up,
    "order of positions": order_does_not_matter,
    "ignored positions": ignored_positions_change_nothing,
    "all ignored": all_ignored_is_zero,
    "logits of ±10,000": extreme_logits_stay_finite,
    "gradient": gradient_is_that_of_the_value,
    "forward": forward_equals_its_positions,
    "chunks": chunks_do_not_matter,
    "precision": arithmetic_is_float32,
    "predictions": predictions_are_distributions,
    "shift of logits": shift_changes_nothing,
    "posterior": posterior_is_the_data,
    "determinism": same_call_same_value,
    "options": options_are_checked,
}
