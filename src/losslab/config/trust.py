"""Classes that a configuration may name. Nothing is imported here: a folder's code is refused before it can run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from losslab.choices import conf_dir
from losslab.config.schema import COMPONENTS, NAMED_NODES
from losslab.errors import UserError

_OPTIMIZERS = (
    "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax Muon NAdam RAdam RMSprop Rprop SGD".split()  # no closure needed
)
_SCHEDULERS = (
    "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LinearLR MultiStepLR OneCycleLR "
    "PolynomialLR StepLR".split()  # of the step alone, with settings that a yaml can hold
)
_CALLBACKS = (
    "EMAWeightAveraging OnExceptionCheckpoint RichModelSummary RichProgressBar TQDMProgressBar WeightAveraging".split()
)  # beside those in conf/callbacks
_ALLOWED = frozenset(
    [
        *(f"torch.optim.{name}" for name in _OPTIMIZERS),
        *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS),
        *(f"lightning.pytorch.callbacks.{name}" for name in _CALLBACKS),
        "losslab.models.adapters.HiddenStatesAdapter",  # what they wrap has a `_target_` of its own
        "losslab.models.adapters.LogitsAdapter",
    ]
)
"""Classes that are allowed beside every component that has a yaml in conf/. Exact classes, never a prefix and never a
function: torch and its neighbours hold callables that run a shell."""

_LIBRARIES = frozenset(
    "torch lightning pytorch_lightning lightning_fabric torchmetrics hydra omegaconf tensorboard numpy scipy yaml "
    "tokenizers safetensors matplotlib rich typer filelock pip setuptools".split()
)
_OF_LIBRARIES = frozenset(
    [f"lightning.pytorch.loggers.{name}Logger" for name in "CSV Comet Lit MLFlow Neptune TensorBoard Wandb".split()]
    + [f"lightning.pytorch.profilers.{name}Profiler" for name in "Simple Advanced PyTorch XLA".split()]
)
"""Classes of libraries that a person may vouch for. They write wherever their settings say."""
_PROFILER = ("trainer", "profiler")
_TARGET = "_target_"
_FOLDER = "dirpath"
"""The key under which Lightning's callbacks take the folder that they write to."""
_DEEPEST = 8
_SHORTEST = dict.fromkeys(COMPONENTS, 2) | dict.fromkeys(NAMED_NODES, 3)
"""Parts of the key of a `_target_`: loss._target_, loggers.tensorboard._target_."""
_LONGEST = 4
"""Parts of the dotted path of a class of ours: losslab, room, file, class."""


@cache
def allowed() -> frozenset[str]:
    """The classes that a folder's configuration may name: ours, each as its yaml in conf/ has it."""
    shipped = (path for group in (*COMPONENTS, *NAMED_NODES) for path in (conf_dir() / group).glob("*.yaml"))
    return _ALLOWED.union(*(targets(yaml.safe_load(path.read_text(encoding="utf-8")) or {}) for path in shipped))


def targets(config: Any) -> set[str]:
    """Every `_target_` anywhere in a configuration."""
    return {str(value) for path, value in _walk(config) if path[-1] == _TARGET}


def foreign_targets(config: dict[str, Any]) -> list[str]:
    """The classes that a configuration, typed by its own user, names and a worker would not make by itself."""
    nodes = {group: config.get(group) for group in (*COMPONENTS, *NAMED_NODES)}
    return sorted(_to_be_trusted(nodes | {"profiler": config["trainer"].get("profiler")}))


def foreign_components(config: dict[str, Any]) -> list[str]:
    """The classes outside the allow-list that decide what a run computes."""
    return sorted(targets({group: config.get(group) for group in (*COMPONENTS, "callbacks")}) - allowed())


def _to_be_trusted(config: dict[str, Any]) -> set[str]:
    """The classes outside the allow-list, and those that would write outside the run's folder."""
    nodes = (value for _, value in _walk(config) if isinstance(value, dict) and _TARGET in value)
    return (targets(config) - allowed()) | {str(node[_TARGET]) for node in nodes if _leads_away(node.get(_FOLDER))}


def _leads_away(folder: Any) -> bool:
    """Whether a path that begins in a run's folder may end outside it."""
    if folder is None:
        return False
    path = Path(str(folder))
    return path.is_absolute() or ".." in path.parts or str(folder).startswith("~")


def check_stored(config: dict[str, Any]) -> None:
    """Refuse a configuration out of a folder or checkpoint that losslab cannot have written: code where no component
    is, Hydra's other ways of calling something, and classes that nobody could vouch for. Imports nothing.

    Raises:
        UserError: naming the place.
    """
    for path, value in _walk(config):
        where, key = ".".join(path), path[-1]
        if key == _TARGET and len(path) < _SHORTEST.get(path[0], _DEEPEST + 1) and path[:2] != _PROFILER:
            raise UserError(f"this run's configuration names code at {where} ({value}), where no component belongs")
        if key == _TARGET and not (isinstance(value, str) and _can_be_component(value)):
            raise UserError(f"this run's configuration names {value} at {where}, which can be no component of a run")
        if key != _TARGET and key.startswith("_") and key.endswith("_"):
            raise UserError(f"this run's configuration holds {where}, which losslab does not write; nothing was run")


def check_trusted(config: dict[str, Any], trust: list[str]) -> None:
    """`check_stored`, and refuse every class outside the allow-list that nobody vouched for. Imports nothing."""
    check_stored(config)
    unknown = sorted(_to_be_trusted(config) - set(trust))
    if unknown:
        options = " ".join(f"--trust {name}" for name in unknown)
        if set(unknown) <= allowed():
            raise UserError(
                f"this run's {', '.join(unknown)} writes outside its folder; if that is meant, add {options}"
            )
        raise UserError(f"this run uses code outside losslab ({', '.join(unknown)}); if you trust it, add {options}")


def _can_be_component(target: str) -> bool:
    """A person's own class, one of the list, or an optimizer of torch's; nothing else of Python's or a library's."""
    parts = target.split(".")
    if target in allowed() or target in _OF_LIBRARIES:
        return True
    if len(parts) < 2 or not all(part.isidentifier() for part in parts) or "__" in target:
        return False
    if parts[:2] == ["torch", "optim"] or parts[0] == "losslab" or parts[:-1] == ["lightning", "pytorch", "callbacks"]:
        # Another version's class, perhaps. It may be named; to be made, it must be allowed or vouched for all the same.
        return len(parts) <= _LONGEST and parts[-1][0].isupper() and all(part.islower() for part in parts[:-1])
    return parts[0] not in _LIBRARIES and parts[0] not in sys.stdlib_module_names


def _walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of every mapping, with its value."""
    if len(path) > _DEEPEST:
        raise UserError(f"this run's configuration is nested deeper at {'.'.join(path[:3])} than losslab writes")
    if isinstance(node, dict):
        for key, value in node.items():
            here = (*path, str(key))
            yield here, value
            yield from _walk(value, here)
    elif isinstance(node, list | tuple):
        for i, item in enumerate(node):
            yield from _walk(item, (*path, str(i)))
