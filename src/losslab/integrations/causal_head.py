"""Refuse models of transformers whose logits are not their last hidden states times their output embeddings, or whose
loss is not the cross-entropy of the next token: by the configuration, and by a trial."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError

_NEUTRAL = (None, 0, 1)
_AFTER_THE_PRODUCT = {
    "final_logit_softcapping": "soft-caps its logits",
    "logit_scale": "scales its logits",
    "logits_scaling": "scales its logits",
    "lm_head_multiplier": "scales its logits",
    "output_router_logits": "adds a loss of its router",
}
"""Keys of configurations under which the product is not all of the loss: Gemma 2, Cohere, Granite, Falcon-H1, mixtures
of experts."""


def import_transformers() -> ModuleType:
    """Raises UserError, naming the extra, where transformers is not installed."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise UserError(
            "transformers is not installed: pip install 'losslab[hf]' brings it, and accelerate for its Trainer"
        ) from None
    found: ModuleType = transformers
    return found


def output_head(model: Any) -> nn.Linear:
    """The output projection of a causal language model.

    Raises:
        UserError: for anything else than a PreTrainedModel with a body and a plain linear layer on it.
    """
    name = type(model).__name__
    if not isinstance(model, import_transformers().PreTrainedModel):
        hint = "patch the model inside it, model.get_base_model()" if hasattr(model, "get_base_model") else "give one"
        raise UserError(f"{name} is no PreTrainedModel of transformers: {hint}, before anything wraps it")
    config = model.config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{name} is an encoder with a decoder, whose labels are not shifted: give a causal model")
    for key, what in _AFTER_THE_PRODUCT.items():
        value = getattr(config, key, None)
        if value is True or value not in _NEUTRAL:
            raise UserError(
                f"{name} {what} (config.{key}={value}), which would be left out: use losslab.functional.linear_loss "
                "with a loss that does the same"
            )
    if model.get_output_embeddings() is None or model.base_model is model:
        raise UserError(f"{name} has no output embeddings over a body: give a model for causal language modelling")
    return plain_head(model)


def plain_head(model: Any) -> nn.Linear:
    """Raises UserError where the output embeddings are more than a matrix and a bias: an adapter, a quantised layer."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise UserError(
            f"the output embeddings of {type(model).__name__} are a {type(head).__name__}, not a plain nn.Linear"
        )
    return head


def check_head(model: Any, head: nn.Linear, *, hidden_states: bool = False) -> None:
    """Try a model on four tokens: its logits must be hidden states times the weight of `head`, and its own loss the
    cross-entropy of the next token. A model on the meta device is not tried.

    Args:
        hidden_states: try the last of `output_hidden_states` instead of the body's output.
    Raises:
        UserError: where they are something else.
    """
    name = type(model).__name__
    if hidden_states and "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise UserError(f"the forward of {name} has no logits_to_keep: use losslab.integrations.transformers.patch")
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    tokens = torch.arange(4, device=head.weight.device)[None] % len(head.weight)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            own = model(input_ids=tokens, labels=tokens, output_hidden_states=hidden_states, return_dict=True)
            body = None if hidden_states else model.base_model(input_ids=tokens, return_dict=True)
    except Exception as error:  # a model may raise anything
        words = " ".join(str(error).split())
        raise UserError(f"{name} fails on four tokens with labels ({type(error).__name__}: {words})") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    hidden = own.hidden_states[-1] if body is None else body.last_hidden_state
    logits = F.linear(hidden.to(head.weight.dtype), head.weight, head.bias)
    exact = logits.dtype == own.logits.dtype == torch.float32
    if not _near(logits, own.logits, 1e-3 if exact else 3e-2):
        raise UserError(
            f"the logits of {name} are not hidden states times its output embeddings: something stands between or after"
        )
    if not _near(F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:]), own.loss, 1e-5 if exact else 3e-2):
        raise UserError(f"the loss of {name} is not the cross-entropy of the next token: give a causal model")


def _near(found: Tensor, expected: Tensor | None, tolerance: float) -> bool:
    if expected is None or found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-6))
