"""R-Drop: values and gradients against float64 torch, the dropout stream of both passes, logs and refusals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_network import CLASS_WEIGHTS, CONTEXT, INFO, V, make_batch, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from losses.cases import CASES, Case
from losslab.contracts import Batch, Features, LossSum, TargetKind
from losslab.errors import Fault, UserError
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.execution import limit_rows
from losslab.losses.r_drop import TERM, RDrop, check_r_drop
from losslab.losses.regularizers import Regularized
from losslab.losses.stablemax import StableMax
from losslab.models.decoder import Decoder
from losslab.models.projection import OutputProjection
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network
from losslab.training.random import seed_dropout
from losslab.training.trial.model import ModelTrial, draws
from runs import only_run, stopping_after

ALPHA, D, N = 0.75, 5, 9


def network(loss: Loss | None = None, *, r_drop: float = ALPHA, **options: float) -> Network:
    backbone = Decoder(
        num_layers=2, num_heads=2, width=8, context=CONTEXT, init_std=0.3, tie_embeddings=False, vocab_size=V,
        generator=torch.Generator().manual_seed(0), **options,
    )  # fmt: skip
    return Network(
        backbone=backbone,
        loss=loss or CrossEntropy(),
        task=LanguageModeling(),
        info=INFO,
        head_init=torch.Generator().manual_seed(1),
        r_drop=r_drop,
    )


def apart(log_p: Tensor, log_q: Tensor, kind: TargetKind) -> Tensor:
    """½ (KL(p ‖ q) + KL(q ‖ p)) [N], with each label a distribution over two."""
    if kind is TargetKind.LABELS:
        log_p, log_q = (torch.stack([log, torch.log(1 - log.exp())], dim=-1) for log in (log_p, log_q))
    forth = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    back = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    return (forth + back).flatten(1).sum(dim=-1) / 2


def stable(logits: Tensor) -> Tensor:
    s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
    return (s / s.sum(dim=-1, keepdim=True)).log()


PREDICTIONS: dict[str, tuple[Callable[[], Loss], Callable[[Tensor], Tensor]]] = {
    "temperature": (lambda: CrossEntropy(temperature=2.0), lambda z: (z / 2).log_softmax(dim=-1)),
    "class weights": (lambda: CrossEntropy(class_weights=CLASS_WEIGHTS), lambda z: z.log_softmax(dim=-1)),
    "soft cap": (
        lambda: Regularized(CrossEntropy(), soft_cap=2.0),
        lambda z: (2 * torch.tanh(z / 2)).log_softmax(dim=-1),
    ),
    "stablemax": (StableMax, stable),
    "labels": (BinaryCrossEntropy, lambda z: F.logsigmoid(z)),
}
"""Losses, and their log-probabilities by hand."""


@pytest.mark.parametrize("name", PREDICTIONS)
def test_value_and_gradient_are_those_of_float64(name: str) -> None:
    make, log_probs = PREDICTIONS[name]
    loss = make()
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(N, 2 * D, generator=generator)
    weight = torch.randint(3, (N,), generator=generator).float()
    target = torch.randint(V, (N,), generator=generator)
    target = F.one_hot(target, V).float() if loss.target_kind is TargetKind.LABELS else target
    projection = OutputProjection.initialised(V, D, 0.8, generator)
    leaves = [hidden.requires_grad_(), projection.weight]
    with limit_rows(4):
        result: LossSum = RDrop(loss, ALPHA)(Features(hidden, target, weight), projection)
    found = torch.autograd.grad(result.total, leaves)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logs = [log_probs(part @ wide[1].T) for part in wide[0].chunk(2, dim=-1)]
    total = (ALPHA * weight.double() * apart(logs[0], logs[1], loss.target_kind)).sum()
    assert result.total.item() == pytest.approx(total.item(), rel=1e-5)
    assert result.weight.item() == weight.sum().item()
    for mine, theirs in zip(found, torch.autograd.grad(total, wide), strict=True):
        assert relative_error(mine.double(), theirs) < 1e-5


def test_certain_labels_have_finite_gradients() -> None:
    hidden = torch.tensor([[200.0, -200.0], [200.0, 150.0], [-200.0, -90.0]], requires_grad=True)
    projection = OutputProjection(torch.ones(1, 1))
    result = RDrop(BinaryCrossEntropy(), 1.0)(Features(hidden, torch.ones(3, 1), torch.ones(3)), projection)
    (gradient,) = torch.autograd.grad(result.total, [hidden])
    assert result.total.isfinite()
    assert gradient.isfinite().all()


def by_hand(net: Network, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The objective of a batch and its r_drop, in plain torch: two passes in the dropout stream."""
    seed_dropout(7, step=0, micro=0, rank=0)
    kept = batch.weight.flatten() > 0
    logits = [net.projection(net.backbone(batch.inputs).flatten(0, 1)[kept]).double() for _ in range(2)]
    log_p, log_q = (each.log_softmax(dim=-1) for each in logits)
    target, weight = batch.target.flatten()[kept], batch.weight.flatten()[kept].double()
    own = weights.double()[target] * weight
    likelihoods = [-(own * each.gather(-1, target[:, None])[:, 0]).sum() / own.sum() for each in (log_p, log_q)]
    penalty = ALPHA * (weight * apart(log_p, log_q, TargetKind.CLASSES)).sum() / weight.sum()
    return sum(likelihoods) / 2 + penalty, penalty


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_the_objective_of_a_batch_with_dropout(weights: list[float] | None) -> None:
    net, batch = network(CrossEntropy(class_weights=weights), dropout=0.3, drop_path=0.2), make_batch()
    seed_dropout(7, step=0, micro=0, rank=0)
    result = net(batch)
    (result.total / result.weight).backward()
    found = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    objective, penalty = by_hand(net, batch, torch.ones(V) if weights is None else torch.tensor(weights))
    objective.backward()
    assert (result.total / result.weight).item() == pytest.approx(objective.item(), rel=1e-5)
    assert (result.terms[TERM] / result.weight).item() == pytest.approx(penalty.item(), rel=1e-5)
    assert penalty > 0.01
    for mine, parameter in zip(found, net.parameters(), strict=True):
        assert mine is not None
        assert parameter.grad is not None
        assert relative_error(mine.double(), parameter.grad.double()) < 1e-5


