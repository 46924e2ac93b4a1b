"""Files of frames: arrays (.npy), and sound (.wav), of which frames are made."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.data.log_mel import log_mel
from losslab.errors import UserError

AUDIO_FILE = "audio.json"
"""The artifact that says how frames were made of files."""
SUFFIXES = (".npy", ".wav")
_BYTES = 2
"""The size of a sample of 16-bit PCM."""


class Read(NamedTuple):
    """The frames of a file."""

    frames: NDArray[np.float32]
    """[T, F]."""
    rate: int | None
    """Samples a second; None of arrays."""


@dataclass(frozen=True, kw_only=True)
class FrameReader:
    """The way from a file to frames.

    Args:
        mels: of .wav: bands of the mel scale.
        window_ms, hop_ms: of .wav: milliseconds of a window, and from the beginning of one to that of the next.
        stack: neighbouring frames that become one frame, one behind the other (Sak et al. 2015, arXiv:1507.06947); the
            last one is filled up with the last frame.
        rate: of .wav: samples a second that every file must have; None: any.
        width: F that every file must have, before frames are stacked; None: any.

    Raises:
        UserError: for numbers that cannot be.
    """

    mels: int = 40
    window_ms: float = 25.0
    hop_ms: float = 10.0
    stack: int = 1
    rate: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name in ("mels", "window_ms", "hop_ms", "stack", "rate", "width"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"data.source.{name} must be above 0, not {value:g}")

    @classmethod
    def restored(cls, artifacts: Mapping[str, str]) -> FrameReader | None:
        """The reader that `to_artifact` wrote; None where there is none."""
        return cls(**json.loads(artifacts[AUDIO_FILE])) if AUDIO_FILE in artifacts else None

    def to_artifact(self) -> str:
        """Plain values for `AUDIO_FILE`."""
        return json.dumps(asdict(self))

    def read(self, path: Path) -> Read:
        """The frames of a file.

        Raises:
            ValueError: for a file that cannot be read or used; its words begin with what is wrong.
        """
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"{path} is no file of frames: {' and '.join(SUFFIXES)} are read")
        if not path.is_file():
            raise ValueError(f"{path} does not exist")
        try:
            found = Read(_array(path), None) if suffix == ".npy" else self._sound(path)
        except (OSError, EOFError, wave.Error) as error:
            raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if not np.isfinite(found.frames).all():
            raise ValueError(f"{path} holds numbers that are not finite (NaN or infinity)")
        if self.width is not None and found.frames.shape[1] != self.width:
            raise ValueError(
                f"{path} has {found.frames.shape[1]} values a frame, and others have {self.width}: all must agree"
            )
        return found

    def stacked(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """[⌈T / stack⌉, stack · F]."""
        missing = -len(frames) % self.stack
        whole = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing else frames
        return whole.reshape(-1, self.stack * frames.shape[1])

    def _sound(self, path: Path) -> Read:
        with wave.open(str(path), "rb") as file:
            channels, depth, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            content = file.readframes(file.getnframes())
        if channels != 1:
            raise ValueError(f"it has {channels} channels, and one is read: mix them down to mono")
        if depth != _BYTES:
            raise ValueError(f"its samples have {8 * depth} bits, and 16 are read (PCM)")
        if self.rate is not None and rate != self.rate:
            raise ValueError(f"it has {rate:,} samples a second, and others have {self.rate:,}: resample it")
        samples = np.frombuffer(content, dtype="<i2").astype(np.float64) / 2**15
        window, hop = (max(1, round(rate * ms / 1000)) for ms in (self.window_ms, self.hop_ms))
        return Read(log_mel(samples, rate, mels=self.mels, window=window, hop=hop).astype(np.float32), rate)


def _array(path: Path) -> NDArray[np.float32]:
    array = np.load(path, allow_pickle=False)
    if array.ndim != 2 or not len(array) or not array.shape[1] or array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype} {list(array.shape)}, and frames are numbers [T, F], at least one")
    found: NDArray[np.float32] = array.astype(np.float32)
    return found


def bands_of(meta: Mapping[str, Any]) -> int | None:
    """The values of a frame of stored rows, before frames were stacked; None where they have no frames."""
    reader = FrameReader.restored(meta["artifacts"])
    width: int | None = meta.get("frame_width")
    return width if reader is None else reader.width
