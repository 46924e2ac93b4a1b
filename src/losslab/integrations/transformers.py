"""Our losses in the causal language models of transformers, and in its Trainer. Needs the extra `hf`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError
from losslab.functional import LinearLoss, linear_loss, previous_tokens
from losslab.integrations.causal_head import check_head, import_transformers, output_head, plain_head
from losslab.losses.base import Loss

_ATTRIBUTE = "_losslab_loss"
"""The attribute of a patched model that holds its loss, in a tuple: a module would become part of its checkpoints."""
_OF_LOGITS = ("logits_to_keep", "num_logits_to_keep")
"""Arguments of a model's forward that say which logits it returns."""


def patch(model: Any, loss: str | Loss = "focal", *, class_counts: Tensor | None = None, **options: Any) -> Any:
    """Let a causal language model compute our loss: `forward(labels=…)` returns it and no logits, which never exist.

    Without labels the model is what it was: it generates, and it is saved under its own name. Labels arrive as
    transformers has them, the same as `input_ids`, with -100 where a position is ignored; the next token is the target.
    The loss is divided by `num_items_in_batch` where the caller gives it, as the Trainer does, else by the weight of
    the positions that count. The class of this one object is replaced by a subclass of the same name, so that the patch
    works inside DDP and FSDP and in copies; patch before anything wraps the model. A second call replaces the loss.
    `TrainingArguments(label_smoothing_factor=…)` takes the labels away, and the Trainer then computes its own loss.

    Args:
        model: a PreTrainedModel whose logits are hidden states times `get_output_embeddings()`, and nothing else:
            GPT-2, Llama, Mistral, Qwen … It is tried once, on four tokens.
        loss: a name of the catalogue, or an instance of a Loss class.
        class_counts: [V], how often each token is a target, for a loss that reads them.
        options: those of the loss, where `loss` is a name.

    Returns:
        The model.

    Raises:
        UserError: where transformers is not installed, for a model with another head, and for a loss with parameters.
    """
    import_transformers()
    unpatch(model)
    head = output_head(model)
    if "forward" in vars(model):
        raise UserError(
            f"another tool has replaced the forward of this {type(model).__name__}: patch a model without it"
        )
    made = _loss_for(head, loss, class_counts, options)
    check_head(model, head)
    model.__class__ = _patched(type(model))
    setattr(model, _ATTRIBUTE, (made,))
    return model


def unpatch(model: Any) -> Any:
    """Undo `patch`; a model that is not patched stays as it is. Returns the model.

    Raises:
        UserError: for a patched model that something else has wrapped since.
    """
    if not hasattr(type(model), _ATTRIBUTE):
        return model
    if _ATTRIBUTE not in vars(type(model)):
        raise UserError(f"{type(model).__name__} was wrapped after it was patched: unwrap it first, or load it again")
    model.__class__ = type(model).__bases__[0]
    delattr(model, _ATTRIBUTE)
    model.__dict__.pop("forward", None)  # accelerate's, under mixed precision: it calls the patched one
    return model


