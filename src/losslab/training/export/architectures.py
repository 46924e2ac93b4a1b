"""The architecture of transformers that computes what a Decoder computes, with its settings and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from losslab.choices import chosen
from losslab.errors import UserError
from losslab.models.decoder import Decoder
from losslab.models.layer import TransformerLayer
from losslab.models.positions import ROTARY_BASE
from losslab.models.transformer import StackOptions


@dataclass(frozen=True)
class Architecture:
    """A model of transformers: its `model_type`, the settings of its configuration, and its weights by their names
    there, the token embedding first, without the output projection."""

    model_type: str
    settings: dict[str, Any]
    weights: dict[str, Tensor]


def architecture_of(decoder: nn.Module) -> Architecture:
    """The exact counterpart of a decoder, in evaluation mode.

    Raises:
        UserError: where there is none.
    """
    if type(decoder) is not Decoder:
        raise UserError(
            f"transformers has no counterpart of {chosen('model', decoder)}, only of model=decoder: "
            "--format onnx writes any model, and --format safetensors its weights"
        )
    _check_options(decoder)
    norm = "rms" if isinstance(decoder.last_norm, nn.RMSNorm) else "layer"
    positions = "rotary" if decoder.position_table is None and decoder.positions is None else "absolute"
    mlp = "gated" if _first(decoder).mlp.activation == "swiglu" else "plain"
    make = _ARCHITECTURES.get((norm, positions, mlp))
    if make is None:
        named = {"absolute": "sinusoidal" if decoder.positions is None else "learned"}.get(positions, positions)
        raise UserError(
            f"transformers has no counterpart of model.norm={norm} with model.positions={named} and model.mlp="
            f"{_first(decoder).mlp.activation}: rms goes with rotary, and layer with gelu or relu; --format onnx "
            "writes this model"
        )
    return make(decoder)


def _check_options(decoder: Decoder) -> None:
    """Refuse options that no architecture here has. Raises UserError naming the first."""
    plain = StackOptions(num_layers=1, num_heads=1, width=2, context=1, causal=True)
    for name in ("norm_placement", "embedding_norm", "qk_norm", "window", "num_types"):
        if (value := getattr(decoder.options, name)) != getattr(plain, name):
            raise UserError(
                f"losslab writes no counterpart in transformers of model.{name}={str(value).lower()}: --format onnx "
                "writes this model"
            )
    attention = _first(decoder).attention
    grouped = attention.num_kv_heads != attention.num_heads
    if grouped and decoder.options.norm != "rms":
        raise UserError(
            f"transformers has no counterpart of model.num_kv_heads={attention.num_kv_heads} with model.norm="
            f"{decoder.options.norm}: rms has one; --format onnx writes this model"
        )


def _llama(decoder: Decoder) -> Architecture:
    """Touvron et al. 2023, arXiv:2302.13971: RMSNorm, rotary positions, SwiGLU, no biases."""
    weights = dict(_rotary_weights(decoder))
    for i, layer in enumerate(_layers(decoder)):
        gate, value = layer.mlp.input.weight.chunk(2)
        weights |= {f"model.layers.{i}.mlp.gate_proj.weight": gate, f"model.layers.{i}.mlp.up_proj.weight": value}
    return Architecture("llama", _rotary_settings(decoder) | {"hidden_act": "silu"}, weights)


def _arcee(decoder: Decoder) -> Architecture:
    """Llama with an MLP of two maps, of Arcee's AFM-4.5B."""
    weights = dict(_rotary_weights(decoder))
    weights |= {f"model.layers.{i}.mlp.up_proj.weight": x.mlp.input.weight for i, x in enumerate(_layers(decoder))}
    return Architecture("arcee", _rotary_settings(decoder) | {"hidden_act": _first(decoder).mlp.activation}, weights)


def _rotary_settings(decoder: Decoder) -> dict[str, Any]:
    norm = decoder.last_norm
    assert isinstance(norm, nn.RMSNorm)
    return {
        **_sizes(decoder),
        "num_key_value_heads": _first(decoder).attention.num_kv_heads,
        "rms_norm_eps": norm.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
    }


