"""`losslab export --format transformers` of model=pretrained: the class of transformers that it was made from."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.choices import chosen
from losslab.contracts import Task
from losslab.data.tokenizer import Tokenizer
from losslab.data.tokenizer_json import as_json
from losslab.errors import UserError
from losslab.files import TEMPORARY, write_atomic
from losslab.models.pretrained import Pretrained
from losslab.models.pretrained_folder import quiet
from losslab.models.pretrained_parts import merge_adapters, model_class, split
from losslab.models.pretrained_weights import outputs_of
from losslab.training.export.output_layer import OutputLayer, output_layer
from losslab.training.random import global_stream
from losslab.training.scoring.exporting import make_folder
from losslab.training.scoring.loading import Loaded
from losslab.training.scoring.stored_info import TOKENIZER

HEAD = "head.safetensors"
"""The output projection of a task that predicts no tokens: `weight` [C, D], and `bias` [C] where it has one."""
_TOLERANCE = 1e-4
"""The largest difference of an output, in parts of the largest one, that rounding can make."""
_PROBE = 16


def export_pretrained(loaded: Loaded, folder: Path) -> tuple[list[Path], str, str]:
    """Write weights, config.json, the tokenizer's files, and the output projection of a task of rows beside them.
    Adapters are merged into the layers that they stand beside.

    Returns:
        The paths; a note: the name of the model, and the largest difference between its outputs and the run's; and the
        class that reads them.

    Raises:
        UserError: where the loss predicts by no softmax of a linear map, or transformers has no counterpart.
    """
    network, task = loaded.network, loaded.network.task
    backbone = deepcopy(network.backbone).eval()
    assert isinstance(backbone, Pretrained)
    merge_adapters(backbone.body)
    of_tokens = task.predicts_tokens
    head = output_layer(network) if of_tokens else OutputLayer(network.projection.weight, network.projection.bias)
    if of_tokens and not backbone.pretrained_head and not backbone.causal:
        raise UserError(
            "transformers' models of hidden tokens have layers between body and output layer, and model.head=fresh has "
            "none: --format safetensors writes its weights"
        )
    tokenizer = loaded.tokenizer
    model = _model(backbone, head if of_tokens else None)
    difference = _difference(model, backbone, head if of_tokens else None)
    make_folder(folder)
    names = _save(model, folder)
    contents = {
        TOKENIZER: _tokenizer_json(tokenizer, task).encode(),
        "tokenizer_config.json": json.dumps(_tokenizer_config(tokenizer, backbone, task), indent=2).encode() + b"\n",
    }
    if not of_tokens:
        tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
        about = {"task": chosen("task", task), "pooling": str(getattr(task, "pooling", "none"))}
        about |= {"labels": json.dumps(loaded.info.class_names, ensure_ascii=False)} if loaded.info.class_names else {}
        contents[HEAD] = save({name: value.detach().contiguous() for name, value in tensors.items()}, metadata=about)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    what = "logits" if of_tokens else "hidden states"
    note = f"{type(model).__name__}, whose {what} differ by {difference:.1e} at most over random tokens"
    reader = "AutoModel" if not of_tokens else f"AutoModelFor{'CausalLM' if backbone.causal else 'MaskedLM'}"
    return [folder / name for name in (*names, *contents)], note, reader


def _model(backbone: Pretrained, head: OutputLayer | None) -> Any:
    """The model of transformers with the run's weights, in their type.

    Args:
        head: None for a body alone.
    """
    weight = next(backbone.body.parameters())
    config = deepcopy(backbone.config)
    if head is not None:
        config.vocab_size = len(head.weight)
        embedding = backbone.body.get_input_embeddings().weight  # type: ignore[operator]
        config.tie_word_embeddings = embedding.data_ptr() == head.weight.data_ptr()
    with global_stream(0, "export"), quiet():
        model = model_class(config, head=head is not None)._from_config(config, dtype=weight.dtype)
    if head is None:
        model = split(model, head=False).body
        _copy(model, backbone.body)
    else:
        layer = model.get_output_embeddings()
        if (layer.bias is None) != (head.bias is None):
            there = "no bias, and the run's has one" if layer.bias is None else "a bias, and the run's has none"
            raise UserError(f"the output layer of {type(model).__name__} has {there}: --format safetensors writes it")
        _copy(model.base_model if backbone.causal else model, backbone.body)
        with torch.no_grad():
            for name, value in head._asdict().items():
                if value is not None:
                    getattr(layer, name).copy_(value)
    model.config.architectures = [type(model).__name__]
    return model.eval()


@torch.no_grad()
def _copy(model: nn.Module, body: nn.Module) -> None:
    """Put the weights of a body into a model that has them by the same names."""
    found = dict(body.named_parameters(remove_duplicate=False)) | dict(body.named_buffers())
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    for name, value in own:
        if name in found:
            value.copy_(found[name])


@torch.no_grad()
def _difference(model: Any, backbone: Pretrained, head: OutputLayer | None) -> float:
    """The largest difference of an output over random tokens, in float32.

    Raises:
        UserError: where it is more than rounding.
    """
    ours, theirs = deepcopy(backbone).float(), deepcopy(model).float()
    rows = len(ours.body.get_input_embeddings().weight)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(rows, (1, min(_PROBE, backbone.context)), generator=generator)
    expected: Tensor = ours({"tokens": tokens})
    if head is not None:
        expected = F.linear(expected, head.weight.float(), None if head.bias is None else head.bias.float())
    difference: float = (outputs_of(theirs, tokens) - expected).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, expected.abs().max().item()):
        raise UserError(f"{type(model).__name__} computes other outputs than this run (by {difference:.2g})")
    return difference


def _save(model: Any, folder: Path) -> list[str]:
    """Write weights and configuration as transformers does, into a folder that takes their names at the end."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".transformers.", suffix=TEMPORARY) as temporary:
        with quiet():
            model.save_pretrained(temporary)
        names = sorted((path.name for path in Path(temporary).iterdir()), reverse=True)
        for name in names:
            (Path(temporary) / name).replace(folder / name)
    return names


