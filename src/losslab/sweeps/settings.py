"""The keys of hydra.launcher, checked before anything starts. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.errors import UserError

_ON_ERROR = ("continue", "stop")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_SLOTS, _MOST_RETRIES = 1024, 100


@dataclass(frozen=True)
class LocalSettings:
    """Of conf/hydra/launcher/local.yaml."""

    slots: int | None
    """None: as many as the machine has room for."""
    on_error: str
    retries: int
    time_limit: float | None
    """Seconds."""

    @classmethod
    def of(cls, keys: dict[str, Any]) -> LocalSettings:
        """Raises UserError for a key that there is not, and for a value that makes no sense."""
        typed, known = ({f"hydra.launcher.{name}" for name in names} for names in (keys, cls.__annotations__))
        for key in sorted(typed - known):
            raise UserError(f"there is no key {key!r}: {nearest_key(key, known)}")
        for key in sorted(known - typed):
            raise UserError(f"{key} cannot be taken away")
        slots, retries, on_error = (keys[name] for name in ("slots", "retries", "on_error"))
        if slots != "auto" and not _is_whole(slots, 1, _MOST_SLOTS):
            raise UserError(f"hydra.launcher.slots must be auto or a number from 1 to {_MOST_SLOTS}, not {slots!r}")
        if not _is_whole(retries, 0, _MOST_RETRIES):
            raise UserError(f"hydra.launcher.retries must be a number from 0 to {_MOST_RETRIES}, not {retries!r}")
        if on_error not in _ON_ERROR:
            raise UserError(f"hydra.launcher.on_error cannot be {on_error!r}: {nearest(str(on_error), _ON_ERROR)}")
        limit = _seconds(keys["time_limit"])
        return cls(None if slots == "auto" else int(slots), str(on_error), int(retries), limit)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(limit: Any) -> float | None:
    if limit is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(limit).strip())
    if not found or not float(found[1]):
        raise UserError(f"hydra.launcher.time_limit must be seconds, or such as 90m or 2h, not {limit!r}")
    return float(found[1]) * _UNITS[found[2]]
