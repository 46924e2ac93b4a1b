"""Conditions under which two runs of a seed are a pair: they started alike, under the same code. No torch here."""

from __future__ import annotations

from collections.abc import Mapping

OF_START = ("backbone_init", "projection_init", "batches")
"""Hashes of what two runs of a seed must have in common to be a pair."""
RESOLUTION = 1e-7
"""Relative: differences that vary by less do so by float32's rounding."""
CODE = "the version of losslab's code"


def unequal_start(own: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Differences between two runs of a seed, which are then no pair: a hash out of OF_START, or losslab's code. The
    hash of the projection is missing from older records, and where a loss needs another number of outputs than there
    are classes: where only one record has it, it is not compared.

    Args:
        own, other: the hashes of the two records.
    """
    optional = {"projection_init"} - (own.keys() & other.keys())
    found = [key for key in OF_START if key not in optional and own.get(key) != other.get(key)]
    codes = {own.get("code"), other.get("code")} - {None}
    return found if len(codes) < 2 else [*found, CODE]
