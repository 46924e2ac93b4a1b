"""Metrics against a dense float64 computation by hand, and what must not change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from losslab.contracts import Features, OutputSpec
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.square import Square
from losslab.metrics import class_metrics
from losslab.metrics.class_metrics import ClassMetrics, scoring_rows
from losslab.metrics.scale import fit_scale
from losslab.models.decoder import Decoder
from losslab.models.projection import OutputProjection

V, ROWS, SCALE = 11, 90, 1.3
WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0, 1.0, 1.0, 2.0, 0.5, 1.0]
CLIP = 1e-6 / V

Array = NDArray[np.float64]
ByHand = Callable[[Array, NDArray[np.int64]], Array]


@dataclass(frozen=True)
class Row:
    """A loss, and by hand: what it predicts with, its link, its objective's terms and denominators."""

    name: str
    loss: Callable[[], Loss]
    log_probs: Callable[[Array], Array]
    link: Callable[[Array], Array]
    losses: ByHand
    share: Callable[[NDArray[np.int64]], Array] = lambda target: np.ones(len(target))


def log_softmax(logits: Array) -> Array:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def of_target(values: Array, target: NDArray[np.int64]) -> Array:
    return values[np.arange(len(target)), target]


def weighted_link(logits: Array) -> Array:
    p = np.exp(log_softmax(logits / 2)) / WEIGHTS
    p /= p.sum(axis=-1, keepdims=True)
    return (p - 0.1 / V) / 0.9


def weighted_losses(logits: Array, target: NDArray[np.int64]) -> Array:
    costs = -np.array(WEIGHTS) * log_softmax(logits / 2)
    return 0.9 * of_target(costs, target) + 0.1 * costs.mean(axis=-1)


def kl_losses(logits: Array, target: NDArray[np.int64]) -> Array:
    q = 0.9 * np.eye(V)[target] + 0.1 / V
    return (q * (np.log(q) - log_softmax(logits))).sum(axis=-1)


def square_losses(scores: Array, target: NDArray[np.int64]) -> Array:
    hot = np.eye(V)[target]
    return (np.where(hot == 1, 4.0, 1.0) * (scores - 2.0 * hot) ** 2).mean(axis=-1)


def square_link(scores: Array) -> Array:
    f = scores.clip(0, 2)
    return f / (4 * 2 - (4 - 1) * f)


def calibrated_square() -> Loss:
    loss = Square(k=4.0, m=2.0)
    loss.calibrate(1.7)
    return loss


LOSSES = [
    Row(
        "cross-entropy",
        CrossEntropy,
        log_softmax,
        lambda z: np.exp(log_softmax(z)),
        lambda z, y: -of_target(log_softmax(z), y),
    ),
    Row(
        "all options",
        lambda: CrossEntropy(label_smoothing=0.1, temperature=2.0, class_weights=WEIGHTS),
        lambda z: log_softmax(z / 2),
        weighted_link,
        weighted_losses,
        lambda y: np.array(WEIGHTS)[y],
    ),
    Row(
        "kl",
        KLDivergence,
        log_softmax,
        lambda z: (np.exp(log_softmax(z)) - 0.1 / V) / 0.9,
        kl_losses,
    ),
    Row("square", calibrated_square, lambda z: log_softmax(1.7 * z), square_link, square_losses),
]

each_loss = pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)


