"""The parts of a model of transformers: its body, its layers, its output layer, and what of it is trained."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from losslab.errors import UserError
from losslab.models.pretrained_folder import cleaned, need, quiet

Frozen = int | Literal["none", "embeddings", "all"]
_DROPOUTS = (
    "dropout attention_dropout activation_dropout hidden_dropout hidden_dropout_prob attention_probs_dropout_prob "
    "attn_dropout resid_pdrop embd_pdrop attn_pdrop resid_dropout embd_dropout embedding_dropout mlp_dropout"
).split()
"""Names that configurations have for rates of dropout."""


ADAPTER = ".lora_"
"""Stands in the names of the weights of adapters."""


class Parts(NamedTuple):
    """A model of transformers, split where its output layer begins."""

    body: nn.Module
    """Token ids → hidden states."""
    head: nn.Linear | None
    """Hidden states → logits; None where it was not asked for."""


def make_config(architecture: dict[str, Any], *, dropout: float | None = None) -> Any:
    """The configuration that the content of a config.json stands for.

    Raises:
        UserError: for an architecture that the installed transformers has not, and for one that reads no text, or two.
    """
    transformers = need("transformers", "model=pretrained")
    kind = architecture["model_type"]
    settings = {key: value for key, value in cleaned(architecture).items() if key != "model_type"}
    with quiet():
        try:
            config = transformers.AutoConfig.for_model(kind, **settings)
        except Exception as error:  # each architecture has errors of its own
            told = " ".join(str(error).split())
            raise UserError(
                f"transformers {transformers.__version__} makes no model of model_type={kind!r} with these settings: "
                f"{told:.200}"
            ) from None
    if not isinstance(getattr(config.get_text_config(), "vocab_size", None), int):
        raise UserError(f"model=pretrained reads tokens, and models of model_type={kind!r} have no vocabulary")
    if config.is_encoder_decoder:
        raise UserError(
            f"model=pretrained reads one text, and {kind!r} is an encoder with a decoder, which reads two: choose a "
            "decoder (GPT-2, Llama) or an encoder (BERT)"
        )
    if dropout is not None:
        names = [name for name in _DROPOUTS if isinstance(getattr(config, name, None), int | float)]
        if not names:
            raise UserError(f"model.dropout: models of model_type={kind!r} have none; leave it out")
        for name in names:
            setattr(config, name, dropout)
    return config


def is_causal(config: Any) -> bool | None:
    """Whether hidden states depend on tokens up to their position alone; None where transformers does not say."""
    mappings = need("transformers", "model=pretrained").models.auto.modeling_auto
    if getattr(config, "use_bidirectional_attention", False):
        return False
    if config.model_type in mappings.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(config.is_decoder)
    return True if config.model_type in mappings.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def model_class(config: Any, *, head: bool) -> Any:
    """The class of transformers for a configuration.

    Args:
        head: with an output layer of logits.

    Raises:
        UserError: where there is none.
    """
    transformers = need("transformers", "model=pretrained")
    auto = transformers.AutoModel
    if head:
        auto = transformers.AutoModelForCausalLM if is_causal(config) else transformers.AutoModelForMaskedLM
    try:
        found = auto._model_mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    except KeyError:
        raise UserError(
            f"transformers has no {auto.__name__} of model_type={config.model_type!r}"
            + (": give model.head=fresh" if head else ": choose a model of texts")
        ) from None


def make_model(kind: Any, config: Any) -> Any:
    """A model of a class of `model_class`, in float32, with weights that are drawn."""
    with quiet():
        try:
            return kind._from_config(config, dtype=torch.float32)
        except UserError:
            raise
        except Exception as error:  # sizes that do not go together raise errors of several kinds
            told = " ".join(str(error).split())
            raise UserError(f"transformers makes no {kind.__name__} of these settings: {told:.200}") from None


def split(model: Any, *, head: bool) -> Parts:
    """Split a model of `make_model` where its output layer begins; layers that pool are taken away.

    Raises:
        UserError: for an output layer that is more than a linear one.
    """
    if not head:
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        return Parts(model, None)
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise UserError(f"the output layer of {type(model).__name__} is no linear one: give model.head=fresh")
    if is_causal(model.config):
        return Parts(model.base_model, layer)
    # Models of hidden tokens have layers between body and output layer, which stay in the body.
    name = next(name for name, module in model.named_modules() if module is layer)
    model.set_submodule(name, nn.Identity())
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter is layer.bias:  # BERT holds it twice
                module.register_parameter(name, None)
    return Parts(model, layer)


def layers_of(body: nn.Module, config: Any) -> list[nn.Module]:
    """Its layers in their order; none where they cannot be told from other modules."""
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return list(lists[0]) if lists else []


def longest(config: Any, body: nn.Module) -> int | None:
    """The most positions that it has embeddings or angles for; None where its configuration does not say."""
    count = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(count, int) or count <= 0:
        return None
    tables = [module for name, module in body.named_modules() if name.endswith("position_embeddings")]
    padding = next((table.padding_idx for table in tables if isinstance(table, nn.Embedding)), None)
    return count if padding is None else count - padding - 1  # RoBERTa counts positions from there on


def frozen_modules(body: nn.Module, layers: list[nn.Module], frozen: Frozen) -> list[nn.Module]:
    """The modules that are not trained.

    Raises:
        UserError: for more layers than there are.
    """
    if frozen == "none":
        return []
    if frozen == "all":
        return [body]
    inside = {id(module) for layer in layers for module in layer.modules()}
    found = _embeddings(body, layers)
    found += [module for module in body.modules() if isinstance(module, nn.Dropout) and id(module) not in inside]
    if isinstance(frozen, int):
        if not layers:
            raise UserError(f"model.frozen={frozen}: {type(body).__name__} does not tell its layers; give all or none")
        if not 0 < frozen <= len(layers):
            raise UserError(f"model.frozen={frozen}: the model has {len(layers)} layers; give 1 to {len(layers)}")
        found += layers[:frozen]
    return found


def _embeddings(body: nn.Module, layers: list[nn.Module]) -> list[nn.Module]:
    """Tables of tokens, positions and types, each with the modules around it that hold no layer."""
    inside = {id(module) for layer in layers for module in layer.modules()}
    holding = {id(module) for module in body.modules() if inside & {id(part) for part in module.modules()}} | {id(body)}
    found: dict[int, nn.Module] = {}
    for name, module in body.named_modules():
        if isinstance(module, nn.Embedding) and id(module) not in inside:
            parts = name.split(".")
            around = (body.get_submodule(".".join(parts[:i])) for i in range(1, len(parts) + 1))
            widest = next(part for part in around if id(part) not in holding)
            found[id(widest)] = widest
    return list(found.values())


def add_adapters(body: nn.Module, *, rank: int, alpha: float | None, dropout: float, targets: list[str] | None) -> None:
    """Put adapters of low rank (LoRA, Hu et al. 2021, arXiv:2106.09685) beside linear layers; nothing else is trained.

    Args:
        alpha: the sum of both is W + alpha / rank · B A; default: 2 · rank.
        targets: ends of the names of the layers; default: those that peft names for the architecture.

    Raises:
        UserError: where peft is missing, or no layer has such a name.
    """
    peft = need("peft", "model.lora_rank")
    names = list(targets) if targets is not None else None
    settings = {
        "r": rank,
        "lora_alpha": 2 * rank if alpha is None else alpha,
        "lora_dropout": dropout,
        "target_modules": names,
    }
    with quiet():
        try:
            peft.inject_adapter_in_model(peft.LoraConfig(**settings), body)
        except ValueError as error:
            linear = sorted({name.rpartition(".")[2] for name, part in body.named_modules() if _is_linear(part)})
            raise UserError(
                f"model.lora_targets={'null' if names is None else names}: "
                + ("peft names no layers for this model" if names is None else " ".join(str(error).split())[:120])
                + f"; name some of {', '.join(linear)}"
            ) from None
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(ADAPTER in name)


def _is_linear(module: nn.Module) -> bool:
    """Also GPT-2's, which are no nn.Linear."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def base_name(name: str) -> str:
    """The name that a weight has without adapters."""
    return name.replace(".base_layer.", ".")


def merge_adapters(body: nn.Module) -> None:
    """Add adapters to the layers that they stand beside, and leave those layers alone."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(body.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            body.set_submodule(name, module.get_base_layer())


def multiplying(body: nn.Module) -> int:
    """Floating-point operations for each token in the layers that multiply, forward and backward: 2 for each weight and
    pass; a gradient is computed of each weight that is trained, and of each input above the lowest of those."""
    flops, above = 0, False
    for module in body.modules():
        weight = getattr(module, "weight", None) if _is_linear(module) else None
        if isinstance(weight, nn.Parameter):
            flops += weight.numel() * (2 + 2 * (above or weight.requires_grad) + 2 * weight.requires_grad)
        above = above or any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    return flops
