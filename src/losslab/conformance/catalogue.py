"""Entries of the catalogue of losses: docstring, yaml, and the declarations of the class."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from losslab.choices import conf_dir
from losslab.config.binding import bind_components, import_target
from losslab.config.components import build
from losslab.config.compose import compose_job
from losslab.config.nearest import nearest
from losslab.config.paths import check_config_dir
from losslab.config.schema import register
from losslab.conformance.docstrings import arguments, flowing, read_docstring
from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

SECTIONS = ("Formula", "Gradient", "Source", "Use", "Weakness", "Prediction", "Posterior")
"""Sections of a docstring, in the order in which they are read."""
_BY_WAY = {"from_log_prob": "F1", "from_statistics": "F2"}
_PAPER = re.compile(r".+? \d{4}(?:, arXiv:[\d.]+)?")


@dataclass(frozen=True)
class Key:
    """One of a loss's options.

    Args:
        default: as the yaml has it, or the class; None for null, too.
        required: it has no default.
    """

    name: str
    default: Any
    meaning: str
    required: bool = False


@dataclass(frozen=True)
class Entry:
    """A loss in the catalogue, with its default options."""

    name: str
    """The name in conf/loss; or the dotted path of a class."""
    target: str
    """The dotted path."""
    title: str
    idea: str
    about: str
    """The rest of its docstring before the first section."""
    sections: dict[str, str]
    keys: list[Key]
    target_kind: TargetKind
    cost_class: str | None
    """None where targets are values: the outputs are few."""
    is_proper: bool | None
    """None where nothing is predicted of classes."""
    shift_invariant: bool
    position_wise: bool
    has_detached: bool
    reads_teacher: bool
    written_as: str
    """The function that says what the loss is; `forward` where that alone does."""
    own_forward: bool
    """It has a `forward` of its own, whatever else."""

    @property
    def paper(self) -> str:
        """The first of its sources, without a title; empty where it has none."""
        first = self.sections.get("Source", "").partition(";")[0].rstrip(".")
        found = _PAPER.match(first)
        return found[0] if found else first.removeprefix("None")


def catalogue(config_dir: Path | None = None) -> list[Entry]:
    """Every loss of conf/loss, and of a folder of one's own, by kind of target and name."""
    base = _base()
    entries = [_from_yaml(path, base, config_dir) for path in _yamls(config_dir).values()]
    kinds = list(TargetKind)
    return sorted(entries, key=lambda entry: (kinds.index(entry.target_kind), entry.name))


def find(name: str, config_dir: Path | None = None) -> Entry:
    """One loss, by its name in conf/loss or the dotted path of its class.

    Raises:
        UserError: naming the nearest, where there is no such loss.
    """
    if "." in name:
        return _of_class(name)
    yamls = _yamls(config_dir)
    if name not in yamls:
        raise UserError(f"there is no loss named {name!r}: {nearest(name, yamls)}")
    return _from_yaml(yamls[name], _base(), config_dir)


def _base() -> dict[str, Any]:
    """A composed configuration, to bind a loss in."""
    register()
    return compose_job([])[0]


def _yamls(config_dir: Path | None) -> dict[str, Path]:
    if config_dir is not None:
        check_config_dir(config_dir)
    folders = [conf_dir(), *([] if config_dir is None else [config_dir])]
    return {path.stem: path for folder in folders for path in sorted((folder / "loss").glob("*.yaml"))}


def _from_yaml(path: Path, base: dict[str, Any], config_dir: Path | None) -> Entry:
    text = path.read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    if not isinstance(node, dict) or "defaults" in node or "${" in text:  # Hydra has a say in it
        node = compose_job([f"loss={path.stem}"], config_dir)[0]["loss"]
    if not isinstance(node.get("_target_"), str):
        raise UserError(f"{path} has no _target_: the dotted path of its class")
    _loss_class(node["_target_"])
    bound = bind_components({**base, "loss": node})["loss"]
    return _entry(path.stem, bound, build(bound, "loss"))


def _of_class(target: str) -> Entry:
    kind = _loss_class(target)
    parameters = inspect.signature(kind).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if inspect.Parameter.empty in named.values():
        return _entry(target, {"_target_": target, **named}, kind)
    bound = bind_components({**_base(), "loss": {"_target_": target}})["loss"]
    try:
        return _entry(target, bound, build(bound, "loss"))
    except UserError:  # it needs options, and its class is enough
        return _entry(target, bound, kind)


def _loss_class(target: str) -> type[Loss]:
    kind = import_target(target, "loss")
    if not (inspect.isclass(kind) and issubclass(kind, Loss)):
        raise UserError(f"loss: {target} must derive from losslab.losses.base.Loss")
    return kind


def _entry(name: str, node: dict[str, Any], loss: Loss | type[Loss]) -> Entry:
    """Make an entry from a loss, or where its options are not known, from its class."""
    kind = loss if isinstance(loss, type) else type(loss)
    title, idea, about, sections = read_docstring(kind)
    written_as = kind.__new__(kind).written_as() if isinstance(loss, type) else loss.written_as()
    of_values = loss.target_kind is TargetKind.VALUES
    return Entry(
        name=name,
        target=node["_target_"],
        title=title,
        idea=idea,
        about=about,
        sections={heading: flowing(sections[heading]) for heading in SECTIONS if heading in sections},
        keys=_keys(node, kind, arguments(sections.get("Args", ""))),
        target_kind=loss.target_kind,
        cost_class=None if of_values else _cost_class(loss, kind, written_as),
        is_proper=None if of_values or loss.target_kind is TargetKind.SEQUENCES else loss.is_proper,
        shift_invariant=loss.shift_invariant,
        position_wise=loss.position_wise,
        has_detached=loss.has_detached,
        reads_teacher=loss.reads_teacher,
        written_as=_way(kind, written_as),
        own_forward=kind.forward is not Loss.forward,
    )


def _way(kind: type[Loss], written_as: str) -> str:
    defined = kind.scores is not Loss.scores or getattr(kind, written_as) is not getattr(Loss, written_as)
    return written_as if defined or kind.forward is Loss.forward else "forward"


def _cost_class(loss: Loss | type[Loss], kind: type[Loss], written_as: str) -> str:
    """The declared cost class; of a class that declares none, the one of the way in which it is written."""
    declared = any("cost_class" in vars(base) for base in kind.__mro__ if base is not Loss)
    return loss.cost_class if declared else _BY_WAY.get(written_as, loss.cost_class)


def _keys(node: dict[str, Any], kind: type[Loss], meanings: dict[str, str]) -> list[Key]:
    """Keys in the order of the signature; those that the class takes by any name, last."""
    parameters = inspect.signature(kind).parameters
    any_name = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), "")
    order = {name: i for i, name in enumerate(parameters)}
    names = sorted((key for key in node if key != "_target_"), key=lambda key: order.get(key, len(order)))
    return [
        Key(name, None, meanings.get(name, ""), required=True)
        if node[name] is inspect.Parameter.empty
        else Key(name, node[name], meanings.get(name, meanings.get(any_name, "")))
        for name in names
    ]
