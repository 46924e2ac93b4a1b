"""Checks of what a loss predicts with, and of its link to the data's probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.conformance.basics import scores_of
from losslab.conformance.subject import Subject
from losslab.contracts import Features, TargetKind, added
from losslab.errors import Fault
from losslab.losses.base import Loss

_POSTERIOR = 1e-3
_LEVELS = [i / 50 for i in range(1, 50)]
_ROWS, _POINTS = 4, 64
_EVEN = 0.2
"""Factor of the logits under which a density, a histogram's too, has no steps that so many points would miss."""
_MASS = 0.01


def predictions_are_right_in_kind(subject: Subject) -> str:
    """Probabilities that sum to 1; of labels, each in [0, 1]; or as many values as there are targets."""
    problem = subject.problem()
    loss = subject.fresh()
    for scale in (1.0, 50.0):
        scores = scores_of(loss, problem, scale).float()
        if loss.target_kind is TargetKind.VALUES:
            predicted = loss.predict_values(scores)
            if predicted.shape != problem.features.target.shape or not predicted.isfinite().all():
                raise Fault(
                    f"predict_values gives {list(predicted.shape)}, finite: {bool(predicted.isfinite().all())}, for "
                    f"targets {list(problem.features.target.shape)}; it must give a finite number for each"
                )
            if scale == 1:
                even = loss.map_logits(_EVEN * problem.logits[:_ROWS])
                _density_and_quantiles_agree(loss, even, problem.features.target[:_ROWS])
            continue
        p = loss.predict_log_probs(scores).exp()
        if loss.target_kind is TargetKind.LABELS:
            if not (p >= 0).logical_and(p <= 1).all():
                raise Fault(f"predicted probabilities of labels lie in {p.min():.4g} … {p.max():.4g}, not in [0, 1]")
            continue
        sums = p.sum(dim=-1)
        if not torch.allclose(sums, torch.ones(()), atol=1e-4):
            raise Fault(
                f"predicted probabilities sum to {sums.min():.4g} … {sums.max():.4g}, not to 1: predict_log_probs must "
                "normalise (log_softmax as the last step)"
            )
    return {
        TargetKind.VALUES: "a finite number for each target",
        TargetKind.LABELS: "each probability is in [0, 1]",
    }.get(loss.target_kind, "probabilities sum to 1")


def _density_and_quantiles_agree(loss: Loss, scores: Tensor, target: Tensor) -> None:
    """Between two quantiles lies as much of the density as their levels say; both may be left out.

    Args:
        scores: [n, V].
        target: [n, K].
    """
    density, quantiles = loss.log_density(scores, target), loss.predict_quantiles(scores, _LEVELS)
    if density is not None and density.shape != target.shape:
        raise Fault(f"log_density gives {list(density.shape)} for targets {list(target.shape)}: one for each is wanted")
    if quantiles is None:
        return
    wanted = (*target.shape, len(_LEVELS))
    if quantiles.shape != wanted or not (quantiles.diff(dim=-1) >= 0).all():
        raise Fault(
            f"predict_quantiles gives {list(quantiles.shape)}, and {list(wanted)} that rise with the level are wanted"
        )
    if density is None:
        return
    low, high = quantiles[..., :-1, None], quantiles[..., 1:, None]
    inside = low + (high - low) * (torch.arange(_POINTS, dtype=scores.dtype) + 0.5) / _POINTS  # [n, K, L − 1, P]
    at = inside.flatten(2).transpose(1, 2)  # [n, points, K]
    found = loss.log_density(scores.repeat_interleave(at.shape[1], dim=0), at.flatten(0, 1))
    assert found is not None
    mass = (found.exp().view(at.shape).transpose(1, 2).reshape(inside.shape).mean(dim=-1) * (high - low)[..., 0]).sum(
        -1
    )
    between = _LEVELS[-1] - _LEVELS[0]
    if not ((mass - between).abs() < _MASS).all():
        raise Fault(
            f"between its quantiles {_LEVELS[0]} and {_LEVELS[-1]} its density has the mass {mass.min():.3f} … "
            f"{mass.max():.3f}, not {between:.2f}: log_density must be normalised, in the unit of the targets"
        )


def posterior_is_the_data(subject: Subject) -> str:
    """`posterior` is η where the expected loss under η is smallest; a proper loss predicts it as well."""
    if subject.loss.target_kind is not TargetKind.CLASSES:
        return "its targets are no classes"
    size = 4 if subject.takes(4) else subject.size
    loss = subject.fresh(size)
    if loss.posterior(torch.zeros(1, size)) is None:
        if loss.is_proper:
            raise Fault("it says is_proper, and gives no posterior")
        return "no closed form"
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        eta = torch.rand(size, dtype=torch.float64, generator=generator) + 0.1
        eta = eta / eta.sum()
        z = minimise(loss, eta)[None]
        posterior = loss.posterior(z)
        assert posterior is not None
        error = (posterior - eta).abs().max().item()
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

    features = Features(torch.zeros(len(eta), 1), torch.arange(len(eta)), torch.ones(len(eta)))

    def closure() -> Tensor:
        optimizer.zero_grad()
        values = loss.from_logits(z.expand(len(eta), -1), features)
        value = (eta * added(values)).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return z.detach()
