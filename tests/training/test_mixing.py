"""Mixup: embeddings and targets of two samples, against a float64 reference; the same for any ranks; refusals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.contracts import Batch, DataInfo, Share
from losslab.contracts.info import ValueStats
from losslab.data.mixup import mix
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.mse import MSE
from losslab.tasks.classification import Classification
from losslab.tasks.regression import Regression
from losslab.training.mixing import parts_of
from losslab.training.network import Network

V, C, D = 260, 4, 6
STATS = ValueStats(mean=[5.0], std=[2.0], min=[1.0], max=[9.0])


class Bag(nn.Module):
    """A bend of each embedding: hidden states that show a mistake in mixing."""

    def __init__(self, rows: int = V) -> None:
        super().__init__()
        self.width = D
        self.embedding = nn.Embedding(rows, D)
        nn.init.normal_(self.embedding.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tanh(self.embedding(inputs["tokens"]))


class Blind(Bag):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tanh(self.embedding.weight[inputs["tokens"]])


def network(loss: Loss, task: Any = None, backbone: nn.Module | None = None) -> Network:
    info = DataInfo(splits={}, mean_positions=1, vocab_size=V, num_classes=C, num_values=1, value_stats=STATS)
    return Network(
        backbone=backbone or Bag(),
        loss=loss,
        task=task or Classification(),
        info=info,
        head_init=torch.Generator().manual_seed(2),
    )


def batch_of(texts: Sequence[Sequence[int]], targets: Tensor) -> Batch:
    examples = [{"text": torch.tensor(text), "label": 0} for text in texts]
    batch = Classification().collate(examples)
    return batch._replace(target=targets)


TEXTS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11, 12], [13]]
"""Three samples and the partner of each."""


def hidden_by_hand(weight: Tensor, share: float) -> Tensor:
    """[3, D]: the mean over the positions that either side has, in float64."""
    found = []
    for own, other in zip(TEXTS[:3], TEXTS[3:], strict=True):
        length = max(len(own), len(other))
        row = torch.zeros(length, D, dtype=torch.float64)
        row[: len(own)] += share * weight[own]
        row[: len(other)] += (1 - share) * weight[other]
        found.append(torch.tanh(row).mean(dim=0))
    return torch.stack(found)


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("loss", [CrossEntropy(label_smoothing=0.1), Brier()])
def test_the_loss_is_that_of_both_targets_at_the_mixed_embedding(loss, share) -> None:
    targets = torch.tensor([0, 1, 2, 3, 1, 0])
    net = network(loss)
    found = net(mix(batch_of(TEXTS, targets), share))
    weight, bias = net.projection.weight.double(), net.projection.bias
    logits = hidden_by_hand(net.backbone.embedding.weight.double(), share) @ weight.T  # type: ignore[union-attr]
    logits = logits if bias is None else logits + bias.double()

    def each(target: Tensor) -> Tensor:
        if isinstance(loss, Brier):
            return ((logits.softmax(-1) - F.one_hot(target, C)) ** 2).sum(-1)
        return F.cross_entropy(logits, target, label_smoothing=0.1, reduction="none")

    wanted = share * each(targets[:3]) + (1 - share) * each(targets[3:])
    torch.testing.assert_close(found.total.double(), wanted.sum(), rtol=1e-5, atol=1e-6)
    assert float(found.weight) == pytest.approx(3.0)
    (gradient,) = torch.autograd.grad(found.total, net.backbone.embedding.weight)  # type: ignore[arg-type]
    (by_hand,) = torch.autograd.grad(wanted.sum(), net.backbone.embedding.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)


def test_values_are_mixed_as_the_task_standardises_them() -> None:
    task = Regression()
    targets = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    net = network(MSE(), task)
    found = net(mix(batch_of(TEXTS, targets), 0.3))
    hidden = hidden_by_hand(net.backbone.embedding.weight.double(), 0.3)  # type: ignore[union-attr]
    guess = hidden @ net.projection.weight.double().T
    guess = guess if net.projection.bias is None else guess + net.projection.bias.double()
    standard = (targets.double() - 5) / 2
    wanted = 0.3 * (guess - standard[:3]) ** 2 + 0.7 * (guess - standard[3:]) ** 2
    torch.testing.assert_close(found.total.double(), wanted.sum(), rtol=1e-5, atol=1e-6)


def test_inputs_that_are_numbers_are_mixed_in_the_data() -> None:
    frames = torch.arange(24.0).reshape(4, 2, 3)
    batch = mix(Batch({"frames": frames}, torch.arange(4), torch.ones(4), {}), 0.25)
    assert torch.equal(batch.inputs["frames"], 0.25 * frames[:2] + 0.75 * frames[2:])
    own, other = parts_of(batch)
    assert (own.target.tolist(), own.weight.tolist()) == ([0, 1], [0.25, 0.25])
    assert (other.target.tolist(), other.weight.tolist()) == ([2, 3], [0.75, 0.75])


@pytest.mark.parametrize(("backbone", "words"), [(Blind(), "never called its embedding"), (Bag(7), "no nn.Embedding")])
def test_a_model_that_cannot_mix_is_refused(backbone, words) -> None:
    with pytest.raises(UserError, match=words):
        network(CrossEntropy(), backbone=backbone)(mix(batch_of(TEXTS, torch.arange(6) % C), 0.3))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    texts = (f"row {i} {'x' * (i % 7)}" for i in range(200))
    rows = [{"text": text, "label": i % C, "words": ["a"], "tags": ["AB"[i % 2]]} for i, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Tags(Classification):
    columns: Mapping[str, Any] = {"words": "words", "tags": "tags"}

    def __init__(self) -> None:
        """Two columns of its own."""


def prepare(table: Path, augment: Any, task: Any = None, **keys: Any) -> RowsDataModule:
    data = RowsDataModule(path=str(table / "rows.jsonl"), context=32, augment=augment, **({"batch_size": 12} | keys))
    task = task or Classification()
    data.check_task(task)
    data.seed = 5
    data.info = data.prepare(table / "cache", task)
    return data


@pytest.mark.parametrize("keys", [{}, {"batch_tokens": 60}])
def test_partners_come_from_the_whole_step_on_any_ranks(table, keys) -> None:
    data = prepare(table, {"mixup": 0.4, "deletion": 0.2}, **keys)
    net = network(CrossEntropy())
    for step in (0, 7):
        whole = net(data.train_batch(step, Share()))
        for ranks, micros in ((2, 1), (1, 3), (2, 6)):
            shares = [Share(rank, ranks, micro, micros) for micro in range(micros) for rank in range(ranks)]
            parts = [net(data.train_batch(step, share)) for share in shares]
            torch.testing.assert_close(sum(part.total for part in parts), whole.total, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(sum(part.weight for part in parts), whole.weight, rtol=1e-5, atol=1e-5)
    shares = {float(data.train_batch(step, Share()).weight[0]) for step in range(20)}
    assert len(shares) == 20
    assert all(0 <= share <= 1 for share in shares)
    assert data.hash_batches(3) == prepare(table, {"mixup": 0.4, "deletion": 0.2}, **keys).hash_batches(3)


@pytest.mark.parametrize(
    ("augment", "task", "words"),
    [
        ({"mixup": -1}, None, r"data\.augment\.mixup must be 0 \(off\) or α of Beta\(α, α\), above 0, not -1"),
        ({"mixup": 0.4}, Tags(), "mixes rows of one target each, and task=Tags gives each position its own"),
    ],
)
def test_mixup_that_cannot_be_is_one_sentence(table, augment, task, words) -> None:
    with pytest.raises(UserError, match=words):
        prepare(table, augment, task)
