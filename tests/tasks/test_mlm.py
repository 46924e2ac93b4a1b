"""Masked language modelling: which tokens are chosen and what becomes of them, against a plain reference in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from losslab.contracts import Batch, DataInfo, SplitInfo, TargetKind, Vocabulary, Windows
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer
from losslab.data.word_starts import vocabulary_of
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.tasks.mlm import MaskedLanguageModeling
from losslab.training.network import Network

V, END, MASK = 40, 38, 17
"""A file's own mask token need not be the last."""
SEEDS = np.arange(1, 401, dtype=np.uint64)


def one_word(tokens: torch.Tensor) -> torch.Tensor:
    """Words of two tokens."""
    return torch.arange(len(tokens)) % 2 == 0


VOCABULARY = Vocabulary(V, END, MASK, one_word)


def made(count: int = 400, length: int = 50) -> Batch:
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, V - 2, (count, length)))
    tokens[tokens == MASK] = 0
    tokens[:, 10] = END
    weight = (torch.arange(length) < length - torch.arange(count)[:, None] % 7).float()
    return Batch({"tokens": tokens, "mask": weight != 0}, tokens, weight, {})


def reference(batch: Batch, task: MaskedLanguageModeling, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token by token."""
    tokens, weights = batch.target.numpy().copy(), np.zeros(batch.weight.shape, dtype=np.float32)
    others = [token for token in range(V) if token not in (END, MASK)]
    for row, seed in enumerate(seeds):
        length = int(batch.weight[row].sum())
        draws = np.random.Generator(np.random.Philox(key=int(seed))).random((length, 3))
        own = [draws[i - i % 2 if task.whole_words else i, 0] for i in range(length)]
        able = [i for i in range(length) if tokens[row, i] != END]
        least = min(own[i] for i in able)
        for i in able:
            if own[i] < task.probability or own[i] == least:
                weights[row, i] = 1
                if draws[i, 1] < task.mask_share:
                    tokens[row, i] = MASK
                elif draws[i, 1] < task.mask_share + task.random_share:
                    tokens[row, i] = others[int(draws[i, 2] * len(others))]
    return tokens, weights


@pytest.mark.parametrize(
    "task",
    [
        MaskedLanguageModeling(),
        MaskedLanguageModeling(whole_words=True),
        MaskedLanguageModeling(probability=0.001, mask_share=0.0, random_share=1.0),
        MaskedLanguageModeling(probability=1.0, mask_share=1.0, random_share=0.0),
    ],
    ids=["usual", "words", "few", "all"],
)
def test_the_draw_is_that_of_a_plain_reference(task: MaskedLanguageModeling) -> None:
    batch = made()
    before = batch.inputs["tokens"].clone()
    found = task.draw(batch, SEEDS, VOCABULARY)
    tokens, weights = reference(batch, task, SEEDS)
    assert torch.equal(batch.inputs["tokens"], before)
    assert np.array_equal(found.inputs["tokens"].numpy(), tokens)
    assert np.array_equal(found.weight.numpy(), weights)
    assert torch.equal(found.target, batch.target)
    assert (found.weight.sum(dim=1) >= 1).all(), "of every text one token at least"
    row = slice(7, 8)
    inputs = {name: value[row] for name, value in batch.inputs.items()}
    alone = task.draw(Batch(inputs, batch.target[row], batch.weight[row], {}), SEEDS[row], VOCABULARY)
    assert torch.equal(alone.inputs["tokens"], found.inputs["tokens"][7:8])


def test_shares_are_those_asked_for() -> None:
    batch, task = made(), MaskedLanguageModeling()
    found = task.draw(batch, SEEDS, VOCABULARY)
    chosen = found.weight != 0
    able = (batch.weight != 0) & (batch.target != END)
    assert not (chosen & ~able).any()
    after, target = found.inputs["tokens"][chosen], batch.target[chosen]
    for share, wanted, count in (
        (chosen.sum() / able.sum(), 0.15, able.sum()),
        ((after == MASK).float().mean(), 0.8, len(after)),
        (((after != MASK) & (after != target)).float().mean(), 0.1 * (1 - 1 / (V - 2)), len(after)),
    ):
        assert abs(float(share) - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / int(count))
    assert torch.equal(found.inputs["tokens"][~chosen], batch.target[~chosen])
    other = task.draw(batch, SEEDS + np.uint64(1000), VOCABULARY)
    assert not torch.equal(other.weight, found.weight)


def test_windows_give_every_token_but_the_first_as_input_and_target() -> None:
    windows = Windows(
        torch.arange(10).view(2, 5),
        torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]]),
        {"bytes": torch.ones(2, 4), "unit": torch.zeros(2, 4)},
        torch.tensor([[0, 1, 1, 2, 2], [0, 0, 0, 1, 1]]),
    )
    batch = MaskedLanguageModeling().of_windows(windows)
    assert batch.inputs["tokens"].tolist() == batch.target.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert batch.inputs["mask"].tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert list(batch.extras) == ["unit"]
    assert "mask" not in MaskedLanguageModeling().of_windows(windows._replace(full=True)).inputs


class Doubled(nn.Module):
    """Hidden states are the tokens' embeddings."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, 4)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden: torch.Tensor = self.embedding(inputs["tokens"])
        return hidden


def network() -> Network:
    info = DataInfo(splits={"val": SplitInfo(100)}, mean_positions=50, vocab_size=V, mask=MASK)
    head = torch.Generator().manual_seed(1)
    return Network(backbone=Doubled(), loss=CrossEntropy(), task=MaskedLanguageModeling(), info=info, head_init=head)


def test_only_chosen_positions_reach_the_loss_and_the_meter() -> None:
    batch = MaskedLanguageModeling().draw(made(), SEEDS, VOCABULARY)
    trained = network()
    features = trained.task.features(trained.backbone, batch, TargetKind.CLASSES, {})  # type: ignore[arg-type]
    chosen = batch.weight != 0
    assert torch.equal(features.target, batch.target[chosen])
    assert len(features) == int(chosen.sum())
    logits = trained.projection(trained.backbone(batch.inputs)[chosen]).double()
    expected = -logits.log_softmax(dim=-1).gather(-1, batch.target[chosen][:, None]).mean().item()
    info = DataInfo(splits={"val": SplitInfo(100)}, mean_positions=50, vocab_size=V)
    meter = trained.task.meter(info, "val", {"scale": 1.0}, thorough=True)
    meter.update(features, trained.loss, trained.projection)
    values = meter.values()
    assert math.isclose(values["nll"], expected, rel_tol=1e-6)
    assert math.isclose(values["masked_perplexity"], math.exp(expected), rel_tol=1e-6)
    assert values.keys() <= {metric.name for metric in trained.task.metrics}
    assert not values.keys() & {"perplexity", "bits_per_byte", "word_perplexity"}


def test_a_micro_batch_without_a_chosen_token_adds_0_and_reaches_every_parameter() -> None:
    batch = made(2)
    trained = network()
    result = trained(batch._replace(weight=torch.zeros_like(batch.weight)))
    result.total.backward()
    assert result.total == result.weight == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained.parameters())


