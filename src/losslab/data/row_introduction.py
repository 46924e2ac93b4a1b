"""Lines that introduce rows: where they come from, how they were split, and what was left out or cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from losslab.contracts import DataInfo
from losslab.data.long_rows import LongRows

_FEW_COPIES = 0.01
"""Share of rows from which copies are worth a note."""


def introduce_rows(
    meta: Mapping[str, Any], told: str, info: DataInfo, long: LongRows, bare: Mapping[str, int]
) -> Iterator[tuple[str, bool]]:
    """Lines, each with whether it is a note that a person should see apart.

    Args:
        meta: the description of the encoded rows.
        told: one line about the source.
        bare: split → rows without a position to predict.
    """
    yield f"rows   {told}", False
    yield f"       {counted(meta['rows'])} rows; splits: {meta['how']}", False
    if meta["skipped"]:
        skipped = " · ".join(f"{count:,} {what}" for what, count in meta["skipped"].items())
        yield f"       left out: {skipped}", False
    for split, copies in meta["copies"].items():
        if copies:
            line = f"{copies:,} of {meta['rows'][split]:,} {split} rows have inputs that an earlier split has as well"
            yield line, copies > _FEW_COPIES * meta["rows"][split]
    for split, shared in meta["grouped"].items():
        if shared:
            yield (
                f"{shared:,} of {meta['rows'][split]:,} {split} rows are of a group that an earlier split has, too",
                True,
            )
    if any(meta["truncated"].values()):
        cut = {split: count for split, count in meta["truncated"].items() if split not in meta.get("longer", ())}
        yield f"{counted(cut)} sequences are longer than data.context={long.context} and were cut off", True
    yield from long.introduction(meta)
    sizes = counted({split: size.positions for split, size in info.splits.items()})
    vocabulary = f", vocabulary {info.vocab_size:,}" if info.vocab_size else ""
    classes = f", {info.num_classes:,} classes" if info.num_classes else ""
    yield f"data   {sizes} positions{vocabulary}{classes}", False
    for split, count in bare.items():
        if count:
            yield f"{count:,} of {meta['rows'][split]:,} {split} rows have nothing to predict within the context", True


def counted(numbers: Mapping[str, int]) -> str:
    """`90 train · 5 val · 5 test`."""
    return " · ".join(f"{number:,} {split}" for split, number in numbers.items())
