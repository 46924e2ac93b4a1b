"""The plots of scripts/docs: each loss and its gradient on one axis of its problem."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from losslab.config.components import build
from losslab.conformance.catalogue import Entry
from losslab.contracts import Features, OutputSpec, TargetKind, added
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.ctc import CTC
from losslab.losses.hl_gauss import HLGauss
from losslab.losses.mse import MSE
from losslab.losses.quantile import Quantile

V, POINTS = 10, 161
SHARE = 0.8
"""The share of the one class in a teacher's prediction or a target distribution."""
RARE = 10
"""How much rarer the target is than each other class, where a loss asks."""
SPREAD = 0.5
NOTES = {
    "square": "against the target's score, the others being 0",
    "hinge": "against the target's score, the others being 0",
    "goldfish": "against the log-odds of a target that is kept",
    "harmonic": "against the target's log-odds, in the logits z that it makes of distances",
    "logit_adjustment": "against the log-odds of a target that is ten times rarer than each of 9 equal others",
    "adaptive_softmax": "against the target's log-odds, all classes being at hand, as in an evaluation",
    "sampled_softmax": "against the target's log-odds, all classes being sampled",
    "multi_token": "against the target's log-odds: the term of head 1, by itself",
    "token_order": "against the target's log-odds: the term of cross-entropy, by itself",
    "supervised_contrastive": "against the target's log-odds: the term of cross-entropy, by itself",
    "coral": "against the log-odds of the lowest class, the other 9 equal",
    "distillation": "against the target's log-odds, with a teacher that gives it 0.8",
    "unlikelihood": "against the target's log-odds, one of the others having been there before",
    "soft_cross_entropy": "against the log-odds of a class that has 0.8 of the target, the other 9 equal",
    "gaussian_nll": "against the error μ − y, at σ = 1",
    "hl_gauss": f"against the error ŷ − y of a Gaussian histogram around ŷ, of standard deviation {SPREAD}",
    "quantile": "against the error ŷ − y, each level by itself",
    "ctc": "against the log-odds of a target of one class at the second of three positions, all outputs being equal at "
    "the others",
}
"""Where the plot is not that of its kind of targets."""
_RANGES = {"square": (-10.0, 60.0), "hinge": (-3.0, 3.0)}
_ALONE = ("cross_entropy", "mse", "quantile")
"""Beside which there is nothing to draw, as beside raw scores."""
_LABELS = {
    TargetKind.CLASSES: ("log-odds of the target", "∂ℓ / ∂z_y"),
    TargetKind.DISTRIBUTIONS: ("log-odds of the class", "∂ℓ / ∂z_j"),
    TargetKind.LABELS: ("logit of the label", "∂ℓ / ∂z_j"),
    TargetKind.VALUES: ("error ŷ − y", "∂ℓ / ∂ŷ"),
    TargetKind.SEQUENCES: ("log-odds of the target", "∂ℓ / ∂z_y"),
}
_COLORS, _STYLES = ("#3a86d8", "#d55e00", "#009e73"), ("-", "-.", ":")
"""Told apart by the colour-blind, and readable on white and on black, as the grey is."""
_GREY = "#808080"
_STYLE = {
    "svg.hashsalt": "losslab",
    "svg.fonttype": "none",
    "path.simplify": False,
    "font.size": 8,
    "text.color": _GREY,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Curve:
    """A loss along an axis, and its slope; each float64 [POINTS]."""

    label: str
    x: Tensor
    loss: Tensor
    gradient: Tensor


def draw(entry: Entry) -> str:
    """The SVG, the same at every call."""
    with matplotlib.rc_context(_STYLE):
        file = io.StringIO()
        figure(entry).savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"(-?\d+\.\d\d)\d+", r"\1", file.getvalue())  # hundredths of a point; the same on every machine
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def figure(entry: Entry) -> Figure:
    """Two panels, the loss and its gradient."""
    found = Figure(figsize=(4.5, 2.2), layout="constrained")
    found.get_layout_engine().set(w_pad=0.07, h_pad=0.04, wspace=0.06)
    left, right = found.subplots(1, 2)
    along, slope = _LABELS[entry.target_kind]
    if entry.name in _RANGES:
        along, slope = "score of the target", "∂ℓ / ∂f_y"
    own, beside = curves(entry), _reference(entry)
    _panel(left, own, beside, "loss", along, "ℓ")
    _panel(right, own, beside, "gradient", along, slope)
    return found


def _panel(axes: Axes, own: list[Curve], beside: Curve | None, which: str, along: str, label: str) -> None:
    for i, curve in enumerate(own):
        axes.plot(
            curve.x, getattr(curve, which), color=_COLORS[i], ls=_STYLES[i], label=curve.label, gid=f"{which}-{i}"
        )
    low, high = axes.get_ylim()
    if high - low < 1e-6:
        low, high = low - 1, high + 1
    if beside is not None:
        axes.plot(beside.x, getattr(beside, which), color=_GREY, ls="--", lw=1, zorder=1)
    axes.set_ylim(low, high)
    axes.set_xlim(own[0].x[0].item(), own[0].x[-1].item())
    axes.locator_params(nbins=5)
    axes.set_xlabel(along)
    axes.set_title(label, fontsize=8, loc="left")
    if len(own) > 1 and which == "loss":
        axes.legend(frameon=False, fontsize=7, handlelength=1.5)


