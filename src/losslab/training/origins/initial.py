"""Begin a run with trained weights (`init_from`): weights that fit are taken, and those that do not are reported."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from losslab.config.streams import seed_of
from losslab.contracts import DataInfo
from losslab.errors import UserError
from losslab.records import FILE, Record
from losslab.run_folder import RunFolder, find_runs
from losslab.training.factory import UNKNOWN, build_backbone, hash_model
from losslab.training.network import Network
from losslab.training.origins.origin import WEIGHTS_KEY, hash_tensors
from losslab.training.output.checkpoints import Damaged, read_checkpoint
from losslab.training.output.messages import say
from losslab.training.random import global_stream
from losslab.training.scoring.loading import (
    DESCRIPTION,
    EMBEDDING,
    PREFIX,
    WEIGHTS,
    find_checkpoint,
)
from losslab.training.scoring.stored_info import exported_info, stored_info

_BACKBONE, _PROJECTION, _LOSS = "backbone.", "projection.weight", "loss."
_TOLD = 3
_log = logging.getLogger("losslab")


@dataclass(frozen=True)
class Weights:
    """Trained weights, on the CPU."""

    path: Path
    """The file."""
    tensors: dict[str, Tensor]
    """Tensors by their names in a Network. A projection that is the embedding is left out, and so are those of a
    loss."""
    artifacts: dict[str, str] | None
    """Artifacts of the data that they were trained on; None where they are not known."""


@dataclass
class Taken:
    """The outcome for each weight."""

    taken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Weights of the file, or of the network, that were not taken, and why."""
    total: int = 0
    """Weights of the network."""


def weights_hash(config: dict[str, Any]) -> dict[str, str]:
    """`init_from` → SHA-256 of the weights there, by name; nothing where the key is null.

    Raises:
        UserError: when there are no weights, or none with a name that this model's weights have.
    """
    if config[WEIGHTS_KEY] is None:
        return {}
    weights = read_weights(config[WEIGHTS_KEY])
    with torch.device("meta"):
        backbone = build_backbone(config, UNKNOWN)
    names = {f"{_BACKBONE}{name}" for name in backbone.state_dict()}
    if not names & weights.tensors.keys():
        there = [f"{name} {list(value.shape)}" for name, value in weights.tensors.items()]
        raise UserError(
            f"{WEIGHTS_KEY}={weights.path} has no weight that fits: it holds {_listed(there) or 'none'}; this model "
            f"has {_listed(sorted(names))}"
        )
    return {WEIGHTS_KEY: hash_tensors(weights.tensors)}


def begin_pretrained(network: Network, config: dict[str, Any], record: Record) -> None:
    """Let a model that takes its first weights from files (`begin`) do so.

    Args:
        record: has hashes of these files since the run was planned.

    Raises:
        UserError: when they are not there, or are others by now.
    """
    backbone: Any = network.backbone
    if not hasattr(backbone, "begin"):
        return
    for key, digest in hash_model(config).items():
        if record.hashes.get(key) not in (None, digest):
            raise UserError(
                f"{key}={config['model'].get('name')} holds other files than when this run was planned: put those back"
            )
    with global_stream(seed_of(config, "backbone_init"), "begin"):
        backbone.begin()


def begin_with(network: Network, config: dict[str, Any], info: DataInfo, record: Record, *, rank: int) -> None:
    """Put the weights that `init_from` names into a network, and say and record which; nothing is done where the key is
    null.

    Args:
        record: has their hash since the run was planned.

    Raises:
        UserError: when there are none, they are others by now, or none fits.
    """
    if config[WEIGHTS_KEY] is None:
        return
    weights = read_weights(config[WEIGHTS_KEY])
    if record.hashes.get(WEIGHTS_KEY) not in (None, hash_tensors(weights.tensors)):
        raise UserError(
            f"{WEIGHTS_KEY}={weights.path} holds other weights than when this run was planned: put those back"
        )
    result = take(network, weights, info.artifacts)
    record.provenance[WEIGHTS_KEY] = {"taken": result.taken, "not_taken": result.left}
    if rank == 0:
        text = f"begins with {len(result.taken)} of its {result.total} weights from {weights.path}"
        say(text + (f"; not taken: {_listed(result.left)}" if result.left else ""))
        for line in (*(f"taken: {name}" for name in result.taken), *(f"not taken: {name}" for name in result.left)):
            _log.info("%s", line)


