"""Text that a trained language model continues a prompt with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError
from losslab.training.generation.prediction import ForwardContext, NextToken
from losslab.training.generation.sampling import Sampling
from losslab.training.generation.text_stream import TextStream
from losslab.training.network import Network
from losslab.training.random import generator


class TextGenerator:
    """Continues prompts: `"".join(TextGenerator(network, tokenizer).stream("Once"))` is the text that follows.

    A prompt begins a document: the end-of-text token stands before it, where the tokenizer has one. A text ends at that
    token, which is not part of it, or after `max_tokens` tokens. Predictions are the loss's own (`predict_log_probs`,
    with the scale that it was fitted), unless `scale` is given.

    Args:
        network, context, scale, forward_context: see `NextToken`.
        max_tokens: 1 or more.
        temperature, top_k, top_p: see `Sampling`.
        seed: of the streams of random numbers, one for each sample.

    Raises:
        UserError: for settings out of range, and a network that predicts no next tokens.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        max_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        context: int | None = None,
        scale: float | None = None,
        forward_context: ForwardContext | None = None,
    ) -> None:
        if max_tokens < 1:
            raise UserError(f"max_tokens must be 1 or more, not {max_tokens}")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        self.seed = seed
        self._predictor = partial(
            NextToken, network, context=context, scale=scale, never=tokenizer.mask, forward_context=forward_context
        )
        self._predictor()

    def stream(self, prompt: str, *, sample: int = 0) -> Iterator[str]:
        """Yield the continuation in pieces of whole characters, as they come; joined, they are the text.

        Args:
            sample: names the stream of random numbers: sample 3 is the same, however many others are made.

        Raises:
            UserError: at once, for a prompt that is no text, or empty where the tokenizer has no end of text.
        """
        tokens = encode_prompt(self.tokenizer, prompt)
        return self._pieces(tokens, generator(self.seed, f"generate/{sample}"))

    def _pieces(self, tokens: list[int], numbers: torch.Generator) -> Iterator[str]:
        next_token = self._predictor()
        text = TextStream(self.tokenizer, tokens)
        for _ in range(self.max_tokens):
            token = self.sampling.draw(next_token(tokens), numbers)
            if token == self.tokenizer.end:
                break
            tokens.append(token)
            if piece := text.add(token):
                yield piece
        if piece := text.finish():
            yield piece


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The end of text, if there is one, and then the prompt's tokens.

    Raises:
        UserError: where that is nothing, and for bytes that are no text.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:  # Python keeps such bytes of arguments and standard input as half characters
        raise UserError(f"the prompt {prompt!r} is not UTF-8 text") from None
    ((tokens, _),) = tokenizer.encode([prompt])
    if tokenizer.end is None and not tokens:
        raise UserError("the tokenizer has no end-of-text token to begin with: give a prompt")
    return [*tokens] if tokenizer.end is None else [tokenizer.end, *tokens]
