"""Overrides that a program gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TypeVar

from losslab.errors import UserError

Number = TypeVar("Number", float, float | None)
_PLAIN = (str, int, float)


def checked_words(overrides: Sequence[str]) -> list[str]:
    """Overrides as a list of words. Raises UserError for anything but words, which alone enter a fingerprint."""
    if isinstance(overrides, str):
        raise UserError(
            f"overrides are a list of words, such as ['loss=focal', 'seed=1'], not the one word {overrides!r}"
        )
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(
                f"an override is a word KEY=VALUE, not an object of {type(word).__name__}: a run is found again by its "
                "words, which an object has none of; put the class into a .py file beside the program, and write "
                "loss._target_=my_losses.MyLoss"
            )
        if "=__main__." in word:
            raise UserError(
                f"{word}: a class that is defined in a notebook or in the program itself cannot be imported by the "
                "process that trains; put it into a .py file in the current folder, and write its name, such as "
                "my_losses.MyLoss"
            )
    return list(overrides)


def refuse_objects(function: str, objects: Mapping[str, object]) -> None:
    """Refuse parts of a run that are given as objects, by keyword. Raises UserError."""
    for name, value in objects.items():
        values = value if isinstance(value, list | tuple | range) else [value]
        if all(isinstance(one, _PLAIN) for one in values):
            word = f"{name}={','.join(map(str, values))}"
            raise UserError(f"losslab.{function} takes no {name}=… by itself: put it among the words, {word!r}")
        kind = value if isinstance(value, type) else type(value)
        raise UserError(
            f"losslab.{function} takes no {name}=…: a run is found again by its words, which an object has none of; "
            f"put {kind.__name__} into a .py file in the current folder, and add the words "
            f"'{name}._target_=my_module.{kind.__name__}' and '{name}.KEY=VALUE'"
        )


def checked_number(name: str, value: Number) -> Number:
    """An argument that is a number, or None. Raises UserError for anything else, such as one in quotes."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise UserError(f"{name} must be a number, not {value!r}")
    return value
