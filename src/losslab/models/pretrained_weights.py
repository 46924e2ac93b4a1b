"""Weights of a folder of transformers: their hash, and how they come into a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import UserError
from losslab.models.pretrained_folder import CONFIG, PICKLED, SAFE, quiet, weight_files
from losslab.models.pretrained_parts import ADAPTER, Parts, base_name

_TOLERANCE = 1e-4
"""The largest difference from transformers' own outputs, in parts of the largest of them, that rounding makes."""


def hash_weights(folder: Path) -> str:
    """SHA-256 of all weights by name, type and shape, whatever files they are in.

    Raises:
        UserError: where there are none, or a file cannot be read.
    """
    files = weight_files(folder)
    if not files:
        raise UserError(f"model.name={folder} has no weights: it holds neither {SAFE} nor {PICKLED}")
    return _hash_files(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@lru_cache(maxsize=4)
def _hash_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    found: dict[str, str] = {}
    for path, *_ in files:
        for name, value in _tensors(path):
            described = f"{value.dtype} {tuple(value.shape)}".encode()
            content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            found[name] = hashlib.sha256(described + content.tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    yield name, file.get_tensor(name)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            yield from sorted((name, value) for name, value in content.items() if isinstance(value, Tensor))
    except Exception as error:  # both libraries raise errors of several kinds
        raise UserError(f"{path} holds no weights that can be read: {' '.join(str(error).split()):.200}") from None


def read_weights(kind: Any, folder: Path, config: Any) -> tuple[nn.Module, set[int]]:
    """A model of transformers with the weights of a folder, in float32 and evaluation mode, and the ids of the
    parameters that the folder lacks.

    Args:
        kind: the class.
        config: its configuration.

    Raises:
        UserError: for weights of other shapes, and files that cannot be read.
    """
    with quiet():
        try:
            model, about = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers and its readers raise errors of several kinds
            told = " ".join(str(error).split())
            raise UserError(
                f"the weights of {folder} do not fit its {CONFIG}, or cannot be read: {told:.200}"
            ) from None
    missing = set(about["missing_keys"])
    named = model.named_parameters(remove_duplicate=False)
    return model.eval(), {id(parameter) for name, parameter in named if name in missing}


@torch.no_grad()
def outputs_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits, or hidden states of a model without an output layer: [B, T, …]."""
    outputs = model(input_ids=tokens)
    found: Tensor = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    return found


def take_weights(own: Parts, theirs: Parts, lacking: set[int], folder: Path) -> None:
    """Put weights into a model of the same architecture, whose vocabulary may be smaller: its rows are the first.

    Args:
        lacking: ids of the parameters of `theirs` that the folder has not.

    Raises:
        UserError: naming the first weight that the folder lacks.
    """
    found = dict(theirs.body.named_parameters(remove_duplicate=False))
    mine = dict(own.body.named_parameters(remove_duplicate=False))
    pairs = [(name, mine[name], found[base_name(name)]) for name in mine if ADAPTER not in name]
    if own.head is not None and theirs.head is not None:
        there = dict(theirs.head.named_parameters())
        pairs += [(f"its output layer ({name})", value, there[name]) for name, value in own.head.named_parameters()]
    for name, parameter, value in pairs:
        if id(value) in lacking:
            cure = "" if own.head is None else "; model.head=fresh needs no output layer"
            raise UserError(
                f"model.name={folder} holds no weights of {name}: its {CONFIG} is of another model, or they were left "
                f"out{cure}"
            )
        rows = value.detach()[: len(parameter)] if value.shape != parameter.shape else value.detach()
        parameter.data = rows.clone() if rows.shape != value.shape else rows
    buffers = dict(theirs.body.named_buffers())
    for name, buffer in own.body.named_buffers():
        buffer.copy_(buffers[base_name(name)])


def compare_outputs(outputs: Tensor, expected: Tensor, kind: str) -> None:
    """Refuse a model that computes otherwise than transformers' own class.

    Raises:
        UserError: naming its `model_type`.
    """
    difference = (outputs - expected).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, expected.abs().max().item()):
        raise UserError(
            f"transformers' {kind!r} computes other outputs than its hidden states, or their projection, give (by "
            f"{difference:.2g}): where it caps or scales its logits, model.head=fresh leaves them out"
        )
