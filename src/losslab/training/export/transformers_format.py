"""`losslab export --format transformers`: a folder that AutoModelForCausalLM and AutoTokenizer read."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from losslab.choices import chosen
from losslab.data.tokenizer import Tokenizer
from losslab.data.tokenizer_json import as_json
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.training.export.architectures import Architecture, architecture_of
from losslab.training.export.output_layer import OutputLayer, output_layer
from losslab.training.export.packages import need
from losslab.training.random import global_stream
from losslab.training.scoring.exporting import make_folder
from losslab.training.scoring.loading import WEIGHTS, Loaded
from losslab.training.scoring.stored_info import TOKENIZER

_HEAD = "lm_head.weight"
_TOLERANCE = 1e-3
"""The largest difference of a logit, in parts of the largest one, that rounding can make."""


def export_transformers(loaded: Loaded, folder: Path) -> tuple[list[Path], str]:
    """Write weights, config.json, generation_config.json and the tokenizer's files.

    The logits are those whose softmax the run's loss predicts: a factor of the loss is in the output projection.

    Returns:
        The paths, and a note: the name of the model, and the largest difference between its logits and the run's.

    Raises:
        UserError: where transformers is missing or has no counterpart of the run.
    """
    transformers = need("hf", "transformers", format="transformers")
    network = loaded.network
    if not network.task.continues_texts:
        raise UserError(
            f"--format transformers writes models that continue a text, and {chosen('task', network.task)} "
            "does not: --format safetensors writes its weights"
        )
    tokenizer = loaded.tokenizer
    found, head = architecture_of(network.backbone), output_layer(network)
    if head.bias is not None or len(head.weight) != tokenizer.vocab_size:
        raise UserError("transformers' decoders have an output projection without a bias, and a row a token")
    make_folder(folder)
    model = _model(transformers, found, head, tokenizer)
    difference = _difference(model, loaded, head)
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state[_HEAD]
    contents = {
        WEIGHTS: save(state, metadata={"format": "pt"}),
        "config.json": model.config.to_json_string(use_diff=False).encode(),
        "generation_config.json": model.generation_config.to_json_string().encode(),
        TOKENIZER: _tokenizer_json(tokenizer),
        "tokenizer_config.json": _tokenizer_config(tokenizer, loaded),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    compared = f"whose logits differ by {difference:.1e} at most over one context of random tokens"
    return [folder / name for name in contents], f"{type(model).__name__}, {compared}"


def _model(transformers: Any, found: Architecture, head: OutputLayer, tokenizer: Tokenizer) -> Any:
    """The model of transformers with the run's weights, in their type, or in float32 where some had to be computed."""
    weights = {**found.weights, _HEAD: head.weight}
    embedding = next(iter(found.weights.values()))
    dtype = reduce(torch.promote_types, {value.dtype for value in weights.values()})
    tied = head.weight.data_ptr() == embedding.data_ptr()
    config = transformers.AutoConfig.for_model(
        found.model_type,
        **found.settings,
        vocab_size=tokenizer.vocab_size,
        tie_word_embeddings=tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.end),
    )
    with global_stream(0, "export"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(weights)
    model.config.architectures = [type(model).__name__]
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.end)
    model.generation_config = transformers.GenerationConfig(**ends)
    return model.eval()


@torch.no_grad()
def _difference(model: Any, loaded: Loaded, head: OutputLayer) -> float:
    """The largest difference of a logit over one context of random tokens, in float32.

    Raises:
        UserError: where it is more than rounding.
    """
    backbone, theirs = deepcopy(loaded.network.backbone).float(), deepcopy(model).float()
    vocab_size, context = len(head.weight), loaded.network.backbone.context
    tokens = torch.randint(vocab_size, (1, context), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    ours: Tensor = F.linear(backbone({"tokens": tokens}), head.weight.float())
    difference: float = (theirs(tokens).logits - ours).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, ours.abs().max().item()):
        raise UserError(
            f"{type(model).__name__} of the installed transformers computes other logits than this run (by "
            f"{difference:.2g}): nothing was written; another version may compute the same"
        )
    return difference


def _tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The tokenizer without what it may add, cut or fill up, which losslab leaves out, too."""
    content = json.loads(as_json(tokenizer))
    content |= dict.fromkeys(("post_processor", "padding", "truncation"))
    return json.dumps(content, ensure_ascii=False).encode()


def _tokenizer_config(tokenizer: Tokenizer, loaded: Loaded) -> bytes:
    from tokenizers import Tokenizer as Backend

    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": loaded.network.backbone.context,
        "clean_up_tokenization_spaces": False,
    }
    named = {"bos_token": tokenizer.end, "eos_token": tokenizer.end, "mask_token": tokenizer.mask}
    backend = Backend.from_str(as_json(tokenizer))
    settings |= {name: backend.id_to_token(token) for name, token in named.items() if token is not None}
    return json.dumps(settings, indent=2).encode() + b"\n"
