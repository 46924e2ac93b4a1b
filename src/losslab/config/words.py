"""The words of a command line, KEY=VALUE, made ready for Hydra's grammar. No configuration is composed here."""

from __future__ import annotations

import re
import shlex
import typing
from typing import Any

from losslab.choices import conf_dir
from losslab.config.schema import NAMED_NODES, CheckpointsConfig, RunConfig, TrainerConfig
from losslab.errors import UserError

ZIP = "zip"
"""The word that says which axes are walked together; it is no key of a run."""
_SEPARATOR = "data.separator"
"""Text of any kind, which is never an axis."""
_OPEN = "data.columns"
"""Its keys are named by the task, so that no yaml has them: they are added where they are not there."""
_WRITTEN_OUT = ("'", '"', "[", "{", "$", "=")
_FUNCTIONS = frozenset("glob choice range interval shuffle sort tag int float bool str json_str extend_list".split())
"""Hydra's own, which look like a choice with settings."""
_CHOICE = re.compile(r"(?P<name>[\w./+-]+)(?:\((?P<inner>.*)\)|:(?P<tail>.*))", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"
_FLOAT = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?")
_MOST_DIGITS = 18
"""A budget with more than these is no budget."""


def split(text: str, separator: str = ",") -> list[str]:
    """The parts of a text between separators that stand in no brackets and no quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def is_group(key: str) -> bool:
    """Whether KEY=VALUE chooses a file: `loss`, `model/size`, `loss@loss.first`."""
    group = bare(key).partition("@")[0]
    return bool(group) and "." not in group and (conf_dir() / group).is_dir()


def bare(key: str) -> str:
    """A key without the sign that adds or deletes it."""
    return key.lstrip("+~")


def ready(word: str) -> str:
    """A word as Hydra can read it: quoted where its value holds an equals sign, whole numbers written as such."""
    key, equals, value = word.partition("=")
    if key == _SEPARATOR and value[:1] not in ("'", '"') and value not in ("", "null"):
        return f"{key}='{value.replace(chr(39), chr(92) + chr(39))}'"
    if not equals or has_settings(word):
        return word
    if key == _OPEN or key.startswith(f"{_OPEN}."):
        key = f"++{key}"
        word = f"{key}={value}"
    if bare(key) in _whole_keys():
        return f"{key}={','.join(map(_whole, value.split(',')))}"
    if "=" not in value or value[:1] in _WRITTEN_OUT or "(" in value:
        return word
    return f"{key}=" + ",".join(f"'{part}'" if "=" in part and "'" not in part else part for part in value.split(","))


def has_settings(word: str) -> bool:
    """Whether a word chooses a file together with settings of its own: loss='focal(gamma=1)' or loss=focal:gamma=1."""
    key, _, value = word.partition("=")
    return is_group(key) and any(_match(element) for element in split(value))


def choices(word: str) -> list[tuple[str, ...]]:
    """The words that each choice of such a word stands for, in its order.

    `loss=cross_entropy,focal(gamma=1)` → [("loss=cross_entropy",), ("loss=focal", "loss.gamma=1")]

    Raises:
        UserError: for settings that cannot be read, and for groups whose settings stand elsewhere.
    """
    key, _, value = word.partition("=")
    found: list[tuple[str, ...]] = []
    for element in split(value):
        match = _match(element)
        if match is None:
            found.append((f"{key}={element}",))
            continue
        group, _, package = bare(key).partition("@")
        if "/" in group or group == "experiment":
            raise UserError(f"{key}={element}: a choice of {group} takes no settings of its own; write KEY=VALUE apart")
        inner, tail = match["inner"], match["tail"]
        settings = split(inner if tail is None else tail, "," if tail is None else ":")
        for setting in settings:
            if not re.fullmatch(r"[A-Za-z_][\w.]*=.*", setting, re.DOTALL):
                name, first = match["name"], settings[0] or "KEY=VALUE"
                raise UserError(
                    f"{key}={element} cannot be read at {setting!r}: settings are written '{name}({first},KEY=VALUE)' "
                    f"or {name}:{first}:KEY=VALUE, and each choice has one value of each"
                )
        section = f"{group}.{match['name']}" if group in NAMED_NODES else package or group
        found.append((f"{key}={match['name']}", *(ready(f"{section}.{setting}") for setting in settings)))
    return found


def choice_label(words: tuple[str, ...]) -> str:
    """`focal(gamma=1)`, for people."""
    name = words[0].partition("=")[2]
    settings = ",".join(re.sub(r"^.*?\.(?=[^.=]*=)", "", word) for word in words[1:])
    return f"{name}({settings})" if settings else name


def right_spelling(word: str) -> str | None:
    """The word with its value in quotes, as it is typed in a shell; None where quotes do not help."""
    from hydra.core.override_parser.overrides_parser import (
        OverridesParser,
    )  # what only reads run folders needs no Hydra
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals or bare(key) in _whole_keys() or not re.fullmatch(r"[+~]*[A-Za-z_][\w./@]*", key):
        return None
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    quote = "'" if '"' in value and "'" not in value else '"'
    right = f"{key}={quote}{value.replace(quote, chr(92) + quote)}{quote}"
    try:
        (parsed,) = OverridesParser.create().parse_overrides([right])
    except HydraException:
        return None
    return shlex.quote(right) if parsed.value() == value else None


def _match(element: str) -> re.Match[str] | None:
    match = _CHOICE.fullmatch(element)
    return None if match is None or match["name"] in _FUNCTIONS else match


def _whole_keys() -> set[str]:
    """The run's own keys that hold whole numbers. Those of components are converted by their signatures."""
    keys = set()
    for prefix, kind in (("", RunConfig), ("trainer.", TrainerConfig), ("checkpoints.", CheckpointsConfig)):
        hints: dict[str, Any] = typing.get_type_hints(kind)
        keys |= {f"{prefix}{name}" for name, hint in hints.items() if hint in (int, int | None)}
    return keys


def _whole(text: str) -> str:
    """`1e3` and `1000.0` as `1000`; anything else stays as it is, and is answered where its kind is checked."""
    if not _FLOAT.fullmatch(text.strip()) or text.strip().lstrip("+-").isdigit():
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 10**_MOST_DIGITS else text
