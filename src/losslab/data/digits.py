"""Handwritten digits that come with scikit-learn: 1,797 images of 8 × 8 pixels, cut into patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Task
from losslab.data.row_splits import hash64, split_by_label
from losslab.data.samples import SamplesDataModule
from losslab.errors import UserError

_SIDE, _BRIGHTEST = 8, 16
_PLACE = Path("datasets", "data", "digits.csv.gz")
"""The file in scikit-learn's folder: 64 pixels and the digit, an image a line."""


class DigitsDataModule(SamplesDataModule):
    """Images as `frames`, float [T, F]: T patches, row by row, of F brightnesses from 0 to 1.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.

    Args:
        patch: side of a patch in pixels: 1, 2, 4 or 8.
        val_fraction, test_fraction: share of the images; a hash of the pixels decides, within each digit.
        batch_size: images in one optimizer step, over all devices and micro-batches.
        val_batch_size: images evaluated at once on each device.
        num_workers: processes that make batches.

    Raises:
        UserError: for other patches and shares, and where scikit-learn is missing.
    """

    num_classes = 10
    class_names = tuple(map(str, range(10)))

    def __init__(
        self,
        *,
        patch: int = 2,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        batch_size: int = 32,
        val_batch_size: int = 256,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers)
        if patch <= 0 or _SIDE % patch:
            raise UserError(f"data.patch must divide the {_SIDE} pixels of a side (1, 2, 4 or 8), not {patch}")
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UserError(
                "data.val_fraction and data.test_fraction must be above 0, and leave some images to train on"
            )
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.patch = patch
        self.frame_width = patch**2
        self.path = _find()

    def check_task(self, task: Task) -> None:
        """Raises UserError for a task that does not classify."""
        if "label" not in task.columns.values() or task.joined:
            raise UserError(f"{chosen('task', task)} does not read images with one label: task=classification")

    def files(self) -> Mapping[str, Path | Sequence[Path]]:
        return {"data.images": self.path}

    @cached_property
    def images(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """[N, 8, 8] brightnesses from 0 to 16, and [N] digits."""
        table = np.loadtxt(self.path, delimiter=",", dtype=np.int64)
        return table[:, :-1].reshape(-1, _SIDE, _SIDE), table[:, -1]

    def datasets(self) -> Mapping[str, Sequence[Any]]:
        images, digits = self.images
        split_of = split_by_label([hash64(image.tolist()) for image in images], list(map(str, digits)), self.shares)
        frames = self.frames(images)
        return {
            split: [
                {"frames": frames[i], "label": int(digits[i])} for i, chosen in enumerate(split_of) if chosen == split
            ]
            for split in self.splits
        }

    def frames(self, images: NDArray[Any]) -> Tensor:
        """[N, T, F] float32 out of [N, 8, 8]."""
        along = _SIDE // self.patch
        parts = torch.from_numpy(images).float().div(_BRIGHTEST).reshape(-1, along, self.patch, along, self.patch)
        return parts.transpose(2, 3).reshape(len(images), along**2, self.patch**2)

    def told(self) -> str | None:
        patches = (_SIDE // self.patch) ** 2
        return f"{_SIDE} × {_SIDE} images of digits, {patches} patches of {self.patch**2} pixels each"


def _find() -> Path:
    """The file of the images; scikit-learn, whose import takes seconds, is only looked for."""
    found = find_spec("sklearn")
    path = None if found is None or found.origin is None else Path(found.origin).parent / _PLACE
    if path is None or not path.is_file():
        raise UserError("data=digits needs the package scikit-learn: pip install 'losslab[digits]'")
    return path
