"""Utterances of made-up sounds: each digit a spectrum with a peak of its own, held for a random time, with noise."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPEAKERS = ("ann", "bob", "cid", "dan")
WIDTH = 8


def frames_of(digits: str, draws: np.random.Generator) -> NDArray[np.float32]:
    """[T, WIDTH]: three to six frames a digit, one or two of silence before each, and after the last."""
    parts = []
    for digit in digits:
        parts.append(np.zeros((draws.integers(1, 3), WIDTH)))
        spectrum = 3 * np.exp(-((np.arange(WIDTH) - int(digit)) ** 2))
        parts.append(np.repeat(spectrum[None], draws.integers(3, 7), axis=0))
    whole = np.concatenate([*parts, np.zeros((1, WIDTH))])
    return (whole + 0.2 * draws.standard_normal(whole.shape)).astype(np.float32)


def write_utterances(folder: Path, count: int = 300, *, seed: int = 0, symbols: int = 4, longest: int = 4) -> Path:
    """A table utterances.jsonl with columns frames, text and speaker, and its .npy files in a folder beside it."""
    draws = np.random.default_rng(seed)
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        digits = "".join(map(str, draws.integers(0, symbols, draws.integers(1, longest + 1))))
        np.save(folder / "frames" / f"{i}.npy", frames_of(digits, draws))
        rows.append({"frames": f"frames/{i}.npy", "text": digits, "speaker": SPEAKERS[i % len(SPEAKERS)]})
    path = folder / "utterances.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_sound(
    path: Path, samples: NDArray[np.float64], rate: int = 8000, *, channels: int = 1, depth: int = 2
) -> Path:
    """A .wav of samples in [−1, 1)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(depth)
        file.setframerate(rate)
        scaled = np.clip(np.round(samples * 2 ** (8 * depth - 1)), -(2 ** (8 * depth - 1)), 2 ** (8 * depth - 1) - 1)
        file.writeframes(scaled.astype({1: "<i1", 2: "<i2", 4: "<i4"}[depth]).tobytes())
    return path
