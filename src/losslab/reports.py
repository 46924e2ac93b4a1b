"""Typed reports of a process that trains to the one that started it, one line of JSON each. No torch here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

_TYPE = "losslab"
"""The key that names a report's type, and marks its line among all others that a process prints."""


@dataclass(frozen=True)
class Note:
    """News for a person that are no mistake."""

    message: str


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    step: int
    """The optimizer step."""
    text: str
    """The text that a bar shows beside it."""


@dataclass(frozen=True)
class Validated:
    """A validation after which the run was saved."""

    step: int
    value: float
    """The primary metric."""


@dataclass(frozen=True)
class Cause:
    """The reason for which a process, or one rank of several, ends without a result."""

    message: str
    rank: int = 0


Report = Note | Progress | Validated | Cause
_TYPES: dict[str, type[Report]] = {"note": Note, "progress": Progress, "validated": Validated, "cause": Cause}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def to_line(report: Report) -> str:
    """Write a report as one line, without a line break at its end."""
    return json.dumps({_TYPE: _NAMES[type(report)], **asdict(report)})


def from_line(line: str) -> Report | None:
    """Read a report; None where the line is something else, such as the output of a person's own code."""
    try:
        content = json.loads(line)
        kind = _TYPES[content.pop(_TYPE)]
        report = kind(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    right = all(type(getattr(report, field.name)).__name__ == field.type for field in fields(report))
    return report if right else None
