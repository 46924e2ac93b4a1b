"""Texts that a network writes: outputs of a beam search over its loss's own predictions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from losslab.contracts import OF_SOURCE, Generation, cache_of, context_of
from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError
from losslab.training.generation.prediction import ForwardContext
from losslab.training.generation.search import Hypothesis, search
from losslab.training.network import Network


class Written(NamedTuple):
    """One text."""

    text: str
    score: float
    """See `Hypothesis`."""
    ended: bool
    """False: cut at the longest length that the model reads."""


class NetworkSteps:
    """The step function of a search: predictions of the next token by `loss.predict_log_probs`.

    A model whose cache has `reorder` reads each new token alone; another one the whole text at every step.

    Args:
        inputs: of B samples; its `tokens`, int64 [B, T], are those before the first token of the output. Other inputs
            have a row a sample, too.
        never: an id that no text holds: it gets no probability.
    """

    def __init__(self, network: Network, inputs: dict[str, Tensor], never: int | None) -> None:
        self.network = network
        self.inputs = inputs
        self.never = never
        self._cache = _reordered(cache_of(network.backbone))
        self._began = False

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """See `Step`. Log-probabilities are float32, or float64."""
        if self._began:
            self._continue(tokens, rows)
        self._began = True
        if self._cache is None:
            hidden = self.network.backbone(self.inputs)
        else:
            hidden = self.network.backbone(self.inputs, self._cache)
        scores = self.network.loss.scores(hidden[:, -1], self.network.projection)
        log_probs = self.network.loss.predict_log_probs(scores)
        if self.never is not None:
            barred = torch.arange(log_probs.shape[-1], device=log_probs.device) == self.never
            log_probs = log_probs.masked_fill(barred, -torch.inf).log_softmax(dim=-1)
        return log_probs if log_probs.dtype == torch.float64 else log_probs.float()

    def _continue(self, tokens: Tensor, rows: Tensor) -> None:
        self.inputs = {name: value.index_select(0, rows) for name, value in self.inputs.items()}
        if self._cache is None:
            self.inputs["tokens"] = torch.cat([self.inputs["tokens"], tokens[:, None]], dim=1)
            return
        self.inputs["tokens"] = tokens[:, None]
        for part in self._cache if isinstance(self._cache, list) else [self._cache]:
            part.reorder(rows)


def _reordered(cache: Any) -> Any:
    """A cache that follows a search, or None."""
    parts = cache if isinstance(cache, list) else [cache]
    return cache if all(hasattr(part, "reorder") for part in parts) else None


class TextWriter:
    """Writes the outputs of samples: `TextWriter(network, tokenizer, Generation(beams=5))(inputs)`.

    Predictions are the loss's own (`predict_log_probs`), so that losses without a softmax write by theirs.

    Args:
        network: in evaluation mode.
        tokenizer: of the outputs, with an end of text.
        nbest: texts of each sample, at most `generation.beams`.
        context: positions that the model reads at most, where it does not say so itself.
        exact, agree: see `search`.
        forward_context: makes the context of the forward passes, such as autocast.

    Raises:
        UserError: for settings out of range, and a model of which nobody knows how much it reads.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        generation: Generation,
        *,
        nbest: int = 1,
        context: int | None = None,
        exact: bool = False,
        forward_context: ForwardContext | None = None,
        agree: Callable[[bool], bool] = lambda more: more,
    ) -> None:
        if tokenizer.end is None:
            raise UserError("the tokenizer has no end of text, at which an output would end: choose another")
        own = context_of(network.backbone)
        most = min((each for each in (own, context) if each is not None), default=None)
        if most is None:
            raise UserError(
                f"{type(network.backbone).__name__} has no `context`, and this data none: nothing says how long a text "
                "may become"
            )
        self.network = network
        self.tokenizer = tokenizer
        self.end = tokenizer.end
        self.generation = generation
        self.nbest = nbest
        self.context = most
        self.exact = exact
        self.agree = agree
        self.forward_context = forward_context or (lambda device: nullcontext())

    def __call__(self, inputs: dict[str, Tensor]) -> list[list[Written]]:
        """The `nbest` texts of each sample, best first.

        Args:
            inputs: of B samples, as the task's `collate` has them. Of their `tokens` the first is what an output begins
                with; those after it, where there are any, are not read.
        """
        begin = inputs["tokens"][:, 0]
        given = {name: value for name, value in inputs.items() if name in OF_SOURCE} | {"tokens": begin[:, None]}
        with self.forward_context(begin.device):
            found = search(
                NetworkSteps(self.network, given, self.tokenizer.mask),
                begin,
                self.end,
                longest=torch.full_like(begin, self.context),
                beams=self.generation.beams,
                length_penalty=self.generation.length_penalty,
                nbest=self.nbest,
                exact=self.exact,
                agree=self.agree,
            )
        return [[self._text(hypothesis) for hypothesis in each] for each in found]

    def _text(self, hypothesis: Hypothesis) -> Written:
        return Written(self.tokenizer.decode(hypothesis.tokens), hypothesis.score, hypothesis.ended)
