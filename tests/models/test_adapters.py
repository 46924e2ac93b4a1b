"""Adapters of a person's own modules: the same logits as before, projected by the loss."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import Batch, DataInfo
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.adapters import HiddenStatesAdapter, LogitsAdapter
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network

V, D = 11, 8
TOKENS = torch.arange(12).reshape(2, 6) % V


class Foreign(nn.Module):
    """Ids → logits, as many a repository has it."""

    def __init__(self, *, tied: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.body = nn.LSTM(D, D, batch_first=True)
        self.heads = nn.ModuleDict({"lm": nn.Linear(D, V, bias=bias)})
        if tied:
            self.heads["lm"].weight = self.embedding.weight  # type: ignore[assignment]

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.heads["lm"](self.body(self.embedding(tokens))[0])
        return logits


class Returns(nn.Module):
    """An embedding that returns what a test wants of it."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.wrap = wrap

    def forward(self, tokens: Tensor) -> Any:
        return self.wrap(self.embedding(tokens))


def network_of(backbone: nn.Module, vocab_size: int = V) -> Network:
    info = DataInfo(splits={}, mean_positions=6, vocab_size=vocab_size)
    head_init = torch.Generator().manual_seed(1)
    return Network(backbone=backbone, loss=CrossEntropy(), task=LanguageModeling(), info=info, head_init=head_init)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_module_of_logits_keeps_its_logits_and_its_weights(tied: bool, bias: bool) -> None:
    foreign = Foreign(tied=tied, bias=bias)
    expected = copy.deepcopy(foreign)(TOKENS)
    network = network_of(LogitsAdapter(module=foreign, head="heads.lm"))
    hidden = network.backbone({"tokens": TOKENS})
    assert hidden.shape == (2, 6, D)
    assert torch.equal(network.projection(hidden), expected)
    assert len(list(network.parameters())) == len(list(Foreign(tied=tied, bias=bias).parameters()))
    other = network_of(LogitsAdapter(module=Foreign(tied=tied, bias=bias), head="heads.lm"))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.projection(other.backbone({"tokens": TOKENS})), expected)


def test_its_loss_is_that_of_its_logits() -> None:
    foreign = Foreign()
    target = TOKENS.flip(1)
    expected = nn.functional.cross_entropy(copy.deepcopy(foreign)(TOKENS).flatten(0, 1), target.flatten())
    network = network_of(LogitsAdapter(module=foreign, head="heads.lm"))
    result = network(Batch({"tokens": TOKENS}, target, torch.ones(2, 6), {}))
    torch.testing.assert_close(result.total / result.weight, expected)


def test_another_size_than_the_loss_wants_is_refused() -> None:
    with pytest.raises(UserError, match=r"has 11 outputs of width 8, and task and loss want 12"):
        network_of(LogitsAdapter(module=Foreign(), head="heads.lm"), V + 1)


def test_a_head_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"model.head=lm_head is no nn.Linear of Foreign; it has heads.lm"):
        LogitsAdapter(module=Foreign(), head="lm_head")


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda hidden: hidden, None),
        (lambda hidden: (hidden, None), None),
        (lambda hidden: {"last": hidden}, "last"),
        (lambda hidden: type("Output", (), {"last": hidden})(), "last"),
    ],
)
def test_hidden_states_are_found_in_what_is_returned(wrap: Any, output: str | None) -> None:
    module = Returns(wrap)
    found = HiddenStatesAdapter(module=module, width=D, output=output)({"tokens": TOKENS})
    assert torch.equal(found, module.embedding(TOKENS))


@pytest.mark.parametrize(
    ("wrap", "output", "said"),
    [
        (lambda hidden: {"last": hidden}, None, r"returns a dict, not a tensor: model.output=NAME"),
        (lambda hidden: {"last": hidden}, "first", r"model.output=first names nothing that Returns returns"),
    ],
)
def test_other_returns_are_refused(wrap: Any, output: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        HiddenStatesAdapter(module=Returns(wrap), width=D, output=output)({"tokens": TOKENS})
