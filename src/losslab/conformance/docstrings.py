"""A docstring in sections, as Google's style has them."""

from __future__ import annotations

import inspect
import re

_HEADING = re.compile(r"([A-Z]\w*):")
_ARGUMENT = re.compile(r"(\w+)(?: \([^)]*\))?: +(.*)")


def read_docstring(kind: type) -> tuple[str, str, str, dict[str, str]]:
    """Title, idea and further text of a class's docstring, and its sections; those of Google's style as they are."""
    head, *rest = blocks(inspect.cleandoc(kind.__doc__ or ""))
    first, _, about = head[1].partition("\n")
    title, colon, idea = first.partition(": ")
    if not colon:
        title, idea = kind.__name__, first
    return title, idea.rstrip("."), flowing(about), dict(rest)


def arguments(section: str) -> dict[str, str]:
    """Name → meaning, of an Args section."""
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := None if line.startswith(" ") else _ARGUMENT.fullmatch(line):
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def flowing(text: str) -> str:
    """Paragraphs without the docstring's line breaks."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def blocks(text: str) -> list[tuple[str, str]]:
    """The text before the first heading, then each heading's, without its indentation."""
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        if heading := _HEADING.fullmatch(line):
            blocks.append((heading[1], []))
        else:
            blocks[-1][1].append(line)
    return [(name, inspect.cleandoc("\n".join(["", *lines]))) for name, lines in blocks]
