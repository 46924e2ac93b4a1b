"""Examples of `losslab data inspect`, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 360
"""Characters of a text that are shown."""
_MOST_HIDDEN = 12
"""Hidden positions that are listed."""


def example_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Inputs and targets of each example."""
    if not found["examples"]:
        return
    place = f"step {found['step']}" if found["split"] == "train" else f"batch {found['step']}"
    yield f"examples of {found['split']}, {place}, as the model reads them"
    for number, example in enumerate(found["examples"], start=1):
        yield from _example(number, example)


def _example(number: int, example: Mapping[str, Any]) -> Iterator[str]:
    size = "" if example["length"] is None else f" ({example['length']:,} inputs)"
    texts = example.get("reads", [])
    names = ("reads",) if len(texts) == 1 else ("first", "second")
    for i, (name, text) in enumerate(zip(names, texts, strict=False)):
        yield f"{f'{number}' if i == 0 else '':<3}{name:<12}{shown(text)}{size if i == len(texts) - 1 else ''}"
    for i, (name, told) in enumerate(example.get("other_inputs", {}).items()):
        yield f"{f'{number}' if i == 0 and not texts else '':<3}{name:<12}{told}"
    if "mixed_with" in example:
        yield f"   {'mixed with':<12}{shown(example['mixed_with'])}"
    if "hidden" in example:
        yield f"   {'predicts':<12}{_hidden(example['hidden'])}"
    else:
        positions = example.get("predicted_positions")
        told = "" if positions is None else f" ({positions:,} positions)"
        yield f"   {'predicts':<12}{shown(example['predicts'])}{told}"
    if "mixed_target" in example:
        yield f"   {'and':<12}{shown(str(example['mixed_target']))} with weight {example['mixed_weight']:.3f}"
    if isinstance(example["weight"], float) and example["weight"] != 1:
        yield f"   {'weight':<12}{example['weight']:.3f}"


def _hidden(positions: list[dict[str, Any]]) -> str:
    told = [_place(at) for at in positions[:_MOST_HIDDEN]]
    more = len(positions) - _MOST_HIDDEN
    return " · ".join(told) + (f" · and {more:,} more positions" if more > 0 else "")


def _place(at: Mapping[str, Any]) -> str:
    how = "kept" if at["kept"] else f"reads {at['reads']!r}"
    return f"{at['position']} {at['target']!r} ({how})"


def shown(text: str) -> str:
    """One line, at most so long."""
    line = text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