def take(network: Network, weights: Weights, artifacts: dict[str, str]) -> Taken:
    """Copy every weight that has the name and shape of one of the network's. Those of a loss are never taken, and those
    that belong to tokens only if both tokenizers are the same, or one is not known.

    Args:
        artifacts: those of the network's data.

    Raises:
        UserError: when none fits, or one is not finite.
    """
    own, aliases = _own(network)
    there = dict(weights.tensors)
    if _PROJECTION in own and _PROJECTION not in there and EMBEDDING in there:
        there[_PROJECTION] = there[EMBEDDING]  # they were tied
    of_tokens = _of_tokens(network) if weights.artifacts not in (None, artifacts) else set()
    result, absent = Taken(total=len(own)), []
    for name, value in own.items():
        found = there.pop(name, None)
        if found is None:
            absent.append(f"{name} {list(value.shape)}, which is not there")
        elif name in of_tokens:
            result.left.append(f"{name} {list(found.shape)}, whose rows are another tokenizer's tokens")
        elif found.shape != value.shape:
            result.left.append(f"{name} {list(found.shape)}, here {list(value.shape)}")
        elif not torch.isfinite(found).all():
            raise UserError(f"{WEIGHTS_KEY}={weights.path} holds NaN or infinity in {name}")
        else:
            value.copy_(found)
            result.taken.append(f"{name} {list(value.shape)}")
    for name, found in there.items():
        why = "which is tied to the embedding here" if name in aliases else "which this network does not have"
        result.left.append(f"{name} {list(found.shape)}, {why}")
    result.left += absent
    if not result.taken:
        raise UserError(f"{WEIGHTS_KEY}={weights.path} has no weight that fits: it holds {_listed(result.left)}")
    return result


def _own(network: Network) -> tuple[dict[str, Tensor], set[str]]:
    """Weights and buffers of body and projection, each once, and the further names of those that have two."""
    own: dict[str, Tensor] = {}
    aliases = set()
    seen: set[int] = set()
    for name, value in network.state_dict().items():
        if name.startswith(_LOSS):
            continue
        if value.data_ptr() in seen and value.numel():
            aliases.add(name)
        else:
            own[name] = value
            seen.add(value.data_ptr())
    return own, aliases


def _of_tokens(network: Network) -> set[str]:
    """Names of weights with a row for each token."""
    rows = network.projection.weight.shape[0]
    tables = [
        name for name, part in network.named_modules() if isinstance(part, nn.Embedding) and len(part.weight) == rows
    ]
    projection = [name for name in network.state_dict() if name.startswith("projection.")]
    return {f"{name}.weight" for name in tables} | set(projection)


def read_weights(place: str) -> Weights:
    """The weights of a run's best checkpoint, an export, a checkpoint or a .safetensors file. Nothing in them is run.

    Raises:
        UserError: when there are none.
    """
    path = Path(place).expanduser().absolute()
    if path.is_dir():
        path = _file_in(path, place)
    elif not path.is_file():
        raise UserError(f"{WEIGHTS_KEY}={place} is not there: name a run's folder, or a .safetensors file")
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def _file_in(folder: Path, place: str) -> Path:
    if RunFolder(folder).exists():
        return find_checkpoint(RunFolder(folder), "best")
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    runs = find_runs(folder)
    if runs:
        raise UserError(f"{WEIGHTS_KEY}={place} holds {len(runs)} runs: name one of them, such as {runs[0]}")
    raise UserError(f"{WEIGHTS_KEY}={place} is neither a run's folder nor an export: it has no {FILE} and no {WEIGHTS}")


@lru_cache(maxsize=1)
def _read(path: Path, changed: int, size: int) -> Weights:
    if path.suffix != ".safetensors":
        try:
            content = read_checkpoint(path)
        except Damaged as error:
            raise UserError(
                f"{WEIGHTS_KEY}={path} is neither a .safetensors file nor a checkpoint that can be read: {error}"
            ) from None
        tensors = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
        info = stored_info(content)
        return Weights(path, _once(tensors), None if info is None else info.artifacts)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{WEIGHTS_KEY}={path} cannot be read as safetensors: {' '.join(str(error).split())}") from None
    return Weights(path, _once(tensors), _artifacts_beside(path))


def _once(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out a loss's own tensors, and a projection that is the embedding, which an export leaves out too."""
    kept = {name: value for name, value in tensors.items() if not name.startswith(_LOSS)}
    projection, embedding = kept.get(_PROJECTION), kept.get(EMBEDDING)
    if projection is not None and embedding is not None and torch.equal(projection, embedding):
        del kept[_PROJECTION]
    return kept


def _artifacts_beside(path: Path) -> dict[str, str] | None:
    """Artifacts in an export's folder, if the file is part of one."""
    try:
        about = json.loads((path.parent / DESCRIPTION).read_text(encoding="utf-8"))
        if not str(about["format"]).startswith("losslab export"):
            return None
        return exported_info(path.parent, about).artifacts
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _listed(names: list[str]) -> str:
    more = f"; and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return "; ".join(names[:_TOLD]) + more