@pytest.fixture
def features(projection: OutputProjection) -> Features:
    """Targets drawn from what a softmax predicts, so that about half of them have the largest logit."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, 5, generator=generator)
    weight = torch.tensor([1.0, 1.0, 0.0, 0.5, 1.0, 2.0]).repeat(ROWS // 6)
    return Features(
        hidden=hidden,
        target=torch.multinomial(projection(hidden).softmax(dim=-1), 1, generator=generator)[:, 0],
        weight=weight,
        extras={
            "bytes": torch.randint(1, 6, (ROWS,), generator=generator).float(),
            "fit": torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]).repeat(ROWS // 5),
        },
    )


@pytest.fixture
def projection() -> OutputProjection:
    return OutputProjection(torch.randn(V, 5, generator=torch.Generator().manual_seed(1)))


def measure(loss: Loss, projection: OutputProjection, *batches: Features, held_out: bool = True) -> dict[str, float]:
    measures = ClassMetrics(SCALE, held_out=held_out)
    for batch in batches:
        measures.update(batch, loss, projection)
    return measures.values()


def by_hand(row: Row, features: Features, projection: OutputProjection, *, held_out: bool) -> dict[str, float]:
    counted = (features.weight != 0).numpy()
    z = (features.hidden.double() @ projection.weight.double().T).numpy()[counted]
    y, weight = features.target.numpy()[counted], features.weight.double().numpy()[counted]
    extras = {name: value.double().numpy()[counted] for name, value in features.extras.items()}
    count = weight.sum()
    nll = -(weight * of_target(row.log_probs(z), y)).sum()
    scored = weight * (1 - extras["fit"]) if held_out else weight
    eta = row.link(z)
    clipped = eta.clip(CLIP, 1)
    return {
        "nll": nll / count,
        "nll_scaled": -(scored * of_target(log_softmax(SCALE * z), y)).sum() / scored.sum(),
        "perplexity": math.exp(nll / count),
        "bits_per_byte": nll / math.log(2) / extras["bytes"].sum(),
        "top1": (weight * (z.argmax(axis=-1) == y)).sum() / count,
        "objective": (weight * row.losses(z, y)).sum() / (weight * row.share(y)).sum(),
        "logit_norm": (weight * np.sqrt((z**2).sum(axis=-1))).sum() / count,
        "scale": SCALE,
        "nll_linked": -(weight * np.log(of_target(clipped / clipped.sum(axis=-1, keepdims=True), y))).sum() / count,
        "nll_linked_clipped": (weight * (of_target(eta, y) < CLIP)).sum() / count,
    }


@each_loss
@pytest.mark.parametrize("held_out", [True, False])
def test_values_equal_a_dense_float64_computation(
    row: Row, held_out: bool, features: Features, projection: OutputProjection
) -> None:
    expected = by_hand(row, features, projection, held_out=held_out)
    assert measure(row.loss(), projection, features, held_out=held_out) == pytest.approx(expected, rel=2e-6)


def test_some_square_scores_are_clipped_in_these_tests(features: Features, projection: OutputProjection) -> None:
    assert 0.1 < measure(calibrated_square(), projection, features)["nll_linked_clipped"] < 0.9


@each_loss
@pytest.mark.parametrize("size", [1, 7, 89])
def test_batches_can_be_cut_anywhere(row: Row, size: int, features: Features, projection: OutputProjection) -> None:
    whole = measure(row.loss(), projection, features)
    assert measure(row.loss(), projection, *features.chunks(size)) == pytest.approx(whole, rel=1e-6)


@each_loss
def test_the_chunks_inside_an_update_do_not_matter(
    row: Row, features: Features, projection: OutputProjection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(row.loss(), projection, features)
    monkeypatch.setattr(class_metrics, "scoring_rows", lambda num_outputs: 8)
    assert measure(row.loss(), projection, features) == pytest.approx(whole, rel=1e-6)


@each_loss
def test_sums_of_two_ranks_add_up(row: Row, features: Features, projection: OutputProjection) -> None:
    ranks = [ClassMetrics(SCALE, held_out=True) for _ in range(2)]
    for rank, share in zip(ranks, features.chunks(50), strict=True):
        rank.update(share, row.loss(), projection)
    ranks[0].sums += ranks[1].sums
    assert ranks[0].values() == pytest.approx(measure(row.loss(), projection, features), rel=1e-6)


@each_loss
def test_update_returns_the_sums_of_the_objective(row: Row, features: Features, projection: OutputProjection) -> None:
    sums = ClassMetrics(SCALE, held_out=True).update(features, row.loss(), projection)
    expected = row.loss()(features, projection)
    assert sums.total.item() == pytest.approx(expected.total.item(), rel=2e-6)
    assert sums.weight.item() == pytest.approx(expected.weight.item(), rel=2e-6)


@each_loss
def test_metrics_do_not_depend_on_autocast(row: Row, features: Features, projection: OutputProjection) -> None:
    expected = measure(row.loss(), projection, features)
    with torch.autocast("cpu", torch.bfloat16):
        values = measure(row.loss(), projection, features)
    assert values.pop("objective") == pytest.approx(expected.pop("objective"), rel=0.02)  # this one is the loss's own
    assert values == expected


def test_rows_of_weight_zero_count_nowhere(features: Features, projection: OutputProjection) -> None:
    garbage = features.hidden.masked_fill((features.weight == 0)[:, None], torch.nan)
    torn = Features(garbage, features.target, features.weight, features.extras)
    assert measure(CrossEntropy(), projection, torn) == measure(CrossEntropy(), projection, features)


def test_one_model_has_one_nll_under_three_losses(features: Features) -> None:
    """The same backbone and projection: predictions agree, objectives and links do not."""
    backbone = Decoder(
        num_layers=1,
        num_heads=2,
        width=8,
        context=ROWS,
        init_std=0.5,
        vocab_size=V,
        generator=torch.Generator().manual_seed(3),
    )
    projection = backbone.output_projection(V, torch.Generator())
    with torch.no_grad():
        hidden = backbone({"tokens": features.target[None]})[0]
        probabilities = projection(hidden).softmax(dim=-1)
    target = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(4))[:, 0]
    batch = Features(hidden, target, features.weight, features.extras)
    losses: list[Loss] = [CrossEntropy(), CrossEntropy(label_smoothing=0.1), KLDivergence(label_smoothing=0.1)]
    for loss in losses:
        loss.bind(OutputSpec(num_outputs=V, hidden_size=8, generator=torch.Generator()))
    plain, smoothed, kl = (measure(loss, projection, batch) for loss in losses)
    for values in (smoothed, kl):
        for name in ("nll", "nll_scaled", "perplexity", "bits_per_byte", "top1"):
            assert values[name] == pytest.approx(plain[name], rel=1e-6), name
        assert values["nll_linked"] != pytest.approx(plain["nll_linked"], rel=1e-2)
    assert plain["nll_linked"] == pytest.approx(plain["nll"], rel=1e-6)
    assert smoothed["nll_linked"] == pytest.approx(kl["nll_linked"], rel=1e-6)
    objectives = [values["objective"] for values in (plain, smoothed, kl)]
    for i, objective in enumerate(objectives):
        assert objective != pytest.approx(objectives[i - 1], rel=1e-2)


def test_a_calibrated_square_loss_predicts_with_the_scale_of_nll_scaled(
    features: Features, projection: OutputProjection
) -> None:
    loss = Square()
    scale = fit_scale([features.kept()], loss, projection)
    loss.calibrate(scale)
    measures = ClassMetrics(scale, held_out=False)
    measures.update(features, loss, projection)
    values = measures.values()
    assert values["nll"] == pytest.approx(values["nll_scaled"], rel=1e-6)


def test_a_half_without_positions_scores_nan_and_leaves_the_rest(
    features: Features, projection: OutputProjection
) -> None:
    extras = {**features.extras, "fit": torch.ones(ROWS)}
    values = measure(CrossEntropy(), projection, Features(features.hidden, features.target, features.weight, extras))
    assert math.isnan(values["nll_scaled"])
    assert values["nll"] == pytest.approx(measure(CrossEntropy(), projection, features)["nll"])


def test_a_hopeless_nll_has_infinite_perplexity() -> None:
    """−log p = 1000 nats: exp of it is no float."""
    hidden, target = torch.tensor([[1000.0, 0.0]]), torch.tensor([1])
    extras = {"bytes": torch.ones(1), "fit": torch.zeros(1)}
    values = measure(CrossEntropy(), OutputProjection(torch.eye(2)), Features(hidden, target, torch.ones(1), extras))
    assert values["nll"] == 1000
    assert values["perplexity"] == math.inf


def test_a_loss_without_a_link_has_no_linked_nll(features: Features, projection: OutputProjection) -> None:
    class Unlinked(CrossEntropy):
        def posterior(self, logits: torch.Tensor) -> None:  # type: ignore[override]
            return None

    values = measure(Unlinked(), projection, features)
    expected = measure(CrossEntropy(), projection, features)
    assert values == {name: value for name, value in expected.items() if not name.startswith("nll_linked")}


def test_chunks_hold_about_two_million_logits_between_256_and_4096_rows_while_memory_allows() -> None:
    assert scoring_rows(2) == 4096
    assert scoring_rows(4096) == 512
    assert scoring_rows(50_304) == 256
    assert scoring_rows(128_000) == 128
