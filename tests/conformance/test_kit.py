"""The kit passes every loss that ships, and names what is wrong with each planted fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.config.components import build
from losslab.config.compose import compose_plain
from losslab.conformance import check
from losslab.conformance.kit import examine, run
from losslab.contracts import Features, LossSum, OutputSpec, Projection, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.distillation import Distillation
from losslab.losses.regularizers import Regularized

CONF = Path(__file__).parents[2] / "conf" / "loss"


class Fine(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")


class Mean(Loss):
    """A mean instead of a sum."""

    def forward(self, features: Features, projection: Projection) -> LossSum:
        kept = features.kept()
        values = F.cross_entropy(projection(kept.hidden).float(), kept.target, reduction="none")
        return LossSum((kept.weight * values).sum() / max(1, len(kept)), kept.weight.sum())


class SmoothedPadding(Loss):
    """Smoothing over ignored positions."""

    def forward(self, features: Features, projection: Projection) -> LossSum:
        log_p = projection(features.hidden.nan_to_num()).float().log_softmax(dim=-1)
        own = -log_p.gather(-1, features.target.clamp(min=0)[:, None])[:, 0]
        return LossSum((0.9 * features.weight * own - 0.1 * log_p.mean(dim=-1)).sum(), features.weight.sum())


class Bf16(Loss):
    """Accumulation in bfloat16."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits.bfloat16(), target, reduction="none").to(logits.dtype)


class NoMaximum(Loss):
    """No largest logit subtracted."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        exponentials = logits.exp()
        return -(exponentials.gather(-1, target[:, None])[:, 0] / exponentials.sum(dim=-1)).log()


class Detached(Loss):
    """A factor of the formula without gradient."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        own = F.cross_entropy(logits, target, reduction="none")
        return (1 - (-own).exp()).detach() * own


class WrongFactor(Loss):
    """A temperature whose T² is in the value's shortcut and not in position_loss."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return 4 * F.cross_entropy(logits / 2, target, reduction="none")

    def forward(self, features: Features, projection: Projection) -> LossSum:
        kept = features.kept()
        values = F.cross_entropy(projection(kept.hidden).float() / 2, kept.target, reduction="none")
        return LossSum((kept.weight * values).sum(), kept.weight.sum().detach())


class NotNormalised(Fine):
    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits)


class NanWhenIgnored(Loss):
    """0 / 0 where everything is ignored."""

    def forward(self, features: Features, projection: Projection) -> LossSum:
        kept = features.kept()
        values = F.cross_entropy(projection(kept.hidden).float(), kept.target, reduction="none")
        weight = kept.weight.sum()
        return LossSum((kept.weight * values).sum() / weight * weight, weight.detach())


class Coupled(Loss):
    """One position depends on the others."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits - logits.mean(dim=0), target, reduction="none")


