"""`losslab data inspect`: the content of a data set, and examples as a model reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from losslab.commands.inspected_examples import example_lines
from losslab.console import out, say

Lines = Iterator[str]
_MOST_LABELS = 20
_BAR = 30
"""Characters of the longest bar."""
_LONGEST_NAME = 40


def inspect_data(
    overrides: list[str], *, split: str, examples: int, step: int, as_json: bool, config_dir: Path | None
) -> int:
    """Print counts, lengths, labels, copies and examples; returns the exit code.

    Args:
        overrides: the data and the task, as `losslab train` takes them.
        split, examples, step: which samples are shown.

    Raises:
        UserError: for mistakes in what was typed, and for data that cannot be prepared.
    """
    if as_json:
        out.quiet = True  # a tokenizer that is trained says so
    from losslab.inspection.open_data import inspected

    found = inspected(overrides, config_dir, split=split, step=step, examples=examples)
    if as_json:
        out.quiet = False
        out.print_json(json.dumps(found))
        return 0
    for line in found["introduction"]:
        say(line)
    for note in found["notes"]:
        say(f"note   {note}")
    for part in (_splits, _copies, _coverage, _labels, _values, _entities, example_lines):
        for i, line in enumerate(part(found)):
            if i == 0:
                say("")
            out.print(line, markup=False, style="bold" if i == 0 else None)
    return 0


def _splits(found: Mapping[str, Any]) -> Lines:
    """Counts and lengths."""
    splits = found["splits"]
    units = {split["unit"] for split in splits.values()}
    rows = [["split", *(f"{unit}s" for unit in units), "positions", "shortest", "median", "95 %", "longest", "cut off"]]
    for name, split in splits.items():
        own = [name, f"{split['count']:,}", f"{split['positions']:,}"]
        lengths = split["lengths"]
        own += ["—"] * 4 if lengths is None else [f"{lengths[key]:,.0f}" for key in ("min", "median", "p95", "max")]
        cut = split["cut_off"]
        rows.append([*own, "—" if cut is None else f"{cut / max(split['count'], 1):.1%}"])
    yield from table(rows)
    for name, split in splits.items():
        if split["read"] < split["count"]:
            yield f"lengths and copies of {name}: of {split['read']:,} {split['unit']}s"


def _copies(found: Mapping[str, Any]) -> Lines:
    """Equal inputs within splits and between them."""
    known = {name: split for name, split in found["splits"].items() if "duplicates" in split}
    if not known:
        return
    yield "equal inputs"
    any_copy = False
    for name, split in known.items():
        unit, parts = split["unit"], []
        if count := split["duplicates"]:
            parts.append(f"{count:,} repeat{'s' * (count == 1)} another {unit} of {name}")
        parts += [f"{count:,} {_be(count)} in {other} as well" for other, count in split["copies"].items() if count]
        if count := split.get("several_labels"):
            parts.append(f"{count:,} of the inputs {'has' if count == 1 else 'have'} several labels")
        if parts:
            any_copy = True
            yield f"  {name:<7}{' · '.join(parts)}"
    if not any_copy:
        yield f"  none within {', '.join(known)}, and none between them"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _coverage(found: Mapping[str, Any]) -> Lines:
    """Coverage of the inputs by the vocabulary."""
    covered = {name: split["coverage"] for name, split in found["splits"].items() if split["coverage"]}
    if not covered:
        return
    yield "coverage"
    for name, numbers in covered.items():
        yield f"  {name:<7}{' · '.join(_covered(numbers))}"


def _covered(numbers: Mapping[str, float]) -> Lines:
    if "unknown words" in numbers:
        yield f"{numbers['unknown words']:.1%} of the words are unknown to train, or too rare for data.vocab_size"
    if "tokens per word" in numbers:
        yield f"{numbers['tokens per word']:.2f} tokens a word"
    changed = numbers.get("texts that come back changed")
    if changed == 0:
        yield "every text comes back from its tokens"
    elif changed is not None and numbers["texts that come back changed even from lower case"] == 0:
        yield "every text comes back from its tokens in lower case"
    elif changed is not None:
        lost = numbers["bytes of words lost"]
        yield f"{changed:.1%} of the texts come back changed from their tokens, {lost:.1%} of the bytes in words lost"


def _labels(found: Mapping[str, Any]) -> Lines:
    """A bar for each class: its share of train, or of the first split that has targets."""
    if "labels" not in found:
        return
    names, counts = found["labels"]["names"], found["labels"]["counts"]
    first = counts.get("train") or next(iter(counts.values()))
    order = sorted(range(len(names)), key=lambda k: -first[k])
    shown = order[:_MOST_LABELS]
    most, totals = max(first), {split: max(sum(own), 1) for split, own in counts.items()}
    rows = [["label", *counts, "share", ""]]
    for k in shown:
        own = [f"{counts[split][k]:,}" for split in counts]
        rows.append([short(names[k]), *own, f"{first[k] / max(sum(first), 1):.1%}", _bar(first[k], most)])
    yield from table(rows, left=(0, len(counts) + 2))
    if rest := order[_MOST_LABELS:]:
        sums = ", ".join(f"{sum(own[k] for k in rest) / totals[split]:.1%} of {split}" for split, own in counts.items())
        yield f"  and {len(rest):,} rarer ones, together {sums}; the rarest has {first[order[-1]]:,}"


def _values(found: Mapping[str, Any]) -> Lines:
    """Statistics, and a histogram of train's values."""
    if "values" not in found:
        return
    splits = found["values"]
    several = len(next(iter(splits.values()))) > 1
    rows = [["value" + (f" ({found['unit']})" if found["unit"] else ""), "mean", "std", "least", "median", "largest"]]
    for name, columns in splits.items():
        for k, own in enumerate(columns, start=1):
            numbers = [f"{own[key]:.4g}" for key in ("mean", "std", "min", "median", "max")]
            rows.append([f"{name} {k}" if several else name, *numbers])
    yield from table(rows)
    name, columns = next(iter(splits.items()))
    for k, own in enumerate(columns, start=1):
        yield f"  {name}{f', value {k}' if several else ''}"
        edges, most = own["edges"], max(own["counts"])
        ends = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
        bars = [[end, f"{n:,}", _bar(n, most)] for end, n in zip(ends, own["counts"], strict=True)]
        yield from (f"  {line}" for line in table(bars, left=(0, 2)))


def _entities(found: Mapping[str, Any]) -> Lines:
    """Entities of each type."""
    if "entities" not in found:
        return
    splits = found["entities"]
    types = sorted({kind for own in splits.values() for kind in own}, key=lambda kind: -splits["train"].get(kind, 0))
    rows = [["entities", *splits]]
    rows += [[short(kind) or "without a type", *(f"{own.get(kind, 0):,}" for own in splits.values())] for kind in types]
    yield from table(rows)


def _bar(count: float, most: float) -> str:
    """A bar; of anything above 0 at least its thinnest."""
    return "█" * max(round(_BAR * count / most), count > 0) if most else ""


def short(name: str) -> str:
    """A name that leaves room for others."""
    line = name.replace("\n", "↵")
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> Lines:
    """Lines of columns as wide as their widest cell.

    Args:
        left: columns that begin at the left; others end at the right.
    """
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{cell:<{w}}" if k in left else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
