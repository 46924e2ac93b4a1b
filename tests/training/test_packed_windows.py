"""Windows that tell their documents apart, and windows with stride: what is scored, and what a model must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from packed_models import Apart, GoesOn, Ignores, LooksAhead
from torch import nn
from torch.nn import functional as F

from losslab.contracts import Batch, Features, TargetKind, next_tokens, previous_tokens
from losslab.data.encoding import TokenSplit
from losslab.data.windows import EvalWindows, gather
from losslab.errors import Fault
from losslab.losses.goldfish import Goldfish
from losslab.tasks.lm import LanguageModeling
from losslab.training.trial.documents import documents_apart
from losslab.training.trial.model import ModelTrial

V, T = 11, 8
LENGTHS = np.array([3, 0, 7, 1, 20, 5, 2, 30, 4, 9])
TOKENS = np.random.default_rng(0).integers(0, V, LENGTHS.sum()).astype(np.uint16)
SPLIT = TokenSplit(TOKENS, np.ones_like(TOKENS), (np.arange(len(TOKENS)) % 2).astype(np.uint8), LENGTHS)
ENDS = LENGTHS.cumsum()


def windows(**options) -> EvalWindows:
    return EvalWindows(SPLIT, T, by_window=False, **options)


def model(kind: type[nn.Module] = Apart) -> nn.Module:
    torch.manual_seed(1)
    return kind(vocab_size=V).double()


@torch.no_grad()
def nll(network: nn.Module, batch: Batch) -> torch.Tensor:
    """[B, T]: of the targets, in float64, by the embedding as projection."""
    logits = network(batch.inputs) @ network.embedding.weight.T
    return F.cross_entropy(logits.transpose(1, 2), batch.target, reduction="none") * batch.weight


def total(network: nn.Module, found: EvalWindows) -> tuple[float, float]:
    batches = list(found.batches(3))
    return sum(nll(network, batch).sum().item() for batch in batches), sum(b.weight.sum().item() for b in batches)


@pytest.mark.parametrize("stride", [None, 3])
def test_a_packed_window_costs_what_its_documents_cost_one_by_one(stride) -> None:
    found = windows(packed=True, skips_starts=True, stride=stride)
    whole, count = total(model(), found)
    alone, positions = 0.0, 0
    for start, end in zip([0, *ENDS], ENDS, strict=False):
        tokens = TOKENS[start:end]
        for at in range(1, len(tokens)):
            # The window that scores this token begins at a fixed place of the stream, or with the document.
            place = start + at
            step = stride or T
            number = 0 if place <= T else -(-(place - T) // step)
            before = TOKENS[max(start, number * step) : place]
            hidden = model()({"tokens": torch.from_numpy(before.astype(np.int64))[None]})[0, -1]
            logits = hidden @ model().embedding.weight.T
            alone -= logits.log_softmax(dim=-1)[int(tokens[at])].item()
            positions += 1
    assert count == positions == found.num_positions(None) == len(found.targets(None))
    assert math.isclose(whole, alone, rel_tol=1e-9)


def test_each_document_of_a_window_is_numbered_from_0_and_its_first_token_is_no_target() -> None:
    batch = next_tokens(gather(TOKENS, np.array([0, 8, 2]), T, ENDS))
    assert batch.inputs["segments"].tolist() == [
        [0, 0, 0, 1, 1, 1, 1, 1],
        [0, 0, 1, 2, 2, 2, 2, 2],
        [0, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert batch.weight.tolist() == [
        [1, 1, 0, 1, 1, 1, 1, 1],
        [1, 0, 0, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1, 1, 0],
    ]
    plain = next_tokens(gather(TOKENS, np.array([0, 8, 2]), T))
    assert "segments" not in plain.inputs
    assert torch.equal(plain.target, batch.target)


@pytest.mark.parametrize("stride", [1, 3, 5, 8])
@pytest.mark.parametrize("length", [2, 8, 9, 10, 40, 81])
def test_with_a_stride_each_token_is_scored_once_after_enough_others(stride: int, length: int) -> None:
    tokens = np.arange(length, dtype=np.uint16)
    split = TokenSplit(tokens, tokens, tokens % 2, np.array([length]))
    found = EvalWindows(split, T, by_window=True, stride=stride)
    seen: list[int] = []
    for batch in found.batches(4):
        for row, target, weight in zip(batch.inputs["tokens"], batch.target, batch.weight, strict=True):
            for place in weight.nonzero().flatten().tolist():
                seen.append(int(target[place]))
                assert place + 1 == target[place] - row[0]
                assert place + 1 > min(int(target[place]) - 1, T - stride)
    assert sorted(seen) == list(range(1, length))
    assert found.num_positions(None) == length - 1
    chosen = found.targets(5)
    assert len(chosen) == found.num_positions(5)
    if stride == T:
        plain = EvalWindows(split, T, by_window=True)
        assert found.count == plain.count
        for ours, theirs in zip(found.batches(4), plain.batches(4), strict=True):
            assert torch.equal(ours.weight, theirs.weight)
            assert torch.equal(ours.target, theirs.target)


def test_previous_tokens_stay_in_their_document() -> None:
    tokens, segments = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[0, 0, 1, 1, 2]])
    assert previous_tokens(tokens, 3, segments)[0].tolist() == [
        [5, -1, -1],
        [6, 5, -1],
        [7, -1, -1],
        [8, 7, -1],
        [9, -1, -1],
    ]
    batch = Batch({"tokens": tokens, "segments": segments}, tokens, torch.ones(1, 5), {})
    features = LanguageModeling().features(model(), batch, TargetKind.CLASSES, Goldfish(k=2, context=3).needs)
    assert isinstance(features, Features)
    assert features.extras["previous"].tolist()[2] == [7, -1, -1]


@pytest.mark.parametrize("large", [False, True])
def test_a_model_that_mixes_documents_is_found(large: bool) -> None:
    batch = next_tokens(gather(TOKENS, np.array([0, 8]), T, ENDS))

    def said(kind: type[nn.Module]) -> str:
        def make(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return kind(vocab_size=V)

        return documents_apart(ModelTrial(make, batch, LanguageModeling(), TargetKind.CLASSES, V, V), large=large)

    assert said(Apart) == "neither of two documents changes the other"
    for kind, sentence in (
        (Ignores, "one changes the hidden states of the other"),
        (LooksAhead, "one changes the hidden states of the other"),
        (GoesOn, "positions .* must begin again"),
    ):
        with pytest.raises(Fault, match=sentence):
            said(kind)
