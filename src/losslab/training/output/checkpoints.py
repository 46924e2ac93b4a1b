"""Checkpoint files: written atomically, checked when they are read, and loaded without running anything in them."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from losslab.errors import UserError, error_sentence
from losslab.files import TEMPORARY, replacing, sync_folder, write_atomic
from losslab.run_folder import RunFolder
from losslab.training.output.checkpoint_parts import wrong_part
from losslab.training.output.messages import note
from losslab.training.output.streaming import stream

_OLDER = "step-*.ckpt"
_PICKLE = b"\x80"
FOR_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
_PARTS = ("state_dict", "losslab", "config")


class Damaged(UserError):
    """A checkpoint file that is torn, altered, or none at all."""


@dataclass
class ReadCheckpoint:
    """A checkpoint that was read from its file.

    It is handed over once: who takes the content over holds the only copy, which is as large as the training state.
    """

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        step: int = self.content["losslab"]["step"]
        return step

    def hand_over(self) -> dict[str, Any]:
        content, self.content = self.content, {}
        return content


class AtomicCheckpointIO(CheckpointIO):
    """Write beside the target, fsync, rename. Lightning's own goes through the system's temporary folder, whose move
    across file systems is a copy that a kill can tear.

    Args:
        resumed: the checkpoint that training goes on from, which is not read a second time.
    """

    def __init__(self, resumed: ReadCheckpoint | None = None) -> None:
        self._resumed = resumed
        self._readable = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Checked once a session: what cannot be read back must not be trained on for hours.
        write_checkpoint(Path(path), checkpoint, check=not self._readable)
        self._readable = True

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        if self._resumed is not None and self._resumed.path == Path(path):
            resumed, self._resumed = self._resumed, None
            return resumed.hand_over()
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def write_checkpoint(path: Path, content: dict[str, Any], *, check: bool = False) -> None:
    """Stream a whole checkpoint to its file, atomically; no copy of it is made in memory.

    Args:
        check: also read it back before it takes the name.

    Raises:
        UserError: when what was written could not be loaded again; an earlier file is kept.
    """
    with replacing(path) as file:
        stream(content, file)
        if check:
            file.flush()
            _check_readable(file.name)


def _check_readable(path: str) -> None:
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "a checkpoint of this run would hold more than tensors and plain values, and could not be continued from "
            f"({_foreign(error)}): keep those out of the states of your optimizer and loss"
        ) from None


def _foreign(error: pickle.UnpicklingError) -> str | None:
    """The class that a pickle names beside tensors and plain values, if that is why it was not loaded."""
    return next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU: tensors and plain values, never code.

    Raises:
        Damaged: when the file is torn or altered (each part of it carries a CRC).
        UserError: when it is missing, or holds pickled objects, which could run code.
    """
    try:
        with path.open("rb") as file:
            if file.read(1) == _PICKLE:
                raise UserError(f"{path} is a bare pickle, which can run code, and no checkpoint of losslab: refused")
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise Damaged(f"{path} is damaged: its part {bad} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if _foreign(error) is None:
            raise Damaged(f"{path} is damaged: it holds no checkpoint") from None
        raise UserError(
            f"{path} holds more than tensors and plain values, which could run code: refused ({_foreign(error)})"
        ) from None
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError, KeyError) as error:
        if error_sentence(error).startswith("out of memory"):
            raise  # that says nothing about the file
        raise Damaged(f"{path} is damaged: {' '.join(str(error).split())}") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place outside the file, out of a damaged directory
            raise
        raise Damaged(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in _PARTS):
        raise Damaged(f"{path} is no checkpoint of losslab: it lacks {', '.join(_PARTS)}")
    if wrong := wrong_part(content):
        raise Damaged(f"{path} is damaged: its {wrong} is not what losslab writes there")
    return content


def amend(path: Path, state: dict[str, Any], buffers: dict[str, torch.Tensor]) -> None:
    """Replace the state of the run in a checkpoint beside Lightning's part, and some of its buffers."""
    content = read_checkpoint(path)
    content["losslab"] = state
    content["state_dict"] |= {name: value.detach().cpu().clone() for name, value in buffers.items()}
    write_checkpoint(path, content)


def is_whole(path: Path, step: float) -> bool:
    """Whether a checkpoint can be read, and is of that step."""
    try:
        return bool(read_checkpoint(path)["losslab"]["step"] == step)
    except UserError:
        return False


def newest(run: RunFolder) -> ReadCheckpoint | None:
    """The newest checkpoint of a run that loads; None where there is none at all.

    Damaged ones are named and passed over.

    Raises:
        UserError: when none loads, and when one holds pickled objects.
    """
    folder = run.checkpoints
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: move it away to train from step 0")
    reasons: list[str] = []
    chosen = _loadable(run.last, reasons)
    for path in (*older(run), run.best, run.stable) if chosen is None else ():
        other = _loadable(path, reasons)
        if other is not None and (chosen is None or other.step > chosen.step):
            chosen = other
    if chosen is None and reasons:
        raise UserError(f"no checkpoint in {folder} loads ({reasons[0]}); delete that folder to train from step 0")
    if chosen is not None:
        for reason in reasons:
            note(f"{reason}; continuing from {chosen.path.name}")
    return chosen


def _loadable(path: Path, reasons: list[str]) -> ReadCheckpoint | None:
    if not path.is_file():
        return None
    try:
        content = read_checkpoint(path)
        if missing := [part for part in FOR_TRAINING if part not in content]:
            raise Damaged(f"{path} cannot be trained on from: it lacks {', '.join(missing)}")
        return ReadCheckpoint(path, content)
    except Damaged as error:
        reasons.append(str(error))
        return None


def older(run: RunFolder) -> list[Path]:
    """Checkpoints that `checkpoints.keep` keeps beside last.ckpt, newest first."""
    return sorted(run.checkpoints.glob(_OLDER), reverse=True)


def keep_newest(run: RunFolder, step: int, keep: int) -> None:
    """Give last.ckpt, of this step, a name that stays, and remove all but the newest `keep` such; 1 keeps last.ckpt."""
    current = _OLDER.replace("*", f"{step:010d}")
    if keep > 1:
        link(run.last, run.checkpoints / current)
    # Later ones are of a future that was given up, because something in it was damaged.
    kept = [path.name for path in older(run) if path.name <= current][:keep] if keep > 1 else []
    for path in older(run):
        if path.name not in kept:
            path.unlink()


def strip(path: Path, *, dry_run: bool) -> int:
    """Take out of a checkpoint what only training on needs; returns the bytes by which the file shrinks."""
    content = read_checkpoint(path)
    kept = {key: value for key, value in content.items() if key not in FOR_TRAINING}
    if kept.keys() == content.keys():
        return 0
    before = path.stat().st_size
    if dry_run:
        return before - stream(kept, None)
    write_checkpoint(path, kept)
    return before - path.stat().st_size


def link(source: Path, target: Path) -> None:
    """Give a finished checkpoint a second name, atomically and without a second copy where links exist."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        write_atomic(target, source.read_bytes())
        return
    try:
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # a rename between two names of one file does nothing
    sync_folder(target.parent)
