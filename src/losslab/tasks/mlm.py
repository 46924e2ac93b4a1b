"""Masked language modelling: predict hidden tokens from what stands on both sides of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    TargetKind,
    Task,
    Vocabulary,
    Windows,
    flat_hidden,
    padded,
)
from losslab.contracts.task import ColumnKind
from losslab.errors import UserError
from losslab.metrics.masked_meter import MaskedMeter
from losslab.metrics.table import MASKED_METRICS, PRIMARY
from losslab.metrics.temperature import Temperature


class MaskedLanguageModeling(Task):
    """Some tokens are chosen, and the model predicts each of them from a text in which most of them are hidden (Devlin
    et al. 2018, arXiv:1810.04805). Positions that were not chosen are neither projected nor scored.

    It reads windows of a stream, whose every token can be chosen, or rows with a column `text`. The end of text is
    never chosen. The choice in train is a function of the run's seed and the window's place in the order of batches, so
    that it is another in each pass, and the same under every loss; in the other splits it is one of the window alone,
    so that each validation of every run scores the same tokens.

    Args:
        probability: with which each token is chosen, or each word; of a text at least one is.
        mask_share: share of the chosen tokens that the mask token replaces.
        random_share: share of them that a random token replaces; the rest stay as they are.
        whole_words: choose all tokens of a word or none, by the marks of the tokenizer.

    Raises:
        UserError: for shares out of range.
    """

    accepts = frozenset({TargetKind.CLASSES})
    metrics = MASKED_METRICS
    primary = PRIMARY
    of_stream = True
    predicts_tokens = True
    masks = True
    columns: Mapping[str, ColumnKind] = MappingProxyType({"text": "text"})

    def __init__(
        self,
        *,
        probability: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        whole_words: bool = False,
    ) -> None:
        if not 0 < probability <= 1:
            raise UserError(f"task.probability must be above 0 and at most 1, not {probability}")
        if min(mask_share, random_share) < 0 or mask_share + random_share > 1 + 1e-9:
            raise UserError(
                f"task.mask_share={mask_share} and task.random_share={random_share} must be 0 or above, and at most 1 "
                "together"
            )
        self.probability = probability
        self.mask_share = mask_share
        self.random_share = random_share
        self.whole_words = whole_words

    def told(self) -> str:
        what, kept = "words" if self.whole_words else "tokens", 1 - self.mask_share - self.random_share
        return (
            f"{self.probability:.0%} of the {what} are predicted, and no others: of these {self.mask_share:.0%} are "
            f"hidden, {self.random_share:.0%} replaced, {kept:.0%} kept"
        )

    def target_size(self, info: DataInfo) -> int:
        """V of the tokenizer in use, with its mask token, which is never a target."""
        if info.vocab_size is None:
            raise UserError("task=mlm hides tokens, and this data has no vocabulary")
        return info.vocab_size

    def of_windows(self, windows: Windows) -> Batch:
        """Every token after the first as input and as target; the windows before it had the first."""
        tokens = windows.tokens[:, 1:]
        inputs = {"tokens": tokens} if windows.full else {"tokens": tokens, "mask": windows.weight != 0}
        if windows.documents is not None:
            inputs["segments"] = windows.documents[:, 1:] - windows.documents[:, 1:2]
        extras = {name: value for name, value in windows.extras.items() if name != "bytes"}
        return Batch(inputs, tokens, windows.weight, extras)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens` and `mask`, and the tokens [B, T] as targets."""
        tokens, mask = padded([example["text"] for example in examples])
        return Batch({"tokens": tokens, "mask": mask}, tokens, mask.float(), {})

    def draw(self, batch: Batch, seeds: NDArray[np.uint64], vocabulary: Vocabulary) -> Batch:
        """Choose tokens, which keep their weight, and hide them."""
        assert vocabulary.mask is not None, "a task with `masks` has a mask token"
        tokens, weight = batch.inputs["tokens"].clone(), torch.zeros_like(batch.weight)
        for row, seed in enumerate(seeds):
            length = int((batch.weight[row] != 0).sum())  # padding stands behind
            draws = np.random.Generator(np.random.Philox(key=int(seed))).random((length, 3))
            own = tokens[row, :length]
            chosen = self._choose(own, draws[:, 0], vocabulary)
            tokens[row, :length] = self._hide(own, chosen, draws, vocabulary)
            weight[row, :length] = batch.weight[row, :length] * chosen
        return batch._replace(inputs={**batch.inputs, "tokens": tokens}, weight=weight)

    def _choose(self, tokens: Tensor, numbers: NDArray[np.float64], vocabulary: Vocabulary) -> Tensor:
        """bool [T]: the tokens whose number, or whose word's first number, is below the probability."""
        given = torch.from_numpy(numbers)
        if self.whole_words:
            given = given[vocabulary.begins_word(tokens)][vocabulary.begins_word(tokens).cumsum(0) - 1]
        if vocabulary.end is not None:
            given = given.masked_fill(tokens == vocabulary.end, torch.inf)
        least = given.min() if len(given) else given.new_tensor(torch.inf)
        return (given < self.probability) | ((given == least) & given.isfinite())

    def _hide(self, tokens: Tensor, chosen: Tensor, draws: NDArray[np.float64], vocabulary: Vocabulary) -> Tensor:
        action, place = torch.from_numpy(draws[:, 1]), torch.from_numpy(draws[:, 2])
        special = sorted(token for token in {vocabulary.mask, vocabulary.end} if token is not None)
        others = (place * (vocabulary.size - len(special))).long()
        for token in special:
            others += others >= token
        hidden = torch.where(action < self.mask_share, vocabulary.mask or 0, others)
        return torch.where(chosen & (action < self.mask_share + self.random_share), hidden, tokens)

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and select the chosen positions."""
        hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
        weight = batch.weight.flatten()
        every = Features(hidden, batch.target.flatten(), weight, {k: v.flatten() for k, v in batch.extras.items()})
        return every[weight != 0]

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> MaskedMeter:
        return MaskedMeter(info, split, calibration["scale"], thorough=thorough)