def _rotary_weights(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    yield "model.embed_tokens.weight", decoder.embedding.weight
    yield "model.norm.weight", decoder.last_norm.weight  # type: ignore[misc]
    for i, layer in enumerate(_layers(decoder)):
        names = [f"model.layers.{i}.self_attn.{name}_proj.weight" for name in "qkv"]
        parts = torch.split(layer.attention.qkv.weight, layer.attention.sizes)
        yield from zip(names, parts, strict=True)
        yield f"model.layers.{i}.self_attn.o_proj.weight", layer.attention.output.weight
        yield f"model.layers.{i}.mlp.down_proj.weight", layer.mlp.output.weight
        yield f"model.layers.{i}.input_layernorm.weight", layer.attention_norm.weight  # type: ignore[misc]
        yield f"model.layers.{i}.post_attention_layernorm.weight", layer.mlp_norm.weight  # type: ignore[misc]


def _gpt2(decoder: Decoder) -> Architecture:
    """Radford et al. 2019. Sinusoidal positions are learned ones that have these values; the embedding is then divided
    as the decoder divides it, and the output projection is no longer tied to it."""
    embedding, positions = decoder.embedding.weight, decoder.position_table
    if positions is None:
        assert decoder.positions is not None
        positions = decoder.positions.weight
    else:
        embedding = embedding.float() / decoder.init_std
    weights = {"transformer.wte.weight": embedding, "transformer.wpe.weight": positions}
    weights |= _both("transformer.ln_f", decoder.last_norm)
    for i, layer in enumerate(_layers(decoder)):
        start = f"transformer.h.{i}"
        weights |= _both(f"{start}.ln_1", layer.attention_norm) | _both(f"{start}.ln_2", layer.mlp_norm)
        maps = {
            "attn.c_attn": layer.attention.qkv,
            "attn.c_proj": layer.attention.output,
            "mlp.c_fc": layer.mlp.input,
            "mlp.c_proj": layer.mlp.output,
        }
        for name, linear in maps.items():
            weights |= {f"{start}.{name}.weight": linear.weight.T, f"{start}.{name}.bias": linear.bias}
    norm = decoder.last_norm
    assert isinstance(norm, nn.LayerNorm)
    settings = {
        "n_positions": decoder.context,
        "n_embd": decoder.width,
        "n_layer": decoder.num_layers,
        "n_head": _first(decoder).attention.num_heads,
        "n_inner": _first(decoder).mlp.output.in_features,
        "activation_function": _first(decoder).mlp.activation,
        "layer_norm_epsilon": norm.eps,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
    return Architecture("gpt2", settings, weights)


def _gpt_neox(decoder: Decoder) -> Architecture:
    """Black et al. 2022, arXiv:2204.06745, with one branch after the other."""
    weights = {"gpt_neox.embed_in.weight": decoder.embedding.weight}
    weights |= _both("gpt_neox.final_layer_norm", decoder.last_norm)
    for i, layer in enumerate(_layers(decoder)):
        start, attention = f"gpt_neox.layers.{i}", layer.attention
        weights |= _both(f"{start}.input_layernorm", layer.attention_norm)
        weights |= _both(f"{start}.post_attention_layernorm", layer.mlp_norm)
        weights |= _both(f"{start}.attention.dense", attention.output)
        weights |= _both(f"{start}.mlp.dense_h_to_4h", layer.mlp.input)
        weights |= _both(f"{start}.mlp.dense_4h_to_h", layer.mlp.output)
        for kind, value in _both("query_key_value", attention.qkv).items():
            # Ours is all queries, all keys, all values; there each head has its three together.
            by_head = value.view(3, attention.num_heads, -1, *value.shape[1:]).transpose(0, 1).flatten(0, 2)
            weights[f"{start}.attention.{kind}"] = by_head
    norm = decoder.last_norm
    assert isinstance(norm, nn.LayerNorm)
    settings = {
        **_sizes(decoder),
        "hidden_act": _first(decoder).mlp.activation,
        "layer_norm_eps": norm.eps,
        "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": 1.0},
        "attention_bias": True,
        **dict.fromkeys(("attention_dropout", "hidden_dropout"), 0.0),
    }
    return Architecture("gpt_neox", settings, weights)


_ARCHITECTURES: dict[tuple[str, str, str], Callable[[Decoder], Architecture]] = {
    ("rms", "rotary", "gated"): _llama,
    ("rms", "rotary", "plain"): _arcee,
    ("layer", "absolute", "plain"): _gpt2,
    ("layer", "rotary", "plain"): _gpt_neox,
}
"""By norm, positions and MLP."""


def _sizes(decoder: Decoder) -> dict[str, Any]:
    return {
        "hidden_size": decoder.width,
        "intermediate_size": _first(decoder).mlp.output.in_features,
        "num_hidden_layers": decoder.num_layers,
        "num_attention_heads": _first(decoder).attention.num_heads,
        "max_position_embeddings": decoder.context,
    }


def _both(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Weight and bias of a module, by their names."""
    return {f"{name}.{kind}": value for kind, value in module.named_parameters()}


def _layers(decoder: Decoder) -> list[TransformerLayer]:
    return list(decoder.layers)  # type: ignore[arg-type]


def _first(decoder: Decoder) -> TransformerLayer:
    return _layers(decoder)[0]
