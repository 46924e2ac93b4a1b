"""losslab: find out, honestly, which final loss a Transformer should be trained on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losslab.api.calls import load, runs, sweep, train
    from losslab.api.comparison import Comparison, compare
    from losslab.api.planning import Plan, plan
    from losslab.api.run import Run, RunFailed, Sweep
    from losslab.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Plan",
    "Run",
    "RunFailed",
    "Sweep",
    "UserError",
    "compare",
    "load",
    "plan",
    "runs",
    "sweep",
    "train",
]

_PLACES = {
    "losslab.api.calls": ("load", "runs", "sweep", "train"),
    "losslab.api.comparison": ("Comparison", "compare"),
    "losslab.api.planning": ("Plan", "plan"),
    "losslab.api.run": ("Run", "RunFailed", "Sweep"),
    "losslab.errors": ("UserError",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: `losslab --help` waits for none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'losslab' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
