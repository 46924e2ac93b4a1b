"""`losslab.functional`: every loss of the catalogue against its float64 reference, in the shapes of other loops."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, NUM_OUTPUTS, SEQUENCE_CASES, Case
from problems import WIDTH, bound, problem_for
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from losslab.choices import conf_dir
from losslab.contracts import Features, OutputSpec, TargetKind
from losslab.errors import UserError
from losslab.functional import LinearLoss, linear_loss, previous_tokens
from losslab.losses.base import Loss
from losslab.losses.focal import Focal
from losslab.losses.regularizers import Regularized
from losslab.losses.square import Square
from losslab.losses.sum import Sum

B, T = 4, 7
EACH_LOSS = list({case.name: case for case in CASES}.values())


class Problem:
    """B × T positions for a case: float32 leaves, ignored positions, weights; and float64 references."""

    def __init__(self, case: Case) -> None:
        features, projection = problem_for(case, B * T)
        self.case, self.reference = case, features
        self.hidden = features.hidden.float().view(B, T, WIDTH).requires_grad_()
        self.weight = projection.float().requires_grad_()
        target = features.target.clone()
        if target.dtype == torch.int64:
            target[features.weight == 0] = -100
        self.target = target.view(B, T, *target.shape[1:])
        self.sample_weight = features.weight.float().view(B, T)
        self.extras = {name: value.view(B, T, *value.shape[1:]) for name, value in features.extras.items()}
        self.extras = {
            name: value.float() if value.is_floating_point() else value for name, value in self.extras.items()
        }

    def module(self, **more: Any) -> LinearLoss:
        loss = self.case.make()
        if loss.reads_teacher:
            taught = bound(self.case).teacher_log_probs
            assert taught is not None
            loss.teach(taught)
        counts = None
        if loss.target_kind is not TargetKind.VALUES:
            counts = 1 + torch.arange(NUM_OUTPUTS)
        num_outputs, hidden_size = self.weight.shape
        return LinearLoss(num_outputs=num_outputs, hidden_size=hidden_size, loss=loss, class_counts=counts, **more)

    def gradients(self, value: Tensor) -> list[Tensor]:
        return [value.detach(), *torch.autograd.grad(value, [self.hidden, self.weight])]

    def expected(self, upstream: Tensor, *, mean: bool) -> list[Tensor]:
        """Σ upstream · weight · loss in float64, over Σ weight · share for a mean, and its gradients."""
        hidden = self.reference.hidden.clone().requires_grad_()
        weight = self.weight.detach().double().requires_grad_()
        kept = bound(self.case).select(self.reference).weight
        scores = self.case.scores(hidden, weight, None)
        values = upstream * kept * self.case.values(scores, self.reference)
        total = values[kept != 0].sum()
        if mean:
            total = total / (kept * self.case.share(self.reference)).sum()
        of_hidden, of_weight = torch.autograd.grad(total, [hidden, weight])
        return [total.detach(), of_hidden.view(B, T, WIDTH), of_weight]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    for actual, wanted in zip(found, expected, strict=True):
        assert (actual - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.has_detached and case.name != "adaptive_softmax"], ids=str
)
def test_every_loss_has_the_value_and_gradients_of_its_formula(case: Case) -> None:
    problem = Problem(case)
    arguments = (problem.hidden, problem.weight, problem.target)
    further = {"sample_weight": problem.sample_weight, "extras": problem.extras}
    ones = torch.ones(B * T, dtype=torch.float64)
    mean = problem.module()(*arguments, **further)
    assert mean.shape == () and mean.dtype == torch.float32
    assert_near(problem.gradients(mean), problem.expected(ones, mean=True))
    summed = problem.module(reduction="sum")(*arguments, **further)
    assert_near(problem.gradients(summed), problem.expected(ones, mean=False))
    if case.loss.position_wise and not case.loss.trains_otherwise:
        upstream = torch.randn(B * T, generator=torch.Generator().manual_seed(3))
        each = problem.module(reduction="none")(*arguments, **further)
        assert each.shape == (B, T)
        assert_near(
            problem.gradients((each * upstream.view(B, T)).sum()), problem.expected(upstream.double(), mean=False)
        )


def test_every_name_of_the_catalogue_works_or_is_refused_in_a_sentence() -> None:
    names = {path.stem for path in (conf_dir() / "loss").glob("*.yaml")}
    assert names == {case.name for case in (*EACH_LOSS, *SEQUENCE_CASES)}
    refused = {}
    for case in EACH_LOSS:
        problem = Problem(case)
        options = {} if case.name in ("sum", "class_balanced") else case.kwargs
        try:
            value = linear_loss(
                problem.hidden, problem.weight, problem.target, loss=case.name, extras=problem.extras, **options
            )
        except UserError as error:
            refused[case.name] = str(error)
        else:
            assert value.isfinite()
    of_counts = {"logit_adjustment", "coral", "adaptive_softmax", "sampled_softmax"}
    assert refused.keys() == {"sum", "class_balanced", "distillation", "token_order"} | of_counts
    assert "parameters of its own (order)" in refused["token_order"]
    assert "by class_counts" in refused["coral"]
    assert refused["sum"] == "loss='sum' is made of losses: give an instance, Sum(first=…, second=…)"
    assert refused["class_balanced"].endswith("give an instance, ClassBalanced(inner=…)")
    assert "its teach(log_probs)" in refused["distillation"]
    assert "LinearLoss(class_counts=…)" in refused["logit_adjustment"]


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, NUM_OUTPUTS)


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(B, T, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.fixture
def target() -> Tensor:
    target = torch.randint(NUM_OUTPUTS, (B, T), generator=torch.Generator().manual_seed(2))
    target[0, :3] = -100
    return target


def of_torch(hidden: Tensor, layer: nn.Linear, target: Tensor) -> Tensor:
    return F.cross_entropy(layer(hidden).flatten(0, 1), target.flatten())


def of_ours(hidden: Tensor, layer: nn.Linear, target: Tensor) -> Tensor:
    return linear_loss(hidden, layer.weight, target, loss="cross_entropy", bias=layer.bias)


def all_gradients(value: Tensor, hidden: Tensor, layer: nn.Linear) -> list[Tensor]:
    return [value.detach(), *torch.autograd.grad(value, [hidden, layer.weight, layer.bias])]


def test_cross_entropy_is_torchs(hidden: Tensor, layer: nn.Linear, target: Tensor) -> None:
    expected = all_gradients(of_torch(hidden, layer, target), hidden, layer)
    assert_near(all_gradients(of_ours(hidden, layer, target), hidden, layer), expected, 1e-5)
    other = linear_loss(
        hidden,
        layer.weight,
        target.masked_fill(target == -100, 0).int(),
        loss="cross_entropy",
        bias=layer.bias,
        ignore_index=0,
    )
    assert_near([other.detach()], [of_torch(hidden, layer, target.masked_fill(target == 0, -100)).detach()])


def test_nothing_but_ignored_positions_is_zero_with_zero_gradients(hidden: Tensor, layer: nn.Linear) -> None:
    nothing = torch.full((B, T), -100)
    for found in all_gradients(of_ours(hidden, layer, nothing), hidden, layer):
        assert torch.equal(found, torch.zeros_like(found))
    each = linear_loss(hidden, layer.weight, nothing, bias=layer.bias, reduction="none")
    assert torch.equal(each, torch.zeros(B, T))
    assert not torch.autograd.grad(each.sum(), hidden)[0].any()


def test_one_position_needs_no_batch(layer: nn.Linear) -> None:
    hidden = torch.randn(WIDTH)
    value = linear_loss(hidden, layer.weight, torch.tensor(3), bias=layer.bias, loss="cross_entropy", reduction="none")
    assert value.shape == () and value.item() == pytest.approx(F.cross_entropy(layer(hidden), torch.tensor(3)).item())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_under_autocast_gradients_are_those_of_rounded_products(
    reduction: Any, hidden: Tensor, layer: nn.Linear, target: Tensor
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = linear_loss(
            hidden, layer.weight, target, loss="cross_entropy", bias=layer.bias, reduction=reduction
        ).sum()
        expected = F.cross_entropy(
            layer(hidden).float().flatten(0, 1), target.flatten(), reduction="mean" if reduction == "mean" else "sum"
        )
    assert value.dtype == torch.float32
    found, wanted = all_gradients(value, hidden, layer), all_gradients(expected, hidden, layer)
    assert_near(found, wanted, 2e-2)
    scale = 1.0 if reduction == "mean" else float((target != -100).sum())
    exact = all_gradients(scale * of_ours(hidden, layer, target), hidden, layer)
    for rounded, single in zip(found[1:], exact[1:], strict=True):
        assert (rounded - single).abs().max() > 1e-4 * single.abs().max(), "autocast was left out"


def test_torch_compile_breaks_its_graph_and_nothing_else(hidden: Tensor, layer: nn.Linear, target: Tensor) -> None:
    def step(hidden: Tensor, target: Tensor) -> Tensor:
        return 2 * of_ours(hidden.tanh(), layer, target)

    compiled = torch.compile(step, backend="eager")
    expected = all_gradients(step(hidden, target), hidden, layer)
    assert_near(all_gradients(compiled(hidden, target), hidden, layer), expected, 1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradient_checkpointing_changes_nothing(
    reduction: Any, reentrant: bool, hidden: Tensor, layer: nn.Linear, target: Tensor
) -> None:
    def head(hidden: Tensor) -> Tensor:
        return linear_loss(hidden.tanh(), layer.weight, target, bias=layer.bias, reduction=reduction).sum()

    def flat(value: Tensor) -> list[Tensor]:
        value.backward()
        found = [value.detach(), *[p.grad for p in (hidden, layer.weight, layer.bias) if p.grad is not None]]
        hidden.grad = layer.weight.grad = layer.bias.grad = None
        return found

    expected = flat(head(hidden))
    assert len(expected) == 4
    assert_near(flat(checkpoint(head, hidden, use_reentrant=reentrant)), expected, 1e-6)


def test_ddp_averages_the_gradients_of_a_head_outside_its_forward(
    hidden: Tensor, target: Tensor, tmp_path: Path
) -> None:
    """One rank: its hooks see every gradient, of the tied weight too."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(NUM_OUTPUTS, WIDTH), nn.Linear(WIDTH, WIDTH))
        plain, wrapped = deepcopy(model), DistributedDataParallel(model)
        tokens = target.clamp(min=0)
        for body, inner in ((plain, plain), (wrapped, model)):
            linear_loss(body(tokens), inner[0].weight, target, loss="focal").backward()  # type: ignore[no-untyped-call]
        for one, other in zip(plain.parameters(), model.parameters(), strict=True):
            assert one.grad is not None and torch.equal(one.grad, other.grad)
    finally:
        distributed.destroy_process_group()


