"""The decoder: causality, options, initial weights, sizes and cost."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.errors import UserError
from losslab.models.decoder import Decoder
from losslab.models.positions import sinusoidal_positions

V, CONTEXT = 13, 8
POSITIONS, MLPS, NORMS = ("rotary", "learned", "sinusoidal"), ("gelu", "relu", "swiglu"), ("rms", "layer")

each_combination = pytest.mark.parametrize(
    ("positions", "mlp", "norm", "tied"), list(itertools.product(POSITIONS, MLPS, NORMS, (True, False)))
)


def make(*, seed: int = 0, **options: Any) -> Decoder:
    sizes = {"num_layers": 2, "num_heads": 2, "width": 8, "context": CONTEXT, "vocab_size": V}
    return Decoder(**(sizes | options), generator=torch.Generator().manual_seed(seed))


def run(backbone: Decoder, tokens: Tensor) -> Tensor:
    hidden: Tensor = backbone({"tokens": tokens})
    return hidden


def head_init(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("changed", [1, 4, CONTEXT - 1])
def test_a_token_changes_nothing_before_it(positions: str, changed: int, tokens: Tensor) -> None:
    backbone = make(positions=positions, init_std=0.5)
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % V
    before, after = run(backbone, tokens), run(backbone, other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert (before[:, changed:] != after[:, changed:]).any(dim=-1).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_shorter_sequence_has_the_hidden_states_of_the_beginning(positions: str, tokens: Tensor) -> None:
    backbone = make(positions=positions, init_std=0.5)
    torch.testing.assert_close(run(backbone, tokens[:, :3]), run(backbone, tokens)[:, :3])


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_earlier_tokens_matters(positions: str) -> None:
    """One layer, so that without positions attention would see a bag of tokens."""
    backbone = make(positions=positions, num_layers=1, init_std=0.5)
    last = [run(backbone, torch.tensor([order]))[0, -1] for order in ([1, 2, 3], [2, 1, 3])]
    assert (last[0] - last[1]).norm() > 1e-3


def normalise(hidden: Tensor, kind: str) -> Tensor:
    """Without gain and bias, as norms start."""
    if kind == "rms":
        return hidden / (hidden.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()


def expand(mlp: nn.Module, kind: str, hidden: Tensor) -> Tensor:
    """Biases are 0 at the start."""
    x = hidden @ mlp.get_parameter("input.weight").T
    if kind == "gelu":
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    elif kind == "relu":
        x = x * (x > 0)
    else:
        gate, value = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        x = gate / (1 + (-gate).exp()) * value
    return x @ mlp.get_parameter("output.weight").T


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mlp", MLPS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_layer_adds_attention_and_mlp_of_normalised_states(
    positions: str, mlp: str, norm: str, tokens: Tensor
) -> None:
    """Written out, but for the attention, which has its own tests."""
    backbone = make(positions=positions, mlp=mlp, norm=norm, init_std=0.5)
    hidden = backbone.embedding.weight[tokens]
    if positions == "learned":
        hidden = hidden + backbone.get_parameter("positions.weight")
    elif positions == "sinusoidal":
        hidden = hidden / 0.5 + sinusoidal_positions(CONTEXT, 8)
    for layer in backbone.layers:
        hidden = hidden + layer.attention(normalise(hidden, norm))
        hidden = hidden + expand(layer.mlp, mlp, normalise(hidden, norm))
    torch.testing.assert_close(run(backbone, tokens), normalise(hidden, norm), rtol=1e-4, atol=1e-5)


@each_combination
def test_every_combination_of_options_trains(positions: str, mlp: str, norm: str, tied: bool, tokens: Tensor) -> None:
    backbone = make(positions=positions, mlp=mlp, norm=norm, tie_embeddings=tied)
    projection = backbone.output_projection(V, head_init())
    logits = projection(run(backbone, tokens))
    assert logits.shape == (3, CONTEXT, V)
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1).flatten()).backward()
    for name, parameter in [*backbone.named_parameters(), *projection.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert (projection.weight is backbone.embedding.weight) == tied


@pytest.mark.parametrize(("norm", "biased"), [("rms", False), ("layer", True)])
def test_only_layer_norm_comes_with_biases(norm: str, biased: bool) -> None:
    linears = [module for module in make(norm=norm).modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 8
    assert all((linear.bias is not None) == biased for linear in linears)


def test_norms_start_at_one_and_biases_at_zero() -> None:
    for name, parameter in make(norm="layer").named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_initial_weights_have_the_documented_spread(positions: str) -> None:
    """The two maps that write into the residual stream: 0.02 / √(2 · 4); all others 0.02."""
    backbone = make(num_layers=4, width=64, context=32, vocab_size=101, positions=positions, mlp="swiglu")
    matrices = {name: parameter for name, parameter in backbone.named_parameters() if parameter.ndim == 2}
    assert len(matrices) == 4 * 4 + 1 + (positions == "learned")
    for name, parameter in matrices.items():
        writes_residual = name.endswith(("attention.output.weight", "mlp.output.weight"))
        expected = 0.02 / math.sqrt(8) if writes_residual else 0.02
        standard_error = 1 / math.sqrt(2 * parameter.numel())
        assert parameter.std().item() == pytest.approx(expected, rel=5 * standard_error), name
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name


def test_an_own_projection_comes_out_of_the_head_stream() -> None:
    backbone = make(width=64, tie_embeddings=False, init_std=0.1)
    first, same, other = (backbone.output_projection(500, head_init(seed)).weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.shape == (500, 64)
    assert first.std().item() == pytest.approx(0.1, rel=5 / math.sqrt(2 * first.numel()))


@pytest.mark.parametrize("positions", POSITIONS)
def test_initial_weights_depend_on_the_generator_alone(positions: str) -> None:
    weights = []
    for global_seed, seed in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(global_seed)
        backbone = make(seed=seed, positions=positions, tie_embeddings=False)
        projection = backbone.output_projection(V, head_init(seed))
        weights.append([*backbone.state_dict().values(), *projection.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_tying_does_not_shift_the_backbone_stream() -> None:
    tied, own = make(tie_embeddings=True).state_dict(), make(tie_embeddings=False).state_dict()
    assert tied.keys() == own.keys()
    assert all(torch.equal(tied[name], own[name]) for name in tied)


def test_dropout_is_off_in_eval_mode_and_on_in_training(tokens: Tensor) -> None:
    dropping, plain = make(dropout=0.5), make(dropout=0.0)
    assert torch.equal(run(dropping.eval(), tokens), run(plain.eval(), tokens))
    dropping.train()
    assert not torch.equal(run(dropping, tokens), run(dropping, tokens))
    assert torch.equal(run(plain.train(), tokens), run(plain, tokens))


@pytest.mark.parametrize("place", ["embedding.weight", "layers.0.attention.output.bias", "layers.0.mlp.output.bias"])
def test_dropout_is_on_embeddings_and_both_residual_branches(place: str) -> None:
    """With ones in one place and nothing from the others, half of the hidden numbers are 0 and half are doubled."""
    backbone = make(num_layers=1, norm="layer", dropout=0.5, width=64)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name == "embedding.weight" or ".output." in name:
                parameter.fill_(float(name == place))
    backbone.last_norm = nn.Identity()
    hidden = run(backbone, torch.zeros(4, CONTEXT, dtype=torch.int64))
    assert set(hidden.unique().tolist()) == {0.0, 2.0}
    assert hidden.mean().item() == pytest.approx(1.0, abs=5 / math.sqrt(hidden.numel()))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_layers": 0}, "num_layers"),
        ({"num_heads": 0}, "num_heads"),
        ({"width": -8}, "width"),
        ({"context": 0}, "context"),
        ({"mlp_width": 0}, "mlp_width"),
        ({"num_heads": 3}, "num_heads=3 does not divide"),
        ({"num_heads": 8}, "even width per head"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": math.nan}, "dropout"),
        ({"init_std": 0.0}, "init_std"),
        ({"init_std": math.nan}, "init_std"),
    ],
)
def test_bad_sizes_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make(**options)


def test_one_number_per_head_is_enough_without_rotary_positions() -> None:
    assert run(make(num_heads=8, positions="learned"), torch.zeros(1, 2, dtype=torch.int64)).shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("options", "per_layer"),
    [
        # qkv 3 · 8², output 8², and the MLP's maps between 8 and 4 · 8 = 32.
        ({}, 192 + 64 + 256 + 256),
        ({"mlp": "swiglu"}, 192 + 64 + 512 + 256),
        ({"mlp_width": 10, "norm": "layer", "positions": "learned"}, 192 + 64 + 80 + 80),
    ],
)
def test_flops_are_those_counted_by_hand(options: dict[str, Any], per_layer: int) -> None:
    """Two layers: 6 for each weight, and 6 · 8 · 16 for the scores of a context of 16; a window has 16 tokens."""
    assert make(context=16, **options).flops_per_sample() == 16 * 2 * (6 * per_layer + 6 * 8 * 16)
