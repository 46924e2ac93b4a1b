"""Sentences for what ends a command outside its own work: mistakes that the command line itself finds, and Ctrl-C."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer import Exit
from typer.core import TyperGroup

from losslab.console import complain
from losslab.sweeps.interrupts import STOPPED, unheeded

_SEVERAL_FOLDERS = {
    "compare": "runs are compared within one folder: move or copy the others into it, or train them under one name=",
    "status": "the folder above them shows the runs of all",
    "clean": "the folder above them frees the space of all",
}


@contextmanager
def told(message: str = "interrupted") -> Iterator[None]:
    """A context out of which an interrupt ends the command with a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Exit(stopped(message)) from None


def stopped(message: str) -> int:
    """Say that an interrupt ends the command, whatever further one comes meanwhile; returns its exit code."""
    with unheeded():
        complain(message)
    return STOPPED


class Commands(TyperGroup):
    """Says that a command was interrupted, where typer would end the program without a word."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with told():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with told():
            return super().invoke(ctx)


def sentence(error: Any) -> str:
    """The sentence for a mistake that typer found."""
    said: str = error.format_message().rstrip(".").replace(". Did", ": did").replace(". ", "; ")
    command = _name(error.ctx) if error.ctx is not None else ""
    if too_many := re.search(r"unexpected extra arguments? ?(?:\(s\) )?\((.*)\)$", said):
        way_out = _SEVERAL_FOLDERS.get(command, f"losslab {command} --help lists what it takes")
        return f"losslab {command} takes no further argument, such as {too_many[1].split()[0]!r}: {way_out}"
    if missing := re.search(r"^Missing argument '(.*)'$", said):
        argument = missing[1].upper() if missing[1].isidentifier() else missing[1]
        return f"losslab {command} needs {argument}: losslab {command} --help"
    if no_number := re.search(r"^Invalid value for '(.*?)':.* valid (?:number|integer|float)", said):
        return f"{no_number[1]} must be a number"
    return said[0].lower() + said[1:]


def _name(context: Any) -> str:
    """The command as it is typed, without the program: `compare`, `data inspect`."""
    above = context.parent
    return f"{_name(above)} {context.info_name}".strip() if above is not None else ""
