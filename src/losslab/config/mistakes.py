"""Turn what Hydra and OmegaConf say of a mistake into one sentence that names the nearest right word."""

from __future__ import annotations

import difflib
import re
import typing
from typing import Any

import yaml

from losslab.choices import conf_dir
from losslab.config.auto_seeds import NAMES
from losslab.config.foreign import CHOICES, VALUES, serves_instead
from losslab.config.nearest import nearest
from losslab.config.schema import RunConfig
from losslab.config.words import is_group, right_spelling
from losslab.errors import UserError

_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
_ANNOTATIONS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def flat_keys(node: Any, prefix: str = "") -> set[str]:
    """All dotted keys of a plain nested dict, inner nodes included."""
    keys: set[str] = set()
    if isinstance(node, dict):
        for key, value in node.items():
            if key != "_target_":
                keys |= {f"{prefix}{key}"} | flat_keys(value, f"{prefix}{key}.")
    return keys


def nearest_key(key: str, known: set[str]) -> str:
    """The nearest full key; where the parent is right, its own keys come first, then that name in other sections."""
    parent, _, last = key.rpartition(".")
    if foreign := serves_instead(key, known):
        return foreign
    if not parent and (full := sorted(name for name in known if name.endswith(f".{key}"))):
        return f"did you mean {' or '.join(map(repr, full))}?"
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent}
    if parent and siblings:
        if close := difflib.get_close_matches(last, sorted(siblings), n=1, cutoff=0.6):
            return f"did you mean '{parent}.{close[0]}'?"
        if elsewhere := sorted(name for name in known if name.endswith(f".{last}")):
            return f"did you mean {' or '.join(map(repr, elsewhere))}?"
        return f"{parent} has {', '.join(sorted(siblings))}"
    ranked = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {ranked[0]!r}?" if ranked else "losslab train --help lists all keys"


def explain(error: Exception, known: set[str]) -> UserError:
    """The one sentence for an exception of Hydra's or OmegaConf's. `known`: the dotted keys of the defaults."""
    text = " ".join(str(error).split())
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else text
    if found := re.search(r"Could not find '([^']+)/([^'/]+)' Available options in '[^']+': (.*?) Config search", text):
        group, choice, options = found.groups()
        hint = CHOICES.get((group, choice)) or nearest(choice, options.split())
        return UserError(f"there is no {group} named {choice!r}: {hint}")
    if found := re.search(r"Could not load '([^'/]+)/([^'/]+)'", text):  # one of a list, whose options Hydra leaves out
        group, choice = found.groups()
        hint = CHOICES.get((group, choice)) or nearest(
            choice, [path.stem for path in (conf_dir() / group).glob("*.yaml")]
        )
        return UserError(f"there is no {group} named {choice!r}: {hint}")
    if found := re.search(r"Could not override '(optimizer\.groups\.[^']+)'", text):
        return UserError(f"there is no key {found[1]!r} yet: a plus adds it, +{found[1]}=…")
    if found := re.search(r"Could not override '([^'/]+)/([^']+)'", text):
        group, key = found[1], f"{found[1]}/{found[2]}"
        if key in known:
            return UserError(f"the {group} that is chosen has no {key}: leave it out, and set {group}.KEY=VALUE")
    if found := re.search(r"Could not override '([^']+)'", text):
        return UserError(
            f"there is no key {found[1]!r}: {nearest_key(found[1], known.union(NAMES))}{_owners(found[1])}"
        )
    if found := re.search(r"Value '(.*?)'(?: of type '\w+')? could not be converted to (\w+).*full_key: (\S+)", cause):
        value, kind, key = found.groups()
        return UserError(f"{key} must be {_KINDS.get(kind, kind)}, not {value!r}{VALUES.get(key, '')}")
    if found := re.search(r"Value '(.*?)' is not a valid bool.*full_key: (\S+)", cause):
        return UserError(f"{found[2]} must be true or false, not {found[1]!r}")
    if found := re.search(r"field '([^']+)' is not Optional", cause):
        return UserError(f"{found[1]} must be {_kind_of(found[1])}, not null")
    if "Config group override must be" in text:
        return UserError("a group's choice must be a name, such as loss=square")
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        right = right_spelling(found[1])
        one = f"; one value with a comma in it is written {right}" if right and not is_group(found[1]) else ""
        return UserError(f"{found[1]} is a list of values: add -m to run them all{one}")
    if found := re.search(r"[Rr]ecursive interpolation.*full_key: (\S+)", f"{cause} {text}"):
        return UserError(f"{found[1]} refers to itself; give it a value")
    if found := re.search(r"Interpolation key '([^']+)' not found.*full_key: (\S+)", cause):
        return UserError(f"{found[2]} refers to {found[1]!r}, and there is no such key: give {found[2]} a value")
    # Anything else: Hydra's own words, without its pointers to itself.
    text, cause = (re.split(r" (?:See https://hydra|Config search path|full_key: )", part)[0] for part in (text, cause))
    if cause not in text:
        text = f"{text}: {cause}"
    return UserError(text[0].lower() + text[1:])


def _owners(key: str) -> str:
    """Other files of the group that have such a key: `; focal has loss.gamma`."""
    group, _, name = key.partition(".")
    having = []
    for path in sorted((conf_dir() / group).glob("*.yaml")) if name else []:
        if key in flat_keys({group: yaml.safe_load(path.read_text(encoding="utf-8"))}):
            having.append(path.stem)
    if not having:
        return ""
    names = ", ".join(having[:4]) + (f" and {len(having) - 4} more" if len(having) > 4 else "")
    return f"; {names} ha{'s' if len(having) == 1 else 've'} {key}"


def _kind_of(key: str) -> str:
    """The type of one of the run's own keys in words, from its annotation."""
    section: type = RunConfig
    *parents, last = key.split(".")
    for parent in parents:
        section = typing.get_type_hints(section)[parent]
    annotation = typing.get_type_hints(section)[last]
    return _ANNOTATIONS.get(getattr(annotation, "__name__", ""), "given")