def _tokenizer_json(tokenizer: Tokenizer, task: Task) -> str:
    """The tokenizer with the special tokens that losslab puts around the texts of a row; none where the task predicts
    tokens, and text follows what is read."""
    content = json.loads(as_json(tokenizer)) | dict.fromkeys(("post_processor", "padding", "truncation"))
    if not task.predicts_tokens:
        content["post_processor"] = _around(tokenizer)
    return json.dumps(content, ensure_ascii=False)


def _around(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """A post-processor: begin, text, end; of a pair, the second text and its end."""
    names = _names(tokenizer)
    ids = {"begin": tokenizer.begin, "end": tokenizer.end}
    special = {name: names[number] for name, number in ids.items() if number is not None}
    if not special:
        return None

    def token(name: str, kind: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": special[name], "type_id": kind}}] if name in special else []

    def text(name: str, kind: int) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": name, "type_id": kind}}, *token("end", kind)]

    single = [*token("begin", 0), *text("A", 0)]
    tokens = {word: {"id": word, "ids": [ids[name]], "tokens": [word]} for name, word in special.items()}
    return {
        "type": "TemplateProcessing", "single": single, "pair": [*single, *text("B", 1)], "special_tokens": tokens
    }  # fmt: skip


def _names(tokenizer: Tokenizer) -> dict[int, str]:
    """Id → token."""
    from tokenizers import Tokenizer as Backend

    vocabulary = Backend.from_str(as_json(tokenizer)).get_vocab(with_added_tokens=True)
    return {number: name for name, number in vocabulary.items()}


def _tokenizer_config(tokenizer: Tokenizer, backbone: Pretrained, task: Task) -> dict[str, Any]:
    names = _names(tokenizer)
    config = backbone.config.get_text_config()
    ids = {"pad_token": getattr(config, "pad_token_id", None), "mask_token": tokenizer.mask}
    if tokenizer.begin is None or task.predicts_tokens:
        ids |= {"bos_token": tokenizer.end, "eos_token": tokenizer.end}
    else:
        ids |= {"cls_token": tokenizer.begin, "sep_token": tokenizer.end}
    if ids["pad_token"] is None:  # padding is masked, so that any token may stand there
        ids["pad_token"] = tokenizer.end
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": backbone.context}
    named = {key: names[number] for key, number in ids.items() if number is not None and number in names}
    return settings | {"clean_up_tokenization_spaces": False} | named
