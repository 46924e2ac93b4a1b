"""Rebuild a trained network."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.api.surroundings import current_folder

if TYPE_CHECKING:
    from losslab.training.scoring.loading import Loaded


def load_network(path: Path, *, checkpoint: str, trust: Iterable[str], weights: str = "raw") -> Loaded:
    """See `losslab.load`."""
    names = [trust] if isinstance(trust, str) else list(trust)
    with current_folder(searched=bool(names)), warnings.catch_warnings():
        # Lightning imports tqdm's bar for notebooks, which nothing here shows.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from losslab.training.scoring import loading  # torch takes seconds to import

        return loading.load(path, checkpoint=checkpoint, trust=names, weights=weights)
