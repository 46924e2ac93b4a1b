"""Changes to the rows of train, which no split to evaluate on sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from losslab.data.bpe_dropout import BpeDropout
from losslab.data.cells import Columns
from losslab.data.columns import TOKENS, target_of
from losslab.data.frame_masks import FrameMasks
from losslab.data.label_noise import NoiseKind
from losslab.data.tokenizer import make_tokenizer
from losslab.errors import UserError

_OF_TOKENS = ("deletion", "bpe_dropout", "masking", "word_deletion", "word_swap")
_OF_FRAMES = {"time_masks": "time_mask_length", "frequency_masks": "frequency_mask_width"}
"""Number of masks → the most that one hides."""
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
        bpe_dropout: probability with which a merge of a byte-level BPE is left out each time that texts are cut into
            tokens (`losslab.data.bpe_dropout`).
        masking: probability with which each token of a text is replaced by the mask token (token masking: ibid.), each
            word of a column of words by the unknown word.
        word_deletion: probability with which each word is left out; at least one stays (random deletion of EDA: Wei &
            Zou 2019, arXiv:1901.11196).
        word_swap: two words at random change places, this share of the number of words times, at least once (random
            swap of EDA).
        time_masks, time_mask_length, frequency_masks, frequency_mask_width: see `losslab.data.frame_masks.FrameMasks`.
        mixup: α of λ ~ Beta(α, α), drawn for each step: each sample is mixed with another (`losslab.data.mixup`).
        paraphrases: a table with other wordings of texts (`losslab.data.paraphrases`).
        paraphrasing: probability with which a text that has some is replaced by one of them.
        label_noise: probability with which a row's label is flipped, once and for all.
        label_noise_kind: `losslab.data.label_noise.NoiseKind`.
        label_noise_seed: None: the run's, so that seeds flip different rows.
    """

    deletion: float = 0.0
    bpe_dropout: float = 0.0
    masking: float = 0.0
    word_deletion: float = 0.0
    word_swap: float = 0.0
    time_masks: int = 0
    time_mask_length: int = 10
    frequency_masks: int = 0
    frequency_mask_width: int = 8
    mixup: float = 0.0
    paraphrases: str | None = None
    paraphrasing: float = 0.5
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
        for name in (*_OF_TOKENS, "paraphrasing", "label_noise"):
            _check_share(name, keys.get(name, 0.0))
        for name, largest in _OF_FRAMES.items():
            for key, least in ((name, 0), (largest, 1)):
                if not _is_whole(value := keys.get(key, 1)) or value < least:
                    raise UserError(f"data.augment.{key} must be a whole number from {least} on, not {value!r}")
            if not keys.get(name) and keys.get(largest, getattr(cls, largest)) != getattr(cls, largest):
                raise UserError(f"data.augment.{largest} goes with data.augment.{name}, which is 0")
        paraphrases = keys.get("paraphrases")
        if paraphrases is not None and not isinstance(paraphrases, str):
            raise UserError(f"data.augment.paraphrases must be FILE|GLOB, not {paraphrases!r}")
        if paraphrases is None and keys.get("paraphrasing", cls.paraphrasing) != cls.paraphrasing:
            raise UserError("data.augment.paraphrasing goes with data.augment.paraphrases=FILE, which is not given")
        mixup = keys.get("mixup", 0.0)
        if isinstance(mixup, bool) or not isinstance(mixup, int | float) or not 0 <= mixup < math.inf:
            raise UserError(f"data.augment.mixup must be 0 (off) or α of Beta(α, α), above 0, not {mixup!r}")
        kind, seed = keys.get("label_noise_kind", "uniform"), keys.get("label_noise_seed")
        if kind not in get_args(NoiseKind):
            raise UserError(f"data.augment.label_noise_kind must be {' or '.join(get_args(NoiseKind))}, not {kind!r}")
        if seed is not None and (not _is_whole(seed) or not 0 <= seed <= _LARGEST_SEED):
            raise UserError(f"data.augment.label_noise_seed must be a whole number from 0 on, not {seed!r}")
        if not keys.get("label_noise") and (kind != "uniform" or seed is not None):
            name = "label_noise_kind" if kind != "uniform" else "label_noise_seed"
            raise UserError(f"data.augment.{name} goes with data.augment.label_noise, which is 0")
        return cls(**keys)

    def check_tokenizer(self, choice: str) -> None:
        """Refuse a tokenizer that cannot do what is asked. Raises UserError."""
        if self.bpe_dropout and choice != "bpe":
            BpeDropout(make_tokenizer(choice, 0, []))

    def text_column(self, columns: Columns) -> str:
        """The one column of text, where there are paraphrases. Raises UserError for none, or several."""
        texts = [name for name, kind in columns.items() if kind == "text"]
        if len(texts) != 1:
            raise UserError(
                "data.augment.paraphrases replaces the text of a row, and this task reads "
                f"{' and '.join(texts) or 'none'}: leave it out"
            )
        return texts[0]

    def check_columns(self, columns: Columns, task: str, predicted: Sequence[str] = ()) -> None:
        """Refuse what a task's columns do not have. Raises UserError naming the task.

        Args:
            predicted: columns of text that are the target, which nothing changes.
        """
        target = target_of(columns) or (predicted[0] if predicted else None)
        columns = {name: kind for name, kind in columns.items() if name not in predicted}
        if self.paraphrases is not None:
            self.text_column(columns)
        if self.label_noise and (target is None or columns.get(target) != "label"):
            raise UserError(
                f"data.augment.label_noise flips the one label of each row, and the target of {task} is none: "
                "leave it out"
            )
        if self.mixup and (target is None or columns.get(target, "tags") in ("tags", "characters")):
            raise UserError(
                f"data.augment.mixup mixes rows of one target each, and {task} gives each position its own: "
                "leave it out"
            )
        if self.bpe_dropout and "text" not in columns.values():
            raise UserError(f"data.augment.bpe_dropout cuts texts, and {task} reads none: leave it out")
        if self.masking and target is None:
            raise UserError(
                f"data.augment.masking hides inputs, and the texts of {task} are its targets as well: leave it out"
            )
        if self.changes_tokens and not any(kind in TOKENS for kind in columns.values()):
            name = next(name for name in ("paraphrases", *_OF_TOKENS) if getattr(self, name))
            raise UserError(f"data.augment.{name} changes tokens, and {task} reads none: leave it out")

        if self.hides_frames and "frames" not in columns.values():
            name = next(name for name in _OF_FRAMES if getattr(self, name))
            raise UserError(f"data.augment.{name} hides frames, and {task} reads none: leave it out")

    @property
    def hides_frames(self) -> bool:
        """Whether frames are hidden."""
        return any(getattr(self, name) for name in _OF_FRAMES)

    def frame_masks(self, bands: int) -> FrameMasks:
        """The part of it that hides frames of so many bands."""
        keys = {key: getattr(self, key) for pair in _OF_FRAMES.items() for key in pair}
        return FrameMasks(**keys, bands=bands)

    @property
    def changes_tokens(self) -> bool:
        """Whether tokens are changed."""
        return self.paraphrases is not None or any(getattr(self, name) for name in _OF_TOKENS)

    def settings(self) -> dict[str, Any]:
        """The keys that differ from their defaults, for the record."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"data.augment.{name} must be a probability from 0 to 1, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