def test_the_first_pass_draws_what_it_draws_alone() -> None:
    seen: list[Tensor] = []
    for r_drop in (0.0, ALPHA):
        net = network(r_drop=r_drop, dropout=0.3)
        net.backbone.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
        seed_dropout(7, step=0, micro=0, rank=0)
        net(make_batch())
    alone, first, second = seen
    assert torch.equal(alone, first)
    assert not torch.equal(first, second)


def test_an_evaluation_has_one_pass_and_no_penalty() -> None:
    net, plain, batch = network(dropout=0.3).eval(), network(r_drop=0.0).eval(), make_batch()
    assert net(batch).terms == {}
    assert torch.equal(net(batch).total, plain(batch).total)
    assert net.state_dict().keys() == plain.state_dict().keys()


REFUSED = {"square", "hinge", "entmax"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_whose_predictions_cannot_be_compared_are_refused(case: Case) -> None:
    if case.loss.target_kind is TargetKind.VALUES or case.name in REFUSED:
        reason = "predicts values" if case.loss.target_kind is TargetKind.VALUES else "above 0 and that training alone"
        with pytest.raises(UserError, match=reason):
            check_r_drop(case.make())
    else:
        check_r_drop(case.make())


class Dropping(nn.Module):
    width = 8

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.embedding = nn.Embedding(V, 8)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return F.dropout(self.embedding(inputs["tokens"]), self.p, self.training)


def test_a_model_of_ones_own_is_refused_where_it_draws_nothing() -> None:
    def trial(p: float) -> ModelTrial:
        return ModelTrial(lambda seed: Dropping(p), make_batch(), LanguageModeling(), TargetKind.CLASSES, V, V)

    assert "differ" in draws(trial(0.1))
    with pytest.raises(Fault, match=r"are the same in training, and trainer\.r_drop compares them"):
        draws(trial(0.0))


class NoGradient(CrossEntropy):
    @torch.no_grad()
    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return super().predict_log_probs(logits)


def test_predictions_without_a_gradient_are_refused() -> None:
    with pytest.raises(UserError, match=r"NoGradient\.predict_log_probs gives no gradient"):
        network(NoGradient(), dropout=0.1)(make_batch())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.r_drop=1"], "this model has none: give model.dropout=0.1"),
        (["trainer.r_drop=1", "model.drop_path=0.1", "loss=square"], "loss=square"),
    ],
)
def test_runs_are_refused_before_data_is_read(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_tiny(*words) == 2
    assert message in capsys.readouterr().err


def test_a_run_logs_it_and_a_continued_one_is_the_same_bit_for_bit(run_tiny: Callable[..., int]) -> None:
    words = ["trainer.r_drop=1", "model.dropout=0.2", "trainer.log_every_n_steps=1", "trainer.max_steps=4"]
    words += ["trainer.val_check_interval=2", "checkpoints.every_n_steps=2", "trainer.accumulate_grad_batches=2"]
    assert run_tiny("name=whole", *words) == 0
    with stopping_after(2):
        assert run_tiny("name=cut", *words) != 0
    assert run_tiny("name=cut", *words) == 0
    weights = []
    for name in ("whole", "cut"):
        folder, record = only_run(Path("outputs") / name)
        assert record.status == "completed"
        weights.append(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
        rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
        logged = [float(row["train/objective/r_drop"]) for row in rows if row["train/objective/r_drop"]]
        assert len(logged) == 4
        assert min(logged) > 0
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
