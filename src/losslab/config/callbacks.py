"""Callbacks in a configuration: nodes by a name of one's own, and which of them belong to a run's identity."""

from __future__ import annotations

from typing import Any

OBSERVERS = frozenset(
    f"lightning.pytorch.callbacks.{name}"
    for name in (
        "DeviceStatsMonitor LearningRateMonitor ModelCheckpoint ModelSummary OnExceptionCheckpoint ProgressBar "
        "RichModelSummary RichProgressBar TQDMProgressBar ThroughputMonitor"
    ).split()
)
"""Lightning's callbacks that change nothing of what is trained. One's own says so itself: `observes_only = True`."""


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The callbacks that may change a run's numbers, which therefore belong to its identity. Their classes are
    imported."""
    return {name: node for name, node in (config.get("callbacks") or {}).items() if not observes_only(node)}


def observes_only(node: dict[str, Any]) -> bool:
    """Whether the class of a node is in the table of Lightning's, or declares that it only observes."""
    from losslab.config.binding import import_target  # which imports a person's code: only where it is needed

    target = node["_target_"]
    return target in OBSERVERS or getattr(import_target(target, "callbacks"), "observes_only", False) is True