class Random(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        own = F.cross_entropy(logits, target, reduction="none")
        return own * (1 + 0.1 * torch.rand(len(target)).to(own.dtype))


class WrongLink(Fine):
    def posterior(self, logits: Tensor) -> Tensor:
        return (2 * logits).softmax(dim=-1)


class AnyNumber(Loss):
    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob * self.power


class AnyNumbers(Loss):
    """A list of them, of any length."""

    def __init__(self, *, powers: list[float] | tuple[float, ...] = (1.0, 2.0)) -> None:
        super().__init__()
        self.powers = powers

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob * self.powers[0]


class WithoutSquare(Distillation):
    """T instead of T²."""

    def from_logits(self, logits: Tensor, features: Features) -> dict[str, Tensor]:
        terms = super().from_logits(logits, features)
        return terms | {"soft": terms["soft"] / self.softness}


class Disconnected(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.ones(len(target), dtype=logits.dtype)

    def forward(self, features: Features, projection: Projection) -> LossSum:
        return LossSum(features.weight.sum(), features.weight.sum())


class Parametric(Loss):
    """With a parameter of its own, and an option that it checks."""

    def __init__(self, *, start: float = 1.0) -> None:
        super().__init__()
        if not 0 < start < 100:
            raise UserError(f"loss.start must be in (0, 100), not {start}")
        self.start = start

    def bind(self, spec: OutputSpec) -> None:
        self.scale = nn.Parameter(torch.tensor(self.start))

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob * self.scale


FAULTS = [
    (Mean, "sums, not means", "a mean instead of a sum"),
    (SmoothedPadding, "ignored positions", "positions of weight 0 are counted"),
    (Bf16, "precision", "bfloat16"),
    (NoMaximum, "logits of ±10,000", "without its largest logit subtracted"),
    (Detached, "gradient", "detached"),
    (WrongFactor, "forward", "position_loss summed by weight"),
    (NotNormalised, "predictions", "must normalise"),
    (NanWhenIgnored, "all ignored", "not 0"),
    (Coupled, "chunks", "position_wise = False"),
    (Random, "gradient", ""),
    (WrongLink, "posterior", "the link is another one"),
    (AnyNumbers, "options", "powers=[] is accepted"),
    (WithoutSquare, "temperature", "must be multiplied by T²"),
    (Disconnected, "sums, not means", "has no gradient"),
]


@pytest.mark.parametrize(("loss", "name", "said"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_planted_fault_is_named(loss: type[Loss], name: str, said: str) -> None:
    faults = {result.check: result.said for result in examine(loss()) if not result.passed}
    assert name in faults, faults
    assert said in faults[name]


def test_what_is_kept_secret_from_nobody_fails_nothing_else() -> None:
    """A fault in one thing is not reported as ten."""
    for loss, names in ((WrongLink, {"posterior"}), (AnyNumbers, {"options"}), (NotNormalised, {"predictions"})):
        assert {result.check for result in examine(loss()) if not result.passed} == names


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_loss_passes(path: Path) -> None:
    check(build(compose_plain([f"loss={path.stem}"])["loss"], "loss"))


@pytest.mark.parametrize("loss", [Fine, Parametric, AnyNumber], ids=lambda loss: loss.__name__)
def test_a_sound_loss_of_ones_own_passes(loss: type[Loss]) -> None:
    check(loss())


@pytest.mark.parametrize("page", ["README.md"])
def test_the_example_that_people_copy_passes(page: str) -> None:
    text = (CONF.parents[1] / page).read_text()
    code = next(part for part in text.split("```python")[1:] if "(Loss)" in part).partition("```")[0]
    names: dict[str, type[Loss]] = {}
    exec(code, names)
    check(names["Taylor"]())


def test_for_pytest_every_fault_is_in_the_message() -> None:
    with pytest.raises(AssertionError, match=r"(?s)NotNormalised has 1 fault.*predictions: predicted"):
        check(NotNormalised())


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("focl", [], "focal"),
        ("focal", ["loss.gama=1"], "gamma"),
        ("focal", ["seed=1"], "loss.KEY=VALUE"),
        ("torch.nn.Linear", [], "is missing"),
        ("torch.nn.Identity", [], "must derive"),
        ("no_module.Loss", [], "cannot be imported"),
    ],
)
def test_wrong_use_is_answered_in_a_sentence(name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run("loss", [name, *overrides], None)


def test_a_loss_of_values_is_checked_too() -> None:
    class SquaredError(Loss):
        target_kind = TargetKind.VALUES

        def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return (logits - target).square().mean(dim=-1)

    class Doubled(SquaredError):
        def predict_values(self, logits: Tensor) -> Tensor:
            return torch.cat([logits, logits], dim=-1)

    assert not [result for result in examine(SquaredError()) if not result.passed]
    assert [result.check for result in examine(Doubled()) if not result.passed] == ["predictions"]


@pytest.mark.parametrize("classes", [7, 11])
def test_a_loss_with_a_setting_for_each_class_is_tried_with_as_many(classes: int) -> None:
    weights = [0.5 + i % 3 for i in range(classes)]
    check(Regularized(CrossEntropy(class_weights=weights), z_loss=0.01))
