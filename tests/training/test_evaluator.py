"""Evaluation of a whole split: fit on one half of val, score on the other, calibrate, and leave no trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import V, make_batch, make_network, split

from losslab.contracts import Batch, DataInfo, Features, Share, SplitInfo, Subset
from losslab.metrics.scale import fit_scale
from losslab.metrics.unigram import unigram_nll
from losslab.training.network import Network
from losslab.training.scoring.evaluator import Evaluator

VAL, TEST = make_batch(windows=10, seed=3), make_batch(windows=6, seed=4)


class Data:
    """Members of a data module that an Evaluator uses, out of memory."""

    asked: int | None = None
    max_eval_tokens: int | None = None
    scored: int | None = None

    def __init__(self, *, lossless: bool = True) -> None:
        positions = {name: int(batch.weight.sum()) for name, batch in (("val", VAL), ("test", TEST))}
        words = 7 if lossless else None
        splits = {name: SplitInfo(count, 3, "document", words) for name, count in positions.items()}
        counts = torch.arange(V)
        self.info = DataInfo(splits=splits, mean_positions=1, vocab_size=V, class_counts=counts)

    def eval_batches(self, name: str, share: Share, subset: Subset = "all", most: int | None = None) -> Iterator[Batch]:
        if subset == "fit":
            self.asked = most
            return iter(split(VAL, 3))
        self.scored = most
        windows = split(VAL if name == "val" else TEST, 1)
        return iter(windows[share.rank :: share.ranks])

    def references(self, name: str, most: int | None) -> dict[str, float]:
        targets = (VAL if name == "val" else TEST).target.numpy()
        return {"unigram_nll": unigram_nll(np.arange(V), targets)}


def evaluator(network: Network, **options: Any) -> Evaluator:
    return Evaluator(network, Data(), device=torch.device("cpu"), **options)  # type: ignore[arg-type]


def log_probs(network: Network, batch: Batch, scale: float) -> torch.Tensor:
    """[B, T]: log softmax(scale · z) of the targets."""
    with torch.no_grad():
        logits = network.projection(network.backbone(batch.inputs)).double()
    return (scale * logits).log_softmax(dim=-1).gather(-1, batch.target[..., None])[..., 0]


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> float:
    return ((values * weight).sum() / weight.sum()).item()


def fitted_by_hand(network: Network) -> float:
    """On the counted positions of the fitting half."""
    fitting = (VAL.weight * VAL.extras["fit"]).flatten() != 0
    with torch.no_grad():
        hidden = network.backbone(VAL.inputs).flatten(0, 1)[fitting]
    features = Features(hidden, VAL.target.flatten()[fitting], torch.ones(len(hidden)))
    return fit_scale([features], network.loss, network.projection)


@pytest.mark.parametrize("loss", ["cross_entropy", "square"])
def test_val_is_fitted_on_one_half_and_scored_on_the_other(loss: str) -> None:
    network = make_network(loss)
    values = evaluator(network).validate()
    scale = values["val/scale"]
    assert scale == pytest.approx(fitted_by_hand(network), rel=1e-5)
    assert scale != pytest.approx(1, rel=0.01)
    scaled = -log_probs(network, VAL, scale)
    assert values["val/nll_scaled"] == pytest.approx(
        weighted_mean(scaled, VAL.weight * (1 - VAL.extras["fit"])), rel=1e-6
    )
    # Square loss predicts at the fitted scale, cross-entropy at its own.
    predicted = -log_probs(network, VAL, scale if loss == "square" else 1.0)
    assert values["val/nll"] == pytest.approx(weighted_mean(predicted, VAL.weight), rel=1e-6)


def test_test_is_scored_everywhere_with_the_scale_of_val() -> None:
    network = make_network()
    values = evaluator(network).test({"scale": 0.7})
    assert values["test/scale"] == 0.7
    expected = weighted_mean(-log_probs(network, TEST, 0.7), TEST.weight)
    assert values["test/nll_scaled"] == pytest.approx(expected, rel=1e-6)


def test_values_are_named_by_split_and_hold_the_unigram_reference() -> None:
    values = evaluator(make_network()).test({"scale": 1.0})
    assert all(name.startswith("test/") for name in values)
    p = (np.arange(V) + 1) / (np.arange(V) + 1).sum()
    assert values["test/unigram_nll"] == pytest.approx(-np.log(p[TEST.target.numpy()]).mean())
    # The first fifth of train's text may hold none of eleven tokens.
    assert all(math.isfinite(value) for name, value in values.items() if "frequency" not in name)


def test_perplexity_per_word_spreads_the_whole_nll_over_the_words() -> None:
    network = make_network()
    values = evaluator(network).validate()
    nll = -(log_probs(network, VAL, 1.0) * VAL.weight).sum().item()
    assert values["val/word_perplexity"] == pytest.approx(math.exp(nll / 7), rel=1e-6)


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_counts_the_text_is_left_out_where_the_tokenizer_loses_text(split: str) -> None:
    data = Data(lossless=False)
    whole, found = evaluator(make_network()), Evaluator(make_network(), data, device=torch.device("cpu"))  # type: ignore[arg-type]
    before, after = (one.validate() if split == "val" else one.test({"scale": 0.7}) for one in (whole, found))
    assert before.keys() - after.keys() == {f"{split}/bits_per_byte", f"{split}/word_perplexity"}
    assert all(after[name] == pytest.approx(value, nan_ok=True) for name, value in before.items() if name in after)


def test_each_document_s_scores_are_kept_for_the_comparison(tmp_path: Path) -> None:
    values = evaluator(make_network()).test({"scale": 0.7}, keep=tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as kept:
        assert str(kept["unit"]) == "document"
        weight, scaled, nll, hits = kept["units"]
        assert kept["reliability"].shape == (2, 3, 15)
    unit = TEST.extras["unit"]
    assert weight.tolist() == [(TEST.weight * (unit == k)).sum().item() for k in range(3)]
    assert [x.sum() / weight.sum() for x in (scaled, nll, hits)] == pytest.approx(
        [values[f"test/{name}"] for name in ("nll_scaled", "nll", "top1")], rel=1e-6
    )


@pytest.mark.parametrize(("thorough", "positions"), [(False, 4096), (True, 16384)])
def test_the_last_and_the_best_weights_are_fitted_on_more_positions(thorough: bool, positions: int) -> None:
    data = Data()
    values = Evaluator(make_network(), data, device=torch.device("cpu")).validate(thorough=thorough)  # type: ignore[arg-type]
    assert data.asked == positions
    assert ("val/mrr" in values) == thorough


@pytest.mark.parametrize(
    ("interim", "limit", "scored", "fitted"),
    [
        (0, None, None, 4096),
        (0, 70, 70, 4096),
        (5000, None, 5000, 1024),
        (5000, 70, 70, 1024),
        (16000, 20000, 16000, 2000),
        (10**6, None, 10**6, 4096),
    ],
)
def test_a_validation_scores_a_part_and_the_thorough_one_as_much_as_it_may(
    interim: int, limit: int | None, scored: int | None, fitted: int
) -> None:
    data = Data()
    data.max_eval_tokens = limit
    options: dict[str, Any] = {"device": torch.device("cpu"), "interim_positions": interim}
    measure = Evaluator(make_network(), data, **options)  # type: ignore[arg-type]
    measure.validate()
    assert (data.scored, data.asked) == (scored, fitted)
    measure.validate(thorough=True)
    assert (data.scored, data.asked) == (limit, 16384)
    measure.test({"scale": 1.0})
    assert data.scored == limit


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_mode_gradients_and_random_state_alone(training: bool) -> None:
    network = make_network(dropout=0.5).train(training)
    state = torch.get_rng_state()
    first = evaluator(network).validate()
    assert evaluator(network).validate() == first
    assert network.training == network.backbone.training == training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_mode_comes_back_after_an_error() -> None:
    network = make_network().train()
    network.projection.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluator(network).test({"scale": 1.0})
    assert network.training


def test_two_ranks_score_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network, noted = make_network(), []
    expected = evaluator(network).test({"scale": 0.7})
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums, op=None: noted.append(sums.clone()))
    evaluator(network, rank=1, ranks=2).test({"scale": 0.7})
    others = iter(noted)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums, op=None: sums.add_(next(others)))
    assert evaluator(network, rank=0, ranks=2).test({"scale": 0.7}) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert next(others, None) is None
