"""Numbers as people read them; rounding never contradicts a verdict. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float, *, sign: bool = False) -> str:
    """Four decimals; a dash where there is nothing, and no sign before a zero."""
    if not math.isfinite(value):
        return "—"
    return f"{value:+.4f}" if sign and round(value, 4) else f"{value:z.4f}"


def interval(low: float, high: float, margin: float | None = None) -> str:
    """Four decimals, or more where these would put an end on the other side of zero or of the margin."""
    if math.isnan(low):
        return ""
    marks = [0.0] if margin is None else [0.0, margin, -margin]
    return f"[{', '.join(true_to([low, high], marks, sign=True))}]"


def true_to(
    values: Sequence[float], marks: Sequence[float], *, sign: bool = False, decimals: int = 4, up_to: bool = False
) -> list[str]:
    """The values in so many decimals that what is read lies on the same side of each mark as the values do.

    Args:
        decimals: at least so many.
        up_to: a value that is the mark lies below it.
    """

    def side(value: float, mark: float) -> int:
        return -1 if up_to and value == mark else (value > mark) - (value < mark)

    told: list[str] = []
    for places in range(decimals, 17):
        told = [f"{value:{'+' if sign else ''}.{places}f}" for value in values]
        if all(side(float(t), m) == side(v, m) for t, v in zip(told, values, strict=True) for m in marks):
            break
    return told