def curves(entry: Entry) -> list[Curve]:
    """One; of several quantiles, one each."""
    loss = build({"_target_": entry.target, **{key.name: key.default for key in entry.keys}}, "loss")
    if isinstance(loss, Quantile):
        return [_along(Quantile(levels=[level]), f"τ = {level:g}", entry) for level in loss.levels]
    return [_along(loss, "", entry)]


def _reference(entry: Entry) -> Curve | None:
    plain = {TargetKind.CLASSES: CrossEntropy, TargetKind.VALUES: MSE}.get(entry.target_kind)
    if plain is None or entry.name in (*_RANGES, *_ALONE):
        return None
    return _along(plain(), "", entry)


def _along(loss: Loss, label: str, entry: Entry) -> Curve:
    kind = entry.target_kind
    ends = _RANGES.get(entry.name, (-4.0, 4.0) if kind is TargetKind.VALUES else (-8.0, 8.0))
    x = torch.linspace(*ends, POINTS, dtype=torch.float64)
    size = {TargetKind.VALUES: 1, TargetKind.LABELS: 1, TargetKind.SEQUENCES: V - 1}.get(kind, V)
    counts = torch.full((V,), RARE, dtype=torch.float64)
    counts[0] = 1
    loss.bind(OutputSpec(loss.num_outputs(size), 64, torch.Generator(), class_counts=1e6 * counts, size=size))
    free = _of_classes(x, entry.name) if size > 1 else x.clone()
    free.requires_grad_()
    logits = _OUTPUTS.get(type(loss), _outputs)(loss, x, free, size)
    value = added(loss.from_logits(logits, _features(loss, kind)))
    (gradient,) = torch.autograd.grad(value.sum(), free)
    return Curve(label, x, value.detach(), gradient)


def _of_classes(x: Tensor, name: str) -> Tensor:
    """z_y [N]: of logits of mean 0 with these log-odds, or the score itself."""
    return x.clone() if name in _RANGES else (x + math.log(V - 1)) * (V - 1) / V


def _outputs(loss: Loss, x: Tensor, free: Tensor, size: int) -> Tensor:
    """[N, outputs], of which `free` is the target's; the others are held."""
    if size == 1:
        rest = torch.zeros(len(x), loss.num_outputs(1) - 1, dtype=torch.float64)
        return torch.cat([free[:, None], rest], dim=1)
    others = torch.zeros_like(x) if hasattr(loss, "prediction_scale") else -free.detach() / (V - 1)
    logits = torch.cat([free[:, None], others[:, None].expand(-1, V - 1)], dim=1)
    of_scores = type(loss).adapt is not Loss.adapt or loss.num_outputs(V) != V
    return logits if of_scores else loss.map_logits(logits)


def _histogram(loss: Loss, x: Tensor, free: Tensor, size: int) -> Tensor:
    assert isinstance(loss, HLGauss)
    width = (loss.high - loss.low) / loss.num_bins
    centres = loss.low + width * (torch.arange(loss.num_bins, dtype=torch.float64) + 0.5)
    return -((centres - free[:, None]) ** 2) / (2 * SPREAD**2)


def _second_of_three(loss: Loss, x: Tensor, free: Tensor, size: int) -> Tensor:
    """[3 N, V]: the blank, the target's class, and the others."""
    others = (-free.detach() / size)[:, None]
    second = torch.cat([others, free[:, None], others.expand(-1, size - 1)], dim=1)
    equal = torch.zeros_like(second)
    return torch.stack([equal, second, equal], dim=1).flatten(0, 1)


_OUTPUTS: dict[type, Callable[[Loss, Tensor, Tensor, int], Tensor]] = {HLGauss: _histogram, CTC: _second_of_three}


def _features(loss: Loss, kind: TargetKind) -> Features:
    """The first class, a label that is present, or 0."""
    shares = torch.full((POINTS, V), (1 - SHARE) / (V - 1), dtype=torch.float64)
    shares[:, 0] = SHARE
    target = {
        TargetKind.CLASSES: torch.zeros(POINTS, dtype=torch.int64),
        TargetKind.DISTRIBUTIONS: shares,
        TargetKind.LABELS: torch.ones(POINTS, 1, dtype=torch.float64),
        TargetKind.VALUES: torch.zeros(POINTS, 1, dtype=torch.float64),
        TargetKind.SEQUENCES: torch.zeros(POINTS, 1, dtype=torch.int64),
    }[kind]
    extras = {"previous": torch.ones(POINTS, 1, dtype=torch.int64), "teacher_hidden": shares.log()}
    if loss.reads_teacher:
        loss.teach(lambda hidden: hidden)
    lengths = torch.full((POINTS,), 3) if kind is TargetKind.SEQUENCES else None
    return Features(torch.zeros(POINTS, 1), target, torch.ones(POINTS), extras, lengths)
