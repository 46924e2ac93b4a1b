"""Pretrained backbones: any decoder or encoder of transformers, by its folder or its name on the hub."""

from __future__ import annotations

import hashlib
import json
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError
from losslab.models.pretrained_folder import (
    count_tokens,
    find_folder,
    need,
    quiet,
    read_config,
    tokenizer_file,
)
from losslab.models.pretrained_parts import (
    Frozen,
    Parts,
    add_adapters,
    frozen_modules,
    is_causal,
    layers_of,
    longest,
    make_config,
    make_model,
    model_class,
    multiplying,
    split,
)
from losslab.models.pretrained_weights import compare_outputs, hash_weights, outputs_of, read_weights, take_weights
from losslab.models.projection import OutputProjection

Head = Literal["pretrained", "fresh"]
_PROBE = 8
"""Tokens that the weights are tried with."""
_STD = 0.02


class Pretrained(nn.Module):
    """A model of transformers. Its folder is read where a run is planned and where it begins; a checkpoint holds all
    weights, and the run's configuration the content of config.json, so that nothing else needs the folder.

    No code out of a folder is run: classes are those of the installed transformers, and weights are read by safetensors
    or with `weights_only`.

    Args:
        name: the path of its folder (config.json, model.safetensors), or its name on the hub.
        context: the longest sequence that it gets; default: the longest that it can read.
        head: pretrained: the output projection is the model's own, tied where it ties; fresh: a new one. Default:
            pretrained for tasks that predict tokens, fresh for all others.
        frozen: what is not trained, and has no dropout: none, embeddings, all, or that many of the lowest layers and
            the embeddings.
        dropout: each rate of dropout; default: the model's own.
        lora_rank: rank of adapters beside linear layers (`add_adapters`), which alone are trained, and a fresh head;
            0: none.
        lora_alpha, lora_dropout, lora_targets: of these adapters.
        trust_remote_code: refused.
        architecture: the content of config.json, which `complete` reads.
        vocabulary: the size of the model's own tokenizer, which `complete` counts.
        vocab_size: V, known once the tokenizer is.

    Raises:
        UserError: for settings that the model cannot have, and a vocabulary that is not its own.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        context: int | None = None,
        head: Head | None = None,
        frozen: Frozen = "none",
        dropout: float | None = None,
        lora_rank: int = 0,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        lora_targets: list[str] | None = None,
        trust_remote_code: bool = False,
        architecture: dict[str, Any] | None = None,
        vocabulary: int | None = None,
        vocab_size: int,
    ) -> None:
        super().__init__()
        if architecture is None or name is None or context is None or head is None:
            raise UserError("model=pretrained is made from a configuration that Pretrained.complete has filled in")
        _refuse_code(trust_remote_code)
        _check_settings(context, dropout, lora_rank, lora_dropout, frozen)
        self.name = name
        self.architecture = architecture
        self.pretrained_head = head == "pretrained"
        if self.pretrained_head and frozen == "all":
            raise UserError("model.frozen=all and model.head=pretrained leave nothing to train: give model.head=fresh")
        self.config = make_config(architecture, dropout=dropout)
        model = make_model(model_class(self.config, head=self.pretrained_head), self.config)
        rows = model.get_input_embeddings().weight.shape[0]
        _check_vocabulary(vocab_size, vocabulary, rows, name)
        if self.pretrained_head and 1 < vocab_size < rows:  # rows that stand for no token
            with quiet():
                model.resize_token_embeddings(vocab_size)
        self.body, layer = split(model, head=self.pretrained_head)
        self._head = (layer,)  # a tuple, which registers nothing: its weights are those of the network's projection
        self.width: int = self.config.get_text_config().hidden_size if layer is None else layer.in_features
        self.causal = is_causal(self.config)
        self.context = context
        most = longest(self.config, self.body)
        if most is not None and context > most:
            raise UserError(f"model.context={context} is longer than the {most} positions that the model in {name} has")
        self._layers = tuple(layers_of(self.body, self.config))
        self.constant = frozen == "all"
        self._still = tuple(frozen_modules(self.body, list(self._layers), frozen))
        for module in self._still:
            module.requires_grad_(False)
        if lora_rank:
            add_adapters(self.body, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout, targets=lora_targets)
            if layer is not None:
                layer.requires_grad_(False)
        self._reads = frozenset(signature(self.body.forward).parameters)
        self._cache_name = "cache" if "cache" in self._reads else "past_key_values"
        self.train()
        self.dropout = max((m.p for m in self.body.modules() if isinstance(m, nn.Dropout) and m.training), default=0.0)

    @classmethod
    def complete(cls, node: dict[str, Any], task: type) -> dict[str, Any]:
        """A bound node with what its folder says: `architecture`, `vocabulary`, `context` and `head`.

        Args:
            task: the class of the task.

        Raises:
            UserError: where there is no such model, or it names code of its own.
        """
        _refuse_code(node["trust_remote_code"])
        if not node["name"]:
            raise UserError("model.name is missing: the folder of a model of transformers, or its name on the hub")
        node = dict(node)
        if node["architecture"] is None:
            folder, is_path = find_folder(node["name"])
            node["architecture"] = read_config(folder)
            node["vocabulary"] = count_tokens(folder)
            node["name"] = str(folder) if is_path else node["name"]
        if node["context"] is None:
            config = make_config(node["architecture"])
            with torch.device("meta"):
                node["context"] = longest(config, make_model(model_class(config, head=False), config))
        if node["context"] is None:
            raise UserError(f"model.context is missing: the model in {node['name']} has no longest sequence of its own")
        if node["head"] is None:
            node["head"] = "pretrained" if getattr(task, "predicts_tokens", False) else "fresh"
        return node

    @staticmethod
    def tokenizer(node: dict[str, Any]) -> str:
        """The path of the tokenizer.json of a completed node's model. Raises UserError where it has none."""
        return str(tokenizer_file(find_folder(node["name"])[0]))

    @staticmethod
    def content_hashes(node: dict[str, Any]) -> dict[str, str]:
        """Key of a completed node → SHA-256 of what it stands for: the weights, and the content of config.json."""
        folder, _ = find_folder(node["name"])
        content = json.dumps(node["architecture"], sort_keys=True)
        return {"name": hash_weights(folder), "architecture": hashlib.sha256(content.encode()).hexdigest()}

    def begin(self) -> None:
        """Take the weights of the folder: where a run begins, and not where a checkpoint's are put in.

        Raises:
            UserError: where the folder lacks some of them, or the model computes its outputs in another way.
        """
        folder, _ = find_folder(self.name)
        config = make_config(self.architecture)
        reference, lacking = read_weights(model_class(config, head=self.pretrained_head), folder, config)
        rows = len(self.body.get_input_embeddings().weight)  # type: ignore[operator]
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(rows, (1, min(_PROBE, self.context)), generator=generator)
        expected = outputs_of(reference, tokens)
        (layer,) = self._head
        take_weights(Parts(self.body, layer), split(reference, head=self.pretrained_head), lacking, folder)
        with torch.no_grad():
            outputs = self.eval()({"tokens": tokens})
            outputs = outputs if layer is None else F.linear(outputs, layer.weight, layer.bias)
        self.train()
        compare_outputs(outputs, expected[..., :rows] if self.pretrained_head else expected, self.config.model_type)

    def train(self, mode: bool = True) -> Pretrained:
        """Training mode draws dropout, but not in what is frozen."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def forward(self, inputs: dict[str, Tensor], cache: Any = None) -> Tensor:
        """Hidden states [B, T, D].

        Args:
            inputs: `tokens`, int64 [B, T]; and, where the data gives them, `mask` (bool [B, T], False in the padding)
                and `types` (int64 [B, T]), which a model without embeddings of types does not read.
            cache: of `new_cache`, for tokens that follow those that it was given before.
        """
        if "tokens" not in inputs:
            raise UserError(f"model=pretrained reads tokens, and this data and task give {', '.join(sorted(inputs))}")
        if "segments" in inputs:
            raise UserError(
                "model=pretrained reads a window as one document, and data.packing fills windows with several: leave "
                "data.packing=stream"
            )
        length = inputs["tokens"].shape[1]
        if cache is None and length > self.context:
            raise UserError(f"model.context={self.context} is less than the {length} tokens of a sample")
        given: dict[str, Any] = {"input_ids": inputs["tokens"]}
        if "mask" in inputs:
            given["attention_mask"] = inputs["mask"].long()
        if "types" in inputs and "token_type_ids" in self._reads and getattr(self.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = inputs["types"]
        if "use_cache" in self._reads:
            given["use_cache"] = cache is not None
        if cache is not None:
            given[self._cache_name] = cache
        outputs = self.body(**given)
        hidden: Tensor = outputs.logits if self.pretrained_head and not self.causal else outputs.last_hidden_state
        return hidden

    def new_cache(self) -> Any:
        """A cache of keys and values, for generation; None of a model that reads both sides."""
        if not self.causal or self._cache_name not in self._reads:
            return None
        return need("transformers", "model=pretrained").DynamicCache(config=self.config)

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The model's own output layer, whatever its size; or one out of the head_init stream."""
        (layer,) = self._head
        if layer is not None:
            return OutputProjection(layer.weight, layer.bias)
        std = getattr(self.config, "initializer_range", None) or _STD
        return OutputProjection.initialised(num_outputs, self.width, std, generator)

    def blocks(self) -> list[nn.Module]:
        """Its layers, in their order; none where they cannot be told."""
        return list(self._layers)

    def flops_per_sample(self) -> int:
        """Floating-point operations of a forward and backward pass over `context` tokens, without the output
        projection; fewer where weights are frozen (`multiplying`)."""
        trains = any(parameter.requires_grad for parameter in self.body.parameters())
        directions = 1 if self.causal else 2
        scores = (6 if trains else 2) * len(self._layers) * self.width * directions * self.context
        return self.context * (multiplying(self.body) + scores)


