"""Frames of sound: logarithms of the energy in bands of the mel scale."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-10
"""The least energy that has a logarithm of its own: silence has this one."""


def log_mel(samples: NDArray[np.float64], rate: int, *, mels: int, window: int, hop: int) -> NDArray[np.float64]:
    """Frames [T, mels] of samples [n] in [−1, 1]: natural logarithms of the energy of each band.

    Frame t reads the samples from t · hop on, `window` of them under a periodic Hann window, filled up with zeros to
    the next power of two for the Fourier transform. T = 1 + (n − window) // hop: what is left over is not read. Bands
    are triangles between neighbouring points of `mels + 2` equally spaced ones from 0 to rate / 2 on the mel scale,
    2595 log₁₀(1 + f / 700) (O'Shaughnessy 1987; HTK).

    Args:
        rate: samples a second.
        window, hop: samples.

    Raises:
        ValueError: for fewer samples than a window has, and for so many bands that one lies between two frequencies.
    """
    if len(samples) < window:
        raise ValueError(f"it has {len(samples):,} samples, fewer than the {window:,} of one window")
    size = 1 << (window - 1).bit_length()
    bands = filterbank(mels, size, rate)
    parts = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.square(np.abs(np.fft.rfft(parts * hann, n=size, axis=1)))
    found: NDArray[np.float64] = np.log(np.maximum(power @ bands, FLOOR))
    return found


@lru_cache(maxsize=8)
def filterbank(mels: int, size: int, rate: int) -> NDArray[np.float64]:
    """[size // 2 + 1, mels]: the share of each frequency of a transform of `size` samples in each band.

    Raises:
        ValueError: for so many bands that one has none.
    """
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * (rate / size)
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    found: NDArray[np.float64] = np.maximum(np.minimum(rising, falling), 0)
    empty = int((found.sum(axis=0) == 0).sum())
    if empty:
        raise ValueError(
            f"{empty} of data.source.mels={mels} bands are narrower than the {rate / size:.1f} Hz between two "
            f"frequencies at {rate:,} Hz: give fewer"
        )
    return found