def trainer_arguments(
    model: Any,
    loss: str | Loss = "focal",
    *,
    data_collator: Callable[[Sequence[Any]], Mapping[str, Any]] | None = None,
    class_counts: Tensor | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Arguments of the Trainer for our loss beside an untouched model: `Trainer(model, **trainer_arguments(model))`.

    `data_collator` asks the model for its hidden states and the logits of one position a text; `compute_loss_func`
    computes the loss from the last of them and the model's own projection. For one device or DDP; FSDP shards the
    projection outside the model's forward, so that it needs `patch`. Under `bf16=True` the Trainer casts hidden states
    to float32, and the products of the loss with them; those of `patch` are bfloat16.

    Args:
        model, loss, class_counts, options: as of `patch`.
        data_collator: makes the batch; transformers' `default_data_collator` where None.

    Raises:
        UserError: as `patch`, and for a loss that reads the tokens before a target.
    """
    transformers = import_transformers()
    unpatch(model)
    head = output_head(model)
    made = _loss_for(head, loss, class_counts, options)
    if made.loss.needs:
        raise UserError(
            f"{type(made.loss).__name__} reads {next(iter(made.loss.needs))!r} of each position, which "
            "compute_loss_func does not see: use losslab.integrations.transformers.patch"
        )
    check_head(model, head, hidden_states=True)
    return {
        "data_collator": _Collator(data_collator or transformers.default_data_collator),
        "compute_loss_func": _LossFunction(made, head),
    }


class _Collator:
    """Adds to each batch what `_LossFunction` reads of the outputs."""

    def __init__(self, inner: Callable[[Sequence[Any]], Mapping[str, Any]]) -> None:
        self.inner = inner

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        return {**self.inner(examples), "output_hidden_states": True, "logits_to_keep": 1}


class _LossFunction:
    """The Trainer's `compute_loss_func`."""

    def __init__(self, loss: LinearLoss, head: nn.Linear) -> None:
        self.loss, self.head = loss, head

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        return _divided(self.loss, self.head, outputs.hidden_states[-1], _shifted(labels), num_items_in_batch)


def _loss_for(head: nn.Linear, loss: str | Loss, class_counts: Tensor | None, options: dict[str, Any]) -> LinearLoss:
    num_outputs, hidden_size = head.weight.shape
    made = LinearLoss(num_outputs=num_outputs, hidden_size=hidden_size, loss=loss, class_counts=class_counts, **options)
    if parameters := [name for name, _ in made.loss.named_parameters()]:
        raise UserError(
            f"{type(made.loss).__name__} has parameters of its own ({parameters[0]}), which the model's checkpoints "
            "would not hold: use losslab.functional.LinearLoss in a loop of your own"
        )
    if made.loss.reads_teacher:
        raise UserError(
            f"{type(made.loss).__name__} reads a teacher's hidden states, which the model does not get: use "
            "losslab.functional.linear_loss in a loop of your own"
        )
    return made


def _patched(kind: type) -> type:
    """A subclass that differs in its forward alone, and that pickles although no module holds it."""
    body = {
        "forward": _forward_of(kind),
        "__reduce_ex__": lambda self, protocol: (_unpickled, (kind,), self.__dict__),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        _ATTRIBUTE: (),
    }
    return type(kind.__name__, (kind,), body)


def _unpickled(kind: Any) -> Any:
    """An empty object of the patched class."""
    made: Any = object.__new__(kind)
    made.__class__ = _patched(kind)
    return made


def _forward_of(kind: type) -> Callable[..., Any]:
    """The forward of a patched model, with the signature of its own: the Trainer reads that."""
    original: Callable[..., Any] = kind.forward  # type: ignore[attr-defined]
    signature = inspect.signature(original)
    names = list(signature.parameters)[1:]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if given.get("labels") is None:
            return original(self, *args, **kwargs)
        return _outputs(self, given)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    forward.__doc__ = original.__doc__
    return forward


def _outputs(model: Any, given: dict[str, Any]) -> Any:
    """The loss that a patched model returns for labels."""
    from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions as Output

    labels, shifted = given.pop("labels"), given.pop("shift_labels", None)
    items, ignored = given.pop("num_items_in_batch", None), given.pop("ignore_index", -100)
    as_dict = given.pop("return_dict", None)
    body = {name: value for name, value in given.items() if name not in _OF_LOGITS}
    outputs = model.base_model(**body, return_dict=True)
    if outputs.get("router_logits") is not None:
        raise UserError("output_router_logits adds a loss of the router, which would be left out: call without it")
    (loss,) = getattr(model, _ATTRIBUTE)
    target = _shifted(labels, ignored) if shifted is None else shifted
    extras = {}
    if count := loss.loss.needs.get("previous"):
        if given.get("input_ids") is None:
            raise UserError(f"{type(loss.loss).__name__} reads the tokens before each target: give input_ids")
        extras["previous"] = previous_tokens(given["input_ids"], count)
    hidden = outputs.last_hidden_state
    head = plain_head(model)  # adapters may have replaced it since
    value = _divided(loss, head, hidden, target, items, ignored=ignored, extras=extras)
    known = {field.name for field in fields(Output)}
    result = Output(loss=value, **{name: part for name, part in outputs.items() if name in known})
    return result if (model.config.return_dict if as_dict is None else as_dict) else result.to_tuple()


def _shifted(labels: Tensor, ignored: int = -100) -> Tensor:
    """The target of each position: the label of the next."""
    return F.pad(labels[..., 1:], (0, 1), value=ignored)


def _divided(
    loss: LinearLoss,
    head: nn.Linear,
    hidden: Tensor,
    target: Tensor,
    items: Tensor | int | None,
    *,
    ignored: int = -100,
    extras: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The sum over `items`; the mean where they are None."""
    value = linear_loss(
        hidden,
        head.weight,
        target,
        loss=loss.loss,
        bias=head.bias,
        ignore_index=ignored,
        extras=extras,
        reduction="mean" if items is None else "sum",
    )
    if items is None:
        return value
    return value / (items.to(value.device) if isinstance(items, Tensor) else items)