@pytest.mark.parametrize(
    "keys",
    [{"probability": 0}, {"probability": 1.5}, {"mask_share": -0.1}, {"mask_share": 0.9, "random_share": 0.2}],
    ids=str,
)
def test_shares_out_of_range_are_refused(keys: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"task.{next(iter(keys))}"):
        MaskedLanguageModeling(**keys)


def words_of(tokenizer, text: str) -> list[str]:
    ((ids, _),) = tokenizer.encode([text])
    begins = vocabulary_of(tokenizer).begins_word(torch.tensor(ids)).tolist()
    found: list[list[int]] = []
    for token, begin in zip(ids, begins, strict=True):
        if begin:
            found.append([])
        found[-1].append(token)
    return [tokenizer.decode(word) for word in found]


def test_words_are_those_of_the_tokenizer() -> None:
    text = "the naïve model, 42 times (it)"
    wanted = ["the", " naïve", " model", ",", " 42", " times", " (", "it", ")"]
    trained = FileTokenizer.train([text * 3], 270)
    assert words_of(trained, text) == wanted
    assert words_of(trained.with_mask(), text) == wanted
    assert words_of(ByteTokenizer(), text) == wanted
    spaced = FileTokenizer.train([text * 3], 270)
    assert words_of(spaced, "a  b\n\nc 1a") == ["a", " ", " b", "\n\n", "c", " 1", "a"]


def test_words_of_pieces_are_those_without_the_prefix() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = {"[UNK]": 0, "los": 1, "##s": 2, "##es": 3, "of": 4, ",": 5, "[MASK]": 6}
    backend = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieced = FileTokenizer(backend.to_str(), "made")
    begins = vocabulary_of(pieced).begins_word(torch.tensor([1, 3, 4, 5, 1, 2, 6, 2]))
    assert begins.tolist() == [True, False, True, True, True, False, True, True]
    whole = FileTokenizer(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str(), "made")
    assert vocabulary_of(whole).begins_word(torch.tensor([0, 1, 1])).all()
