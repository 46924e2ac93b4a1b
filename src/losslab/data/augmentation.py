"""Changes to the rows of train, which no split to evaluate on sees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from losslab.data.columns import TOKENS, Columns, target_of
from losslab.data.label_noise import NoiseKind
from losslab.errors import UserError

_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The keys under `data.augment`, each off by its default.

    Draws for each sample come from the stream `augmentation`, a function of the run's seed and the
    sample's place in the endless order of train: the same under every loss, on any number of ranks and workers, and
    after a resume.

    Args:
        deletion: probability with which each token of a text is left out; at least one stays, and the end of text does
            (token deletion: Lewis et al. 2020, arXiv:1910.13461).
        label_noise: probability with which a row's label is flipped, once and for all.
        label_noise_kind: `losslab.data.label_noise.NoiseKind`.
        label_noise_seed: None: the run's, so that seeds flip different rows.
    """

    deletion: float = 0.0
    label_noise: float = 0.0
    label_noise_kind: NoiseKind = "uniform"
    label_noise_seed: int | None = None

    @classmethod
    def of(cls, keys: Any) -> Augmentation:
        """Check the keys of a configuration. Raises UserError for names and values that cannot be."""
        if not isinstance(keys, Mapping | None):
            raise UserError(f"data.augment must be keys with values, {{deletion: 0.1}}, not {keys!r}")
        keys = dict(keys or {})
        known = [field.name for field in fields(cls)]
        if strangers := [key for key in keys if key not in known]:
            raise UserError(f"there is no key 'data.augment.{strangers[0]}': the keys are {', '.join(known)}")
        for name in ("deletion", "label_noise"):
            _check_share(name, keys.get(name, 0.0))
        kind, seed = keys.get("label_noise_kind", "uniform"), keys.get("label_noise_seed")
        if kind not in get_args(NoiseKind):
            raise UserError(f"data.augment.label_noise_kind must be {' or '.join(get_args(NoiseKind))}, not {kind!r}")
        if seed is not None and (not _is_whole(seed) or not 0 <= seed <= _LARGEST_SEED):
            raise UserError(f"data.augment.label_noise_seed must be a whole number from 0 on, not {seed!r}")
        if not keys.get("label_noise") and (kind != "uniform" or seed is not None):
            name = "label_noise_kind" if kind != "uniform" else "label_noise_seed"
            raise UserError(f"data.augment.{name} goes with data.augment.label_noise, which is 0")
        return cls(**keys)

    def check_columns(self, columns: Columns, task: str) -> None:
        """Refuse what a task's columns do not have. Raises UserError naming the task."""
        target = target_of(columns)
        if self.label_noise and (target is None or columns[target] != "label"):
            raise UserError(
                f"data.augment.label_noise flips the one label of each row, and the target of task={task} is none: "
                "leave it out"
            )
        if self.deletion and not any(kind in TOKENS for kind in columns.values()):
            raise UserError(f"data.augment.deletion leaves out tokens, and task={task} reads none: leave it out")

    def settings(self) -> dict[str, Any]:
        """The keys that differ from their defaults, for the record."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


class RowChanges:
    """Carries out an Augmentation on rows.

    Args:
        columns: the task's.
        end: the token that ends a text, if there is one.
        seed: the data's.
    """

    def __init__(self, augmentation: Augmentation, columns: Columns, end: int | None, seed: int) -> None:
        self.augmentation = augmentation
        self.columns = columns
        self.end = end
        digest = hashlib.sha256(f"{seed}/augmentation".encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
        self.active = bool(augmentation.deletion)

    def __call__(self, row: dict[str, Any], place: int) -> dict[str, Any]:
        """The row as it is trained on at a place of the endless order of train."""
        if not self.active:
            return row
        draws = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, place, 0]))
        kept = {name: self._kept(row[name], draws) for name, kind in self.columns.items() if kind in TOKENS}
        words = next((name for name, kind in self.columns.items() if kind == "words"), None)
        # A tag belongs to its word.
        kept |= {name: kept[words] for name, kind in self.columns.items() if kind == "tags" and words is not None}
        return row | {name: row[name][torch.from_numpy(mask)] for name, mask in kept.items()}

    def _kept(self, tokens: Tensor, draws: np.random.Generator) -> Any:
        """bool [T]: the tokens that stay."""
        mask = draws.random(len(tokens)) >= self.augmentation.deletion
        ended = len(tokens) > 0 and self.end is not None and int(tokens[-1]) == self.end
        length = len(tokens) - ended
        if length and not mask[:length].any():
            mask[draws.integers(length)] = True
        if ended:
            mask[-1] = True
        return mask


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"data.augment.{name} must be a probability from 0 to 1, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
