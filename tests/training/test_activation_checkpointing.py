"""Activation checkpointing: no number changes, dropout included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import Batch, DataInfo
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.models.encoder import Encoder
from losslab.models.lstm import LSTM
from losslab.models.transformer_2017 import Transformer2017
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network
from runs import find_runs

V, CONTEXT = 13, 12
HEADS: dict[str, Any] = {"num_heads": 2}
KINDS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (Decoder, HEADS),
    (Encoder, HEADS),
    (Transformer2017, HEADS),
    (LSTM, {}),
]
MASK = torch.arange(CONTEXT) < torch.tensor([[CONTEXT], [7]])


def gradients(network: Network, inputs: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(0)
    batch = Batch(inputs, inputs["tokens"].roll(-1, 1), torch.ones(2, CONTEXT), {})
    network(batch).total.backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_gradients_are_bitwise_the_same(kind: Any, options: dict[str, Any]) -> None:
    backbone = kind(
        num_layers=2, width=16, context=CONTEXT, dropout=0.3, vocab_size=V, tie_embeddings=False, **options,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    info = DataInfo(splits={}, mean_positions=CONTEXT, vocab_size=V)
    parts = {"loss": CrossEntropy(), "task": LanguageModeling(), "info": info}
    plain = Network(backbone=backbone, head_init=torch.Generator().manual_seed(1), **parts)
    network = copy.deepcopy(plain)
    network.checkpoint_layers()
    network = copy.deepcopy(network)  # a copy's layers compute with its own weights, as averages need
    inputs = {"tokens": torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(2)), "mask": MASK}
    expected, found = gradients(plain, inputs), gradients(network, inputs)
    assert len(expected) == len(found) == len(list(network.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_fewer_bytes_are_kept_for_the_backward_pass() -> None:
    kept = []
    for wrap in (False, True):
        backbone = Decoder(num_layers=4, num_heads=2, width=16, context=64, vocab_size=V)
        info = DataInfo(splits={}, mean_positions=64, vocab_size=V)
        network = Network(
            backbone=backbone, loss=CrossEntropy(), task=LanguageModeling(), info=info, head_init=torch.Generator()
        )
        if wrap:
            network.checkpoint_layers()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.nbytes) or x, lambda x: x):
            backbone({"tokens": torch.zeros(8, 64, dtype=torch.int64)})
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


def test_a_run_is_the_same_run(run_tiny: Callable[..., int]) -> None:
    words = ("model.dropout=0.1", "trainer.max_steps=4")
    assert run_tiny(*words, "name=plain") == 0
    assert run_tiny(*words, "name=checkpointed", "trainer.activation_checkpointing=true") == 0
    (plain,), (other,) = (find_runs(Path("outputs") / name) for name in ("plain", "checkpointed"))
    assert plain.name == other.name
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (plain, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
