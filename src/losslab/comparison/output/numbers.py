"""Probabilities as people read them; rounding never contradicts a verdict."""

from __future__ import annotations

import math

from losslab.comparison.simultaneous import LEVEL
from losslab.numbers import true_to


def p_value(value: float) -> str:
    """Four decimals, or more where these would put it on the other side of 0.05; and never a zero."""
    if value < 1e-4:
        return "< 0.0001"
    if not math.isfinite(value):
        return "—"
    return true_to([value], [LEVEL], up_to=True)[0]
