"""Predictions of rows: those of the loss, by the labels and names of the table, whatever rows stand beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
from tiny_network import CONTEXT, make_network
from torch import Tensor

from losslab.contracts import Batch, DataInfo, Features, TargetKind, Task, padded
from losslab.data.tokenizer import ByteTokenizer, artifacts_of
from losslab.errors import UserError
from losslab.losses.asymmetric import Asymmetric
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.brier import Brier
from losslab.losses.coral import Coral
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.losses.mse import MSE
from losslab.models.decoder import Decoder
from losslab.tasks.classification import Classification
from losslab.tasks.multilabel import Multilabel
from losslab.training.network import Network
from losslab.training.scoring.fitted import Fitted
from losslab.training.scoring.predicting import RowPredictor, predict

WORDS, LABELS = ["red", "dog", "runs"], ["adjective", "noun", "verb"]
TOKENIZER = artifacts_of(ByteTokenizer())
DATA = {"context": 12, "columns": {"text": "sentence"}, "val_batch_size": 2}


class _Rows(Task):
    """The mean over a text, or each word."""

    accepts = frozenset({TargetKind.CLASSES, TargetKind.VALUES})
    metrics = Classification.metrics
    primary = Classification.primary
    each: ClassVar[bool] = False

    def target_size(self, info: DataInfo) -> int:
        return info.num_classes or info.num_values or 1

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        name, target = self.columns
        tokens, mask = padded([example[name] for example in examples])
        targets = [torch.as_tensor(example[target]) for example in examples]
        found = padded(targets)[0] if self.each else torch.stack(targets).reshape(len(targets), -1).float()
        weight = mask.float() if self.each else torch.ones(len(examples))
        return Batch({"tokens": tokens, "mask": mask}, found, weight, {})

    def features(self, backbone: Any, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        hidden: Tensor = backbone(batch.inputs)
        if self.each:
            return Features(hidden.flatten(0, 1), batch.target.flatten(), batch.weight.flatten())
        mask = batch.inputs["mask"][..., None]
        return Features((hidden * mask).sum(1) / mask.sum(1), batch.target, batch.weight)

    def meter(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a prediction measures nothing")


class Prices(_Rows):
    columns: ClassVar[Mapping[str, Any]] = {"text": "text", "price": "value"}


class Sizes(_Rows):
    columns: ClassVar[Mapping[str, Any]] = {"text": "text", "sizes": "values"}


class Tags(_Rows):
    columns: ClassVar[Mapping[str, Any]] = {"words": "words", "tags": "tags"}
    each = True


def info_of(task: Task) -> DataInfo:
    target = list(task.columns)[1]
    labels = {"labels.json": json.dumps({target: LABELS})}
    if isinstance(task, Tags):
        artifacts = labels | {"words.json": json.dumps(WORDS)}
        return DataInfo(splits={}, mean_positions=1, vocab_size=4, num_classes=3, artifacts=artifacts)
    artifacts = TOKENIZER | (labels if isinstance(task, Classification | Multilabel) else {})
    values = None if labels.keys() <= artifacts.keys() else 2 if isinstance(task, Sizes) else 1
    classes = 3 if values is None else None
    return DataInfo(
        splits={}, mean_positions=1, vocab_size=257, num_classes=classes, num_values=values, artifacts=artifacts
    )


def network_of(task: Task, loss: Loss) -> Network:
    info = info_of(task)
    backbone = Decoder(
        num_layers=1, num_heads=2, width=8, context=12, init_std=0.5, tie_embeddings=False,
        vocab_size=info.vocab_size, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    return Network(backbone=backbone, loss=loss, task=task, info=info, head_init=generator).eval()


def predictor_of(task: Task, loss: Loss) -> RowPredictor:
    return RowPredictor(network_of(task, loss), info_of(task), DATA, lambda device: nullcontext())


def scores_of(network: Network, tokens: list[int], mean: bool = True) -> Tensor:
    """Outputs of a text, or of each of its tokens, without the task and the data."""
    with torch.no_grad():
        hidden = network.backbone({"tokens": torch.tensor([tokens])})[0]
        hidden = hidden.mean(0, keepdim=True) if mean else hidden
        return network.loss.scores(hidden, network.projection)


def tokens_of(text: str) -> list[int]:
    return [*text.encode(), 256][:12]


@pytest.mark.parametrize("loss", [CrossEntropy(), Brier()])
def test_labels_and_their_probabilities_are_the_losss(loss: Loss) -> None:
    predict_rows = predictor_of(Classification(), loss)
    texts = ["a", "a longer text than the context", "bc"]
    found = predict_rows([{"sentence": text, "label": "unknown so far"} for text in texts])
    assert found == predict_rows(texts)
    assert predict_rows.longer == 2
    for text, told in zip(texts, found, strict=True):
        expected = loss.predict_log_probs(scores_of(predict_rows.network, tokens_of(text)))[0].exp()
        assert list(told["probabilities"]) == LABELS
        assert list(told["probabilities"].values()) == pytest.approx(expected.tolist(), rel=1e-5)
        assert told["predicted"] == LABELS[int(expected.argmax())]


@pytest.mark.parametrize("loss", [MSE(), GaussianNLL()])
def test_values_are_those_that_the_loss_predicts(loss: Loss) -> None:
    predict_rows = predictor_of(Prices(), loss)
    (told,) = predict_rows(["a text"])
    expected = loss.predict_values(scores_of(predict_rows.network, tokens_of("a text")))
    assert told == {"predicted": pytest.approx(expected.item(), rel=1e-5)}
    sizes = predictor_of(Sizes(), MSE())
    assert sizes(["x"])[0]["predicted"] == pytest.approx(scores_of(sizes.network, tokens_of("x"))[0].tolist(), rel=1e-5)


def test_each_word_has_a_tag() -> None:
    predict_rows = predictor_of(Tags(), CrossEntropy())
    found = predict_rows([{"words": "red dog"}, {"words": ["dog", "sleeps", "red"]}])
    for ids, told in zip(([1, 2], [2, 0, 1]), found, strict=True):
        best = scores_of(predict_rows.network, ids, mean=False).softmax(dim=-1).max(dim=-1)
        assert told == {
            "predicted": [LABELS[int(place)] for place in best.indices],
            "tag_probabilities": pytest.approx(best.values.tolist(), rel=1e-5),
        }


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "x"}, "row 1 has no column 'sentence', but 'text'"),
        ({"sentence": 3}, "row 1 cannot be used: its text must be text, not 3"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        predictor_of(Classification(), CrossEntropy())([row])


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), Asymmetric()])
def test_labels_hold_whose_probability_is_above_a_half(loss: Loss) -> None:
    predict_rows = predictor_of(Multilabel(), loss)
    texts = ["a", "b", "cd", "e f", "gh", "ij"]
    found = predict_rows([{"sentence": text} for text in texts])
    for text, told in zip(texts, found, strict=True):
        expected = scores_of(predict_rows.network, tokens_of(text))[0].sigmoid()
        assert list(told["probabilities"].values()) == pytest.approx(expected.tolist(), rel=1e-5)
        assert told["predicted"] == [label for label, p in zip(LABELS, expected.tolist(), strict=True) if p > 0.5]
    assert len({tuple(told["predicted"]) for told in found}) > 1


def test_probabilities_under_the_fitted_temperature_are_those_of_nll_scaled() -> None:
    own, coral, several = (
        network_of(task, loss)
        for task, loss in (
            (Classification(), CrossEntropy()),
            (Classification(), Coral(order=LABELS)),
            (Multilabel(), BinaryCrossEntropy()),
        )
    )
    for network, fitted in ((own, Fitted(2.5)), (coral, Fitted(0.5)), (several, Fitted(2.0, -0.25))):
        predict_rows = RowPredictor(network, info_of(network.task), DATA, lambda device: nullcontext(), fitted)
        (told,) = predict_rows(["abc"])
        z = fitted.scale * scores_of(network, tokens_of("abc"))[0].double()
        expected = (z + fitted.shift).sigmoid() if network is several else z.softmax(dim=-1)
        assert list(told["probabilities"].values()) == pytest.approx(expected.tolist(), rel=1e-5)
    with pytest.raises(UserError, match="task=Prices fits no temperature"):
        Fitted.choose("fitted", Prices(), info_of(Prices()), 1.0, 0.0)
    with pytest.raises(UserError, match="temperature must be none or fitted, not 'warm'"):
        Fitted.choose("warm", Classification(), info_of(Classification()), 1.0, 0.0)


def test_lost_labels_are_refused() -> None:
    lost = DataInfo(splits={}, mean_positions=1, vocab_size=257, num_classes=3, artifacts=TOKENIZER)
    network = network_of(Classification(), CrossEntropy())
    with pytest.raises(UserError, match=r"left no labels\.json"):
        RowPredictor(network, lost, DATA, lambda device: nullcontext())
    with pytest.raises(UserError, match="write \\[row\\]"):
        predict(network, lost, {"data": DATA}, "a text", lambda device: nullcontext())


def test_rows_are_no_texts_to_continue() -> None:
    network = make_network().eval()
    artifacts = artifacts_of(ByteTokenizer())
    info = DataInfo(splits={}, mean_positions=CONTEXT, vocab_size=11, artifacts=artifacts)
    config: dict[str, Any] = {"data": {"context": None}}
    with pytest.raises(UserError, match="task=lm continues texts"):
        predict(network, info, config, [{"text": "x"}], lambda device: nullcontext())