def _refuse_code(trust_remote_code: bool) -> None:
    if trust_remote_code:
        raise UserError(
            "model.trust_remote_code=true is refused: losslab runs no code out of a model's folder; choose a model "
            "that transformers itself has"
        )


def _check_settings(context: int, dropout: float | None, lora_rank: int, lora_dropout: float, frozen: Frozen) -> None:
    if context <= 0:
        raise UserError(f"model.context must be above 0, not {context}")
    for name, rate in (("dropout", dropout), ("lora_dropout", lora_dropout)):
        if rate is not None and not 0 <= rate < 1:
            raise UserError(f"model.{name} must be in [0, 1), not {rate}")
    if lora_rank < 0:
        raise UserError(f"model.lora_rank must be above 0, or 0 for no adapters, not {lora_rank}")
    if lora_rank and frozen != "none":
        raise UserError("model.lora_rank freezes all weights of the model by itself: leave out model.frozen")


def _check_vocabulary(vocab_size: int, own: int | None, rows: int, name: str) -> None:
    """Refuse another tokenizer than the model's. A vocabulary of 1 stands for one that is not known yet.

    Args:
        own: the size of the model's own tokenizer, where it is known.
        rows: of its embedding, which may be more.
    """
    if vocab_size == 1:
        return
    if vocab_size > rows or (own is not None and vocab_size != min(own, rows)):
        known = rows if own is None else min(own, rows)
        raise UserError(
            f"the tokenizer of the data has {vocab_size:,} tokens, and the model in {name} was trained on {known:,}: "
            "data.tokenizer=pretrained takes the model's own"
        )
