"""Parameters of an optimizer, and their settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from losslab.config.binding import import_target
from losslab.config.components import build
from losslab.config.optimizer_groups import GROUPS, INHERITED, LAYER_DECAY, MATCH, PENALTIES, REST, ROLES
from losslab.errors import UserError
from losslab.training.combined_optimizer import CombinedOptimizer
from losslab.training.layer_rates import by_layer, layers_of, scale_rates

NAME = "name"
"""Key of a parameter group: which of the yaml's groups it belongs to."""
_PROJECTION, _LOSS = "projection.", "loss."
_FUSIBLE = (Adam, AdamW, SGD)
_WAYS = {"fused", "foreach", "differentiable"}
"""Keys by which a person chooses how an optimizer computes."""


def make_optimizer(node: dict[str, Any], network: nn.Module, *, fuse: bool = False) -> Optimizer:
    """The optimizer of a bound `optimizer` node; several of them, as one, where its groups name optimizers.

    Args:
        network: its parameters' names begin with backbone, projection or loss.
        fuse: step by one pass over each weight, state and gradient, where torch can on a CPU and nothing else is asked.

    Raises:
        UserError: for groups that overlap or match nothing, and for settings or shapes that an optimizer refuses.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    roles = parameter_roles(network)
    groups = node.get(GROUPS, {})
    own = own_keys(node)
    main = {key: value for key, value in node.items() if key not in (GROUPS, *own)}
    penalties = {key: value for key, value in own.items() if key in PENALTIES}
    members = _members(groups, {name: roles[name] for name in trained})
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in (REST, *groups):
        chosen = [(parameter, roles[key]) for key, parameter in trained.items() if members[key] == name]
        parts[name] = _by_decay(chosen, "weight_decay" in groups.get(name, {}))
        _penalise(parts[name], penalties, groups.get(name, {}))
        if LAYER_DECAY in own:
            parts[name] = by_layer(parts[name], layers_of(network, roles), own[LAYER_DECAY])
    of_main = parts[REST]
    others: list[Optimizer] = []
    for name, group in groups.items():
        named = [{NAME: name, **part} for part in parts[name] if part["params"]]
        settings = {key: value for key, value in group.items() if key not in (MATCH, *PENALTIES)}
        if "_target_" not in group:
            of_main += [settings | part for part in named]
        elif named:
            others.append(_build(_inherited(group, main) | settings, f"optimizer.{GROUPS}.{name}", named, fuse=fuse))
    if not others:
        return scale_rates(_build(main, "optimizer", of_main, fuse=fuse))
    of_main = [part for part in of_main if part["params"]]
    first = [_build(main, "optimizer", of_main, fuse=fuse)] if of_main else []
    return scale_rates(CombinedOptimizer([*first, *others]))


def _penalise(parts: list[dict[str, Any]], penalties: dict[str, float], group: Mapping[str, Any]) -> None:
    """Note the λ of each penalty in the parts: a group's own in all of it, the main optimizer's where weights decay."""
    for i, part in enumerate(parts):
        for name in PENALTIES:
            value = group[name] if name in group else penalties.get(name, 0.0) if i == 0 else 0.0
            if value:
                part[name] = value


def own_keys(node: Mapping[str, Any]) -> dict[str, float]:
    """The keys of a bound node that are the framework's, not the optimizer's: penalties, and the decay by layer."""
    taken = inspect.signature(import_target(node["_target_"], "optimizer")).parameters
    return {key: node[key] for key in (*PENALTIES, LAYER_DECAY) if key in node and key not in taken}


def _inherited(group: dict[str, Any], main: dict[str, Any]) -> dict[str, Any]:
    """The main optimizer's settings that hold for a group's own, where that takes them."""
    taken = inspect.signature(import_target(group["_target_"], "optimizer")).parameters
    return {key: main[key] for key in sorted(INHERITED) if key in main and key in taken}


def parameter_roles(network: nn.Module) -> dict[str, str]:
    """Name of each parameter → embedding, norm, matrix, head, bias or loss.

    embedding   weights of nn.Embedding, a projection that is tied to one included
    head        the output projection, where it has weights of its own
    norm        parameters of normalising modules: those whose class has Norm in its name
    loss        parameters of the loss
    matrix      whatever else has two dimensions
    bias        the rest: vectors, and tensors of more dimensions than two
    """
    by_role: dict[str, set[int]] = {"embedding": set(), "norm": set()}
    for module in network.modules():
        role = "embedding" if isinstance(module, nn.Embedding) else "norm" if "Norm" in type(module).__name__ else None
        if role is not None:
            by_role[role] |= {id(p) for p in module.parameters(recurse=False)}
    return {name: _role(name, parameter, by_role) for name, parameter in network.named_parameters()}


def _role(name: str, parameter: nn.Parameter, by_role: Mapping[str, set[int]]) -> str:
    for role, members in by_role.items():
        if id(parameter) in members:
            return role
    if name.startswith(_PROJECTION):
        return "head"
    if name.startswith(_LOSS):
        return "loss"
    return "matrix" if parameter.ndim == 2 else "bias"


def _members(groups: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str]) -> dict[str, str]:
    """Name of each parameter → its group; a pattern of names comes before a role.

    Raises:
        UserError: where two groups claim a parameter, or a group has none.
    """
    members: dict[str, str] = {}
    for parameter, role in roles.items():
        claims = {name: _claim(name, group, parameter, role) for name, group in groups.items()}
        strongest = max(claims.values(), default=0)
        claimed = [name for name, claim in claims.items() if claim == strongest and claim]
        if len(claimed) > 1:
            raise UserError(f"optimizer.{GROUPS}: {' and '.join(claimed)} both claim {parameter}; narrow one of them")
        members[parameter] = claimed[0] if claimed else REST
    for name, group in groups.items():
        if name not in members.values() and not _may_be_empty(name, group):
            there = ", ".join(sorted(set(roles.values())))
            what = "no parameter"
            if any(_claim(name, group, parameter, role) for parameter, role in roles.items()):
                what = "only parameters that other groups' patterns claim"
            raise UserError(
                f"optimizer.{GROUPS}.{name} matches {what} (the network has {there}, such as "
                f"{next(iter(roles), 'none')}): leave it out, or change {MATCH}"
            )
    return members


def _claim(name: str, group: Mapping[str, Any], parameter: str, role: str) -> int:
    """2 where a pattern fits the parameter, 1 where its role does, else 0."""
    wanted = _wanted(name, group)
    if any(fnmatchcase(parameter, pattern) for pattern in wanted if pattern not in ROLES):
        return 2
    return int(role in wanted)


def _wanted(name: str, group: Mapping[str, Any]) -> list[str]:
    match = group.get(MATCH, name)
    return [match] if isinstance(match, str) else list(match)


def _may_be_empty(name: str, group: Mapping[str, Any]) -> bool:
    """Losses of a comparison may or may not have parameters."""
    return all(wanted == "loss" or wanted.startswith(_LOSS) for wanted in _wanted(name, group))


def _by_decay(chosen: list[tuple[nn.Parameter, str]], decides_decay: bool) -> list[dict[str, Any]]:
    """Two parameter groups: weight decay as configured, and none for norms, biases and embeddings; one where the
    person has given this group its own.

    A tied output projection is the embedding, and does not decay; one of its own does. Parameters of a loss decay
    where they are matrices.
    """
    if decides_decay:
        return [{"params": [parameter for parameter, _ in chosen]}]
    decays = [parameter.ndim >= 2 and role != "embedding" for parameter, role in chosen]
    return [
        {"params": [parameter for (parameter, _), does in zip(chosen, decays, strict=True) if does]},
        {"params": [p for (p, _), does in zip(chosen, decays, strict=True) if not does], "weight_decay": 0.0},
    ]


def _build(node: dict[str, Any], where: str, parts: list[dict[str, Any]], *, fuse: bool) -> Optimizer:
    if fuse and _is_fusible(node, [p for part in parts for p in part["params"]]):
        node = node | {"fused": True}
    try:
        optimizer: Optimizer = build(node, where, params=parts)
    except UserError as error:
        if all(p.ndim == 2 for part in parts for p in part["params"]) or "2D" not in str(error):
            raise
        odd = next(p.shape for part in parts for p in part["params"] if p.ndim != 2)
        raise UserError(
            f"{where}: {node['_target_'].rpartition('.')[2]} takes matrices alone, and this network also has "
            f"parameters of shape {list(odd)}; give it the matrices as optimizer=muon does, in optimizer.groups.matrix"
        ) from None
    return optimizer


def _is_fusible(node: Mapping[str, Any], parameters: list[nn.Parameter]) -> bool:
    """On a GPU torch chooses a quick way itself; shards of FSDP and rounded weights stay with its plain one."""
    plain = all(
        type(p) in (Tensor, nn.Parameter) and p.device.type == "cpu" and p.dtype == torch.float32 for p in parameters
    )
    target = import_target(node["_target_"], "optimizer")
    return plain and target in _FUSIBLE and not _chooses_a_way(node, target)


def _chooses_a_way(node: Mapping[str, Any], target: Any) -> bool:
    """Whether a key says how to compute; a bound node holds every key, most of them with the optimizer's default."""
    defaults = inspect.signature(target).parameters
    return any(node[way] is not defaults[way].default for way in _WAYS & node.keys())
