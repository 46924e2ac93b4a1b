"""Turn what Hydra and OmegaConf say of a mistake into one sentence that names the nearest right word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from losslab.errors import UserError

_INTEGER, _NUMBER = "a whole number", "a number"
_KINDS = {"Integer": _INTEGER, "Float": _NUMBER, "Boolean": "true or false"}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or a list of what there is."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(names)}" if names else "there are none"


def flat_keys(node: Any, prefix: str = "") -> set[str]:
    """All dotted keys of a plain nested dict, inner nodes included."""
    keys: set[str] = set()
    if isinstance(node, dict):
        for key, value in node.items():
            if key != "_target_":
                keys |= {f"{prefix}{key}"} | flat_keys(value, f"{prefix}{key}.")
    return keys


def nearest_key(key: str, known: set[str]) -> str:
    """The nearest full key; where the parent is right, only its own keys are considered."""
    parent, _, last = key.rpartition(".")
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent}
    if parent and siblings:
        close = difflib.get_close_matches(last, sorted(siblings), n=1, cutoff=0.6)
        return f"did you mean '{parent}.{close[0]}'?" if close else f"{parent} has {', '.join(sorted(siblings))}"
    ranked = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {ranked[0]!r}?" if ranked else "losslab train --help lists all keys"


def explain(error: Exception, known: set[str]) -> UserError:
    """The one sentence for an exception of Hydra's or OmegaConf's. `known`: the dotted keys of the defaults."""
    text = " ".join(str(error).split())
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else text
    if found := re.search(r"Could not find '([^']+)/([^'/]+)' Available options in '[^']+': (.*?) Config search", text):
        group, choice, options = found.groups()
        return UserError(f"there is no {group} named {choice!r}: {nearest(choice, options.split())}")
    if found := re.search(r"Could not override '([^']+)'", text):
        return UserError(f"there is no key {found[1]!r}: {nearest_key(found[1], known)}")
    if found := re.search(r"Value '(.*?)'(?: of type '\w+')? could not be converted to (\w+).*full_key: (\S+)", cause):
        value, kind, key = found.groups()
        return UserError(f"{key} must be {_KINDS.get(kind, kind)}, not {value!r}")
    if "Config group override must be" in text:
        return UserError("a group's choice must be a name, such as loss=square")
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return UserError(f"{found[1]} is a list of values: add -m to run them all")
    if found := re.search(r"Interpolation key '([^']+)' not found.*full_key: (\S+)", cause):
        return UserError(f"{found[2]} refers to {found[1]!r}, and there is no such key")
    text = text.split(" See https://hydra.cc")[0].split(" Config search path")[0]
    if cause not in text:
        text = f"{text}: {cause}"
    return UserError(text[0].lower() + text[1:])
