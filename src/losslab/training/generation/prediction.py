"""The distribution of the next token after a text that grows, as the loss of a run predicts it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import cache_of, context_of
from losslab.errors import UserError
from losslab.training.network import Network

ForwardContext = Callable[[torch.device], AbstractContextManager[object]]
"""Makes the context of a forward pass on a device, such as autocast."""


def window_start(length: int, context: int | None) -> int:
    """The first of `length` tokens that the model reads to predict the next one.

    Up to the context it reads all. After that the window has a fixed beginning while it grows, and then moves on by
    half a context, so that it holds more than half of the context and at most all of it. Positions are counted from
    the beginning of the window, as in training.
    """
    if context is None or length <= context:
        return 0
    step = max(1, context // 2)
    return -(-(length - context) // step) * step


class NextToken:
    """Log-probabilities of the token after each of a growing list, from the window of `window_start`.

    A model with a cache computes each new token alone, and the whole window when that moves; for one without, every
    token takes a pass over the window. Both give the same up to rounding, since what a cache holds was computed from
    its window alone.

    Args:
        network: in evaluation mode, of a task that predicts next tokens.
        context: the longest window; default: the longest that the model reads.
        scale: s of softmax(s · z), instead of the loss's own way from scores to predictions.
        never: an id that no text holds, the mask token's: it gets no probability.
        forward_context: makes the context of each forward pass; default: none.

    Raises:
        UserError: for another network.
    """

    def __init__(
        self,
        network: Network,
        *,
        context: int | None = None,
        scale: float | None = None,
        never: int | None = None,
        forward_context: ForwardContext | None = None,
    ) -> None:
        if not network.task.continues_texts:
            raise UserError(
                f"text comes from runs that predict next tokens, and {chosen('task', network.task)} "
                + ("predicts them from a source: losslab translate" if network.task.reads_source else "does not")
            )
        if network.training:
            raise UserError("a network in training mode drops out at random: call its eval() before it generates")
        self.network = network
        self.context = context_of(network.backbone) if context is None else context
        self.scale = scale
        self.never = never
        self.forward_context = forward_context or (lambda device: nullcontext())
        self._start = 0
        self._seen = 0
        """Tokens, from the first on, that the cache was given."""
        self._cache: Any = None

    @torch.no_grad()
    def __call__(self, tokens: list[int]) -> Tensor:
        """All tokens so far, at least one → float32 [V] on the CPU.

        The list is that of the call before, with tokens added at its end.
        """
        start = window_start(len(tokens), self.context)
        if self._cache is None or start != self._start:
            self._cache, self._start, self._seen = cache_of(self.network.backbone), start, start
        hidden = self._read(tokens)
        scores = self.network.loss.scores(hidden, self.network.projection)
        if self.scale is None:
            log_probs = self.network.loss.predict_log_probs(scores)
        else:
            log_probs = (self.scale * scores).log_softmax(dim=-1)
        found = log_probs[0].float().cpu()
        if self.never is not None:
            found[self.never] = -torch.inf
            found = found - found.logsumexp(dim=-1)
        return found

    def _read(self, tokens: list[int]) -> Tensor:
        """The hidden state after the last token, [1, D]."""
        device = self.network.projection.weight.device
        first = self._start if self._cache is None else self._seen
        inputs = {"tokens": torch.tensor([tokens[first:]], device=device)}
        with self.forward_context(device):
            if self._cache is None:
                hidden = self.network.backbone(inputs)
            else:
                hidden = self.network.backbone(inputs, self._cache)
        self._seen = len(tokens)
        last: Tensor = hidden[:, -1]
        return last
