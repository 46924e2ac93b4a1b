"""Packages that a format needs, and losslab does without."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from losslab.errors import UserError


def need(extra: str, *packages: str, format: str) -> Any:
    """Import packages, and return the first.

    Args:
        extra: the extra of losslab that installs them.
        format: the value of --format.

    Raises:
        UserError: for the first that is missing.
    """
    try:
        first, *_ = [import_module(package) for package in packages]
    except ImportError as error:
        raise UserError(
            f"--format {format} needs the package {error.name or packages[0]}: pip install 'losslab[{extra}]'"
        ) from None
    return first
