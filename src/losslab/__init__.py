"""losslab: find out, honestly, which final loss a Transformer should be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from losslab.training.scoring.loading import Loaded

__version__ = "0.1.0"


def load(path: str | Path, *, checkpoint: str = "best", trust: Iterable[str] = ()) -> Loaded:
    """Rebuild tokenizer, model and loss from a run's folder, a checkpoint or an export; runs no code out of them.

    See `losslab.training.scoring.loading.load`.
    """
    from losslab.training.scoring import loading  # torch takes seconds to import; `losslab --help` must not wait for it

    return loading.load(path, checkpoint=checkpoint, trust=trust)