def test_tokens_before_each_target_are_an_argument(layer: nn.Linear) -> None:
    tokens = torch.randint(NUM_OUTPUTS, (2, 9), generator=torch.Generator().manual_seed(4))
    hidden = torch.randn(2, 8, WIDTH)
    previous = previous_tokens(tokens[:, :-1], 3)
    assert previous[0, 3].tolist() == tokens[0, 1:4].flip(0).tolist() and previous[0, 0].tolist() == [
        tokens[0, 0],
        -1,
        -1,
    ]
    options: dict[str, Any] = {"loss": "unlikelihood", "window": 3, "bias": layer.bias, "reduction": "sum"}
    with pytest.raises(UserError, match=r"reads 'previous'.*previous_tokens\(tokens, 3\)"):
        linear_loss(hidden, layer.weight, tokens[:, 1:], **options)
    with pytest.raises(UserError, match=r"extras\['previous'\] must .*\[2, 8\]"):
        linear_loss(hidden, layer.weight, tokens[:, 1:], extras={"previous": previous[:, 1:]}, **options)
    found = linear_loss(hidden, layer.weight, tokens[:, 1:], extras={"previous": previous}, **options)
    logits = layer(hidden).flatten(0, 1)
    seen = F.one_hot(previous.flatten(0, 1).long() + 1, NUM_OUTPUTS + 1).sum(dim=1)[:, 1:] > 0
    seen[torch.arange(16), tokens[:, 1:].flatten()] = False
    penalty = -(1 - logits.softmax(dim=-1)).log()[seen].sum()
    wanted = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum") + penalty
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


