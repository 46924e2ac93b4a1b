"""Targets that a trained run wrote: the description that `losslab translate --to` leaves beside its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DESCRIPTION = ".json"
"""Ends the name of the description of a file."""
_KEPT = ("run", "identity", "checkpoint", "checkpoint_sha256", "weights", "beams", "length_penalty")


def writer_of(file: Path) -> dict[str, Any] | None:
    """The run that wrote a file, its weights and its search; None of a file that no run wrote, or that has changed."""
    try:
        about = json.loads(file.with_name(file.name + DESCRIPTION).read_text(encoding="utf-8"))
        if not isinstance(about, dict) or about["sha256"] != _sha256(file):
            return None
        return {key: about[key] for key in _KEPT}
    except (OSError, ValueError, KeyError, RecursionError):
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
