"""Conditions under which runs are compared: what distinguishes losses, what runs must share, and which two of one seed
are a pair. No torch here."""

from __future__ import annotations

from collections.abc import Mapping

MUST_MATCH = ("data.", "trainer.max_steps", "trainer.precision", "task.", "init_from")
"""Runs that differ here answer different questions."""
OF_LOSS = ("loss.", "regularizers.")
"""Settings that distinguish losses; of all others each loss takes its best."""
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