class Scaled(Loss):
    """A loss of one's own with a parameter that depends on the sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor

    def bind(self, spec: OutputSpec) -> None:
        self.scale = nn.Parameter(torch.full((spec.num_outputs,), 2.0))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits * self.scale, target, reduction="none")


def test_a_loss_with_parameters_is_a_module(hidden: Tensor, layer: nn.Linear, target: Tensor) -> None:
    with pytest.raises(UserError, match=r"Scaled has parameters of its own \(scale\).*LinearLoss"):
        linear_loss(hidden, layer.weight, target, loss=Scaled())
    for reduction in ("mean", "none"):
        head = LinearLoss(num_outputs=NUM_OUTPUTS, hidden_size=WIDTH, loss=Scaled(), reduction=reduction)
        assert [name for name, _ in head.named_parameters()] == ["loss.scale"]
        copied = deepcopy(head)
        with torch.no_grad():
            copied.loss.scale.mul_(1.5)
        (copied(hidden, layer.weight, target).sum()).backward()
        expected = copied.loss.scale.detach().clone().requires_grad_()
        logits = (hidden @ layer.weight.T).flatten(0, 1) * expected
        F.cross_entropy(logits, target.flatten(), reduction="mean" if reduction == "mean" else "sum").backward()
        assert float(copied.loss.scale.detach()[0]) == 3.0, "bound again"
        assert_near([copied.loss.scale.grad], [expected.grad])


def test_instances_keep_their_state_and_their_sizes(hidden: Tensor, layer: nn.Linear, target: Tensor) -> None:
    loss = Square(k=3.0)
    linear_loss(hidden, layer.weight, target, loss=loss)
    loss.calibrate(2.0)
    linear_loss(hidden, layer.weight, target, loss=loss)
    assert float(loss.prediction_scale) == 2.0
    with pytest.raises(UserError, match="Square serves a projection of 7 outputs of width 6, and this one has 6 of"):
        linear_loss(hidden, layer.weight[1:], target.clamp(max=5), loss=loss)
    mixed = Sum(first=Focal(), second=Focal(gamma=0.0))
    found = linear_loss(hidden, layer.weight, target, loss=mixed)
    parts = [linear_loss(hidden, layer.weight, target, loss="focal", gamma=gamma) for gamma in (2.0, 0.0)]
    assert found.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-6)
    capped = Regularized(Focal(gamma=0.0), z_loss=0.1, soft_cap=2.0, mu_loss=0.5)
    logits = 2 * torch.tanh((hidden @ layer.weight.T).flatten(0, 1) / 2)[target.flatten() != -100]
    wanted = F.cross_entropy(logits, target[target != -100]) + 0.1 * logits.logsumexp(dim=-1).square().mean()
    wanted = wanted + 0.5 * layer.weight.mean(dim=0).square().sum()
    assert linear_loss(hidden, layer.weight, target, loss=capped).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_first_call_without_gradients_leaves_a_loss_that_trains(hidden: Tensor, layer: nn.Linear) -> None:
    target = torch.zeros(B, T, dtype=torch.int64)
    weights = [0.5] * NUM_OUTPUTS
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            value = linear_loss(hidden, layer.weight, target, loss="cross_entropy", class_weights=weights)
    assert torch.autograd.grad(value, hidden)[0].any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "focl"}, "there is no loss named 'focl': did you mean 'focal'?"),
        ({"gama": 3.0}, "there is no key 'loss.gama': did you mean 'loss.gamma'?"),
        ({"gamma": "x"}, "loss.gamma must be a number, not 'x'"),
        ({"gamma": -1.0}, "loss.gamma must be 0 or above and finite, not -1.0"),
        ({"loss": Focal}, "an instance of a Loss class, not the class Focal"),
        ({"loss": Focal(), "gamma": 1.0}, "gamma goes with a loss's name: give it to Focal(…) instead"),
        ({"reduction": "avg"}, "reduction cannot be 'avg': there are mean, none, sum"),
        ({"target": torch.zeros(B, T + 1, dtype=torch.int64)}, "Focal needs classes, int64 [4, 7], not torch.int64"),
        ({"target": torch.zeros(B, T)}, "Focal needs classes, int64 [4, 7], not torch.float32"),
        ({"target": torch.full((B, T), 7)}, "target 7 is no class: there are 7, from 0 to 6"),
        ({"target": torch.full((B, T), -1)}, "target -1 is no class"),
        ({"weight": torch.zeros(NUM_OUTPUTS, WIDTH + 1)}, "hidden must be float […, 7], as wide as weight [7, 7]"),
        ({"weight": torch.zeros(0)}, "weight must be float [V, D], not torch.float32 of shape [0]; under FSDP"),
        ({"bias": torch.zeros(3)}, "bias must be [7]"),
        ({"sample_weight": torch.ones(B)}, "sample_weight must have the shape of the positions, [4, 7], not [4]"),
        ({"sample_weight": -torch.ones(B, T)}, "finite and not below 0; reduction='none'"),
        ({"loss": "mse"}, "MSE needs 1 outputs"),
        ({"loss": "soft_cross_entropy", "target": torch.ones(B, T, 3)}, "[N, 7], a number for each class"),
        ({"loss": "distillation", "teacher": "run"}, "loss.teacher is read by losslab train alone"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(
    change: dict[str, Any], sentence: str, hidden: Tensor, layer: nn.Linear, target: Tensor
) -> None:
    arguments = {"hidden": hidden, "weight": layer.weight, "target": target, "loss": "focal", **change}
    with pytest.raises(UserError) as caught:
        linear_loss(**arguments)
    assert sentence in str(caught.value)


def test_classes_serve_losses_of_distributions_and_single_values_need_no_axis(
    hidden: Tensor, layer: nn.Linear, target: Tensor
) -> None:
    soft = linear_loss(hidden, layer.weight, target, loss="soft_cross_entropy", bias=layer.bias)
    assert_near([soft.detach()], [of_torch(hidden, layer, target).detach()])
    with pytest.raises(UserError, match="target 13 is no class"):
        linear_loss(hidden, layer.weight, target + 7, loss="soft_cross_entropy", ignore_index=-93)
    values = torch.randn(B, T)
    found = linear_loss(hidden, layer.weight[:1], values, loss="mse")
    assert_near([found.detach()], [F.mse_loss((hidden @ layer.weight[:1].T)[..., 0], values).detach()], 1e-5)


def test_counts_of_classes_are_as_many_as_outputs() -> None:
    with pytest.raises(UserError, match=r"class_counts must be \[7\], not \[3\]"):
        LinearLoss(num_outputs=7, hidden_size=2, loss="logit_adjustment", class_counts=torch.ones(3))


def test_the_import_needs_torch_alone() -> None:
    program = "import sys, losslab.functional; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"lightning", "hydra", "omegaconf", "torchmetrics", "transformers", "scipy", "matplotlib"}


def test_features_of_the_contract_are_what_the_function_makes(hidden: Tensor, layer: nn.Linear, target: Tensor) -> None:
    """The same sums as a run's, bit for bit."""
    features = Features(hidden.flatten(0, 1), target.flatten(), (target != -100).float().flatten())
    result = Focal()(features, layer)
    assert torch.equal(linear_loss(hidden, layer.weight, target, bias=layer.bias), result.total / result.weight)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_target_whose_probability_underflows_has_its_loss_and_gradients(temperature: float) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(6, 5, generator=generator)
    weight, target = torch.randn(11, 5, generator=generator), torch.tensor([0, 1, 2, 3, 4, 5])
    hidden[1::2] *= -400 * (hidden * weight[:6]).sum(dim=-1, keepdim=True).sign()[1::2]  # their targets score lowest
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]

    total = linear_loss(*leaves, target, loss="cross_entropy", reduction="sum", temperature=temperature)
    expected = F.cross_entropy(exact[0] @ exact[1].T / temperature, target, reduction="sum")
    gradients, references = torch.autograd.grad(total, leaves), torch.autograd.grad(expected, exact)

    each = F.cross_entropy(exact[0] @ exact[1].T / temperature, target, reduction="none")
    assert bool((each[1::2] > 110).all())
    assert bool((each[::2] < 20).all())
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient.double(), reference, rtol=1e-4, atol=1e-4)
