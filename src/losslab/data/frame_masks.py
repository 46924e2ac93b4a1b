"""Frames and bands of train that are hidden at random (SpecAugment: Park et al. 2019, arXiv:1904.08779)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FrameMasks:
    """Stretches of frames, and of bands, that become 0: the mean of train.

    Args:
        time_masks: how many stretches of frames; each has from 0 to `time_mask_length` of them, and at most half of
            the utterance.
        frequency_masks: how many stretches of bands; each has from 0 to `frequency_mask_width` of them.
        bands: values of a frame before frames are stacked: a band is hidden in all frames of a stack.
    """

    time_masks: int
    time_mask_length: int
    frequency_masks: int
    frequency_mask_width: int
    bands: int

    def __call__(self, frames: Tensor, draws: np.random.Generator) -> Tensor:
        """Frames [T, F] with some of them hidden."""
        hidden = frames.clone()
        for _ in range(self.time_masks):
            hidden[_stretch(len(frames), min(self.time_mask_length, len(frames) // 2), draws)] = 0
        parts = hidden.view(len(frames), -1, self.bands)
        for _ in range(self.frequency_masks):
            parts[:, :, _stretch(self.bands, min(self.frequency_mask_width, self.bands), draws)] = 0
        return hidden


def _stretch(count: int, longest: int, draws: np.random.Generator) -> slice:
    length = int(draws.integers(longest + 1))
    start = int(draws.integers(count - length + 1))
    return slice(start, start + length)
