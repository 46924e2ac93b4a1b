"""Columns of one text or two, and the inputs that a model reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from losslab.contracts import padded
from losslab.contracts.task import ColumnKind

TEXT, OTHER = "text", "text_pair"


def text_columns(*, pair: bool) -> dict[str, ColumnKind]:
    """The columns of text of a task: `text`, and of a pair `text_pair`."""
    return {TEXT: "text", OTHER: "text"} if pair else {TEXT: "text"}


def joined_columns(*, pair: bool) -> tuple[str, ...]:
    """`Task.joined` of such a task."""
    return (TEXT, OTHER) if pair else ()


def text_inputs(examples: Sequence[Mapping[str, Any]], *, pair: bool) -> dict[str, Tensor]:
    """Inputs for B examples: `tokens`, int64 [B, T], and `mask`, bool [B, T], False in the padding.

    A pair is one sequence: the tokens of `text`, its end of text, those of `text_pair`, and its end. `types`, int64
    [B, T], is 0 in the first of them and in the padding, and 1 in the second; a model that has no embedding of types
    reads the pair without them.
    """
    if not pair:
        tokens, mask = padded([example[TEXT] for example in examples])
        return {"tokens": tokens, "mask": mask}
    tokens, mask = padded([torch.cat([example[TEXT], example[OTHER]]) for example in examples])
    first = torch.tensor([len(example[TEXT]) for example in examples])
    second = (torch.arange(tokens.shape[1]) >= first[:, None]) & mask
    return {"tokens": tokens, "mask": mask, "types": second.long()}
