"""Checkpoint files: written atomically, loaded without running anything that is in them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from losslab.records import sync_folder, write_atomic

FOLDER = "checkpoints"
LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicCheckpointIO(CheckpointIO):
    """Beside the target, fsync, rename. Lightning's own goes through the system's temporary folder, whose move across
    file systems is a copy that a kill can tear."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return content

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give a finished checkpoint a second name, atomically and without a second copy where links exist."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        write_atomic(target, source.read_bytes())
        return
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # a rename between two names of one file does nothing
    sync_folder(target.parent)


def read_state(path: Path) -> dict[str, Any] | None:
    """Our own part of a checkpoint (step, best, latest), without reading its weights; None where there is none."""
    if not path.is_file():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state: dict[str, Any] = content["losslab"]
    return state


def load_weights(path: Path, module: torch.nn.Module) -> None:
    """Put a checkpoint's weights into the LightningModule they came from."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(content["state_dict"])
