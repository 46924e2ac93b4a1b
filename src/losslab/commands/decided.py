"""Verdicts so far of sweeps that add seeds until they can decide, for `losslab status`. No torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.errors import UserError
from losslab.run_folder import SEQUENTIAL

if TYPE_CHECKING:
    from losslab.sequential.ledger import Ledger


def told_verdicts(folder: Path) -> list[str]:
    """A sentence for each loss of each such sweep that `folder` is or holds, or on a ledger that cannot be read."""
    told = []
    for sweep, ledger in _ledgers(folder):
        if isinstance(ledger, str):
            told.append(ledger)
            continue
        from losslab.sequential.told import told_standing

        name = "" if sweep == folder else f"{sweep.name}: "
        told += [f"{name}{told_standing(label, one, ledger.terms)}" for label, one in ledger.standings().items()]
    return told


def verdict_values(folder: Path) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "sweep": str(sweep),
            "loss": label,
            "baseline": ledger.terms.baseline,
            "metric": ledger.terms.metric,
            "verdict": one.verdict or None,
            "seeds": one.seeds,
            "max_seeds": ledger.terms.max_seeds,
            "difference": _number(one.mean),
            "low": _number(one.low),
            "high": _number(one.high),
            "left_out": {str(seed): why for seed, why in one.left_out},
        }
        for sweep, ledger in _ledgers(folder)
        if not isinstance(ledger, str)
        for label, one in ledger.standings().items()
    ]


def _ledgers(folder: Path) -> list[tuple[Path, Ledger | str]]:
    """Each sweep's folder with its ledger, or a sentence on why that cannot be read."""
    found: list[tuple[Path, Ledger | str]] = []
    for path in sorted((*folder.glob(SEQUENTIAL), *folder.glob(f"*/{SEQUENTIAL}"))):
        from losslab.sequential.ledger import Ledger  # with scipy, which most folders do not need

        try:
            ledger = Ledger.read(path.parent)
        except UserError as error:
            found.append((path.parent, str(error)))
        else:
            found += [(path.parent, ledger)] if ledger is not None else []
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
