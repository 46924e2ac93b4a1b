"""Hidden states of other libraries' models, given the same weights: transformers' and torch's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.models.decoder import Decoder
from losslab.models.encoder import Encoder
from losslab.models.transformer_2017 import Transformer2017

transformers = pytest.importorskip("transformers")

V, CONTEXT, WIDTH, HEADS, INNER, LAYERS = 13, 12, 16, 4, 24, 2
SIZES: dict[str, Any] = {"num_layers": LAYERS, "num_heads": HEADS, "width": WIDTH, "context": CONTEXT, "vocab_size": V}
SIZES |= {"mlp_width": INNER}
FOREIGN: dict[str, Any] = {"vocab_size": V, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
FOREIGN |= {"num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": CONTEXT}
MASK = torch.arange(CONTEXT) < torch.tensor([CONTEXT, 7, 1])[:, None]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
WIDE = 0.3
"""Spread of the weights: wide enough for attention that is not uniform."""


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


def varied(model: nn.Module) -> Any:
    """Weights, norms and biases with values of their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(WIDE * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Every weight of ours, of the name that it has."""
    model.load_state_dict(weights)
    model.eval()


def llama_weights(theirs: Any, *, normed: bool) -> dict[str, Tensor]:
    weights = {"embedding.weight": theirs.embed_tokens.weight, "last_norm.weight": theirs.norm.weight}
    for i, layer in enumerate(theirs.layers):
        attention, start = layer.self_attn, f"layers.{i}"
        weights |= {
            f"{start}.attention_norm.weight": layer.input_layernorm.weight,
            f"{start}.mlp_norm.weight": layer.post_attention_layernorm.weight,
            f"{start}.attention.qkv.weight": torch.cat([getattr(attention, f"{n}_proj").weight for n in "qkv"]),
            f"{start}.attention.output.weight": attention.o_proj.weight,
            f"{start}.mlp.input.weight": torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]),
            f"{start}.mlp.output.weight": layer.mlp.down_proj.weight,
        }
        if normed:
            weights[f"{start}.attention.query_norm.weight"] = attention.q_norm.weight
            weights[f"{start}.attention.key_norm.weight"] = attention.k_norm.weight
    return weights


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_decoder_is_llama(kv_heads: int, tokens: Tensor) -> None:
    config = transformers.LlamaConfig(**FOREIGN, num_key_value_heads=kv_heads, rms_norm_eps=1e-6)
    theirs = varied(transformers.LlamaModel(config))
    ours = Decoder(**SIZES, mlp="swiglu", num_kv_heads=kv_heads)
    load(ours, llama_weights(theirs, normed=False))
    torch.testing.assert_close(ours({"tokens": tokens}), theirs(tokens).last_hidden_state, **CLOSE)


def test_decoder_with_a_window_is_mistral(tokens: Tensor) -> None:
    config = transformers.MistralConfig(**FOREIGN, num_key_value_heads=2, rms_norm_eps=1e-6, sliding_window=3)
    theirs = varied(transformers.MistralModel(config))
    ours = Decoder(**SIZES, mlp="swiglu", num_kv_heads=2, window=3)
    load(ours, llama_weights(theirs, normed=False))
    torch.testing.assert_close(ours({"tokens": tokens}), theirs(tokens).last_hidden_state, **CLOSE)


def test_decoder_with_normed_queries_and_keys_is_qwen3(tokens: Tensor) -> None:
    config = transformers.Qwen3Config(**FOREIGN, num_key_value_heads=2, rms_norm_eps=1e-6, head_dim=WIDTH // HEADS)
    theirs = varied(transformers.Qwen3Model(config))
    ours = Decoder(**SIZES, mlp="swiglu", num_kv_heads=2, qk_norm=True)
    load(ours, llama_weights(theirs, normed=True))
    torch.testing.assert_close(ours({"tokens": tokens}), theirs(tokens).last_hidden_state, **CLOSE)


def test_decoder_is_gpt2(tokens: Tensor) -> None:
    """With activation_function=gelu: GPT-2's own gelu_new approximates it by a tanh."""
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=CONTEXT,
        activation_function="gelu", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = varied(transformers.GPT2Model(config))
    weights = {"embedding.weight": theirs.wte.weight, "positions.weight": theirs.wpe.weight}
    weights |= both("last_norm", theirs.ln_f)
    for i, layer in enumerate(theirs.h):
        weights |= both(f"layers.{i}.attention_norm", layer.ln_1) | both(f"layers.{i}.mlp_norm", layer.ln_2)
        maps = {"attention.qkv": layer.attn.c_attn, "attention.output": layer.attn.c_proj}
        maps |= {"mlp.input": layer.mlp.c_fc, "mlp.output": layer.mlp.c_proj}
        for name, linear in maps.items():
            weights |= {f"layers.{i}.{name}.weight": linear.weight.T, f"layers.{i}.{name}.bias": linear.bias}
    ours = Decoder(**SIZES, positions="learned", norm="layer")
    load(ours, weights)
    torch.testing.assert_close(ours({"tokens": tokens}), theirs(tokens).last_hidden_state, **CLOSE)


def test_encoder_is_bert(tokens: Tensor) -> None:
    """With layer_norm_eps=1e-5, torch's own value; BERT has 1e-12."""
    config = transformers.BertConfig(**FOREIGN, layer_norm_eps=1e-5, attn_implementation="eager")
    theirs = varied(transformers.BertModel(config, add_pooling_layer=False))
    tables = theirs.embeddings
    weights = {"embedding.weight": tables.word_embeddings.weight, "positions.weight": tables.position_embeddings.weight}
    weights |= {"types.weight": tables.token_type_embeddings.weight} | both("embedding_norm", tables.LayerNorm)
    for i, layer in enumerate(theirs.encoder.layer):
        attention, start = layer.attention.self, f"layers.{i}"
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(attention, name), kind) for name in ("query", "key", "value")]
            weights[f"{start}.attention.qkv.{kind}"] = torch.cat(parts)
        weights |= both(f"{start}.attention.output", layer.attention.output.dense)
        weights |= both(f"{start}.attention_norm", layer.attention.output.LayerNorm)
        weights |= both(f"{start}.mlp.input", layer.intermediate.dense)
        weights |= both(f"{start}.mlp.output", layer.output.dense) | both(f"{start}.mlp_norm", layer.output.LayerNorm)
    ours = Encoder(**SIZES, positions="learned", norm="layer", norm_placement="post", embedding_norm=True, num_types=2)
    load(ours, weights)
    types = (torch.arange(CONTEXT) > 4).long().expand_as(tokens)
    found = ours({"tokens": tokens, "mask": MASK, "types": types})
    expected = theirs(tokens, attention_mask=MASK, token_type_ids=types).last_hidden_state
    torch.testing.assert_close(found[MASK], expected[MASK], **CLOSE)
    torch.testing.assert_close(ours({"tokens": tokens}), theirs(tokens).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_transformer_2017_has_torch_layers(bidirectional: bool, tokens: Tensor) -> None:
    ours = varied(Transformer2017(**SIZES, bidirectional=bidirectional))
    hidden = ours.embedding(tokens) * WIDTH**0.5 + ours.position_table
    ahead = None if bidirectional else nn.Transformer.generate_square_subsequent_mask(CONTEXT)
    padding = torch.zeros_like(MASK, dtype=torch.float32).masked_fill(~MASK, -torch.inf)
    for layer in ours.layers:
        theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.1, batch_first=True).eval()
        weights = {f"self_attn.in_proj_{kind}": getattr(layer.attention.qkv, kind) for kind in ("weight", "bias")}
        pairs = {"self_attn.out_proj": layer.attention.output, "linear1": layer.mlp.input, "linear2": layer.mlp.output}
        for name, module in (pairs | {"norm1": layer.attention_norm, "norm2": layer.mlp_norm}).items():
            weights |= both(name, module)
        theirs.load_state_dict(weights)
        hidden = theirs(hidden, src_mask=ahead, src_key_padding_mask=padding, is_causal=not bidirectional)
    torch.testing.assert_close(ours({"tokens": tokens, "mask": MASK})[MASK], hidden[MASK], **CLOSE)


def both(name: str, module: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
