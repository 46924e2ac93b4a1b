"""Callbacks that end training before its budget does: which one did, and why."""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, Timer

from losslab.config.callbacks import OBSERVERS


def find_stop(callbacks: Mapping[str, pl.Callback]) -> tuple[str, str]:
    """The name of the callback that set `trainer.should_stop`, and its reason. Lightning's own say it themselves; of
    others, those that may have are named."""
    for name, callback in callbacks.items():
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message is not None:
            return name, callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
    for name, callback in callbacks.items():
        remaining = callback.time_remaining() if isinstance(callback, Timer) else None
        if remaining is not None and remaining <= 0:
            return name, "its time was over"
    others = [
        name
        for name, callback in callbacks.items()
        if not isinstance(callback, EarlyStopping | Timer) and _path(callback) not in OBSERVERS
    ]
    return " or ".join(others) or "a callback", "it set trainer.should_stop"


def not_repeatable(callbacks: Mapping[str, pl.Callback]) -> list[str]:
    """The callbacks whose work depends on a clock, or that say so themselves (`repeatable = False`)."""
    return [
        name
        for name, callback in callbacks.items()
        if isinstance(callback, Timer) or getattr(callback, "repeatable", True) is False
    ]


def _path(callback: pl.Callback) -> str:
    """The path under which Lightning shows its own classes."""
    kind = type(callback)
    return f"lightning.pytorch.callbacks.{kind.__name__}" if kind.__module__.startswith("lightning.") else ""
