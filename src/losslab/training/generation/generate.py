"""Text that a trained language model continues a prompt with."""

from __future__ import annotations

from collections.abc import Iterator

from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError
from losslab.training.generation.prediction import ForwardContext, NextToken
from losslab.training.generation.sampling import Sampling
from losslab.training.generation.text_stream import TextStream
from losslab.training.network import Network
from losslab.training.random import generator


def generate(
    network: Network,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    sample: int = 0,
    context: int | None = None,
    scale: float | None = None,
    forward_context: ForwardContext | None = None,
) -> Iterator[str]:
    """Yield the continuation of a prompt in pieces of whole characters, as they come; joined, they are the text.

    The prompt begins a document: the end-of-text token stands before it, where the tokenizer has one. The text ends at
    that token, which is not part of it, or after `max_tokens` tokens. Predictions are the loss's own
    (`predict_log_probs`, with the scale that it was fitted), unless `scale` is given.

    Args:
        network, context, scale, forward_context: see `NextToken`.
        temperature, top_k, top_p: see `Sampling`.
        seed, sample: name the stream of random numbers: sample 3 is the same, however many others are made.

    Raises:
        UserError: at once, for settings out of range, a network that predicts no next tokens, and an empty prompt where
            the tokenizer has no end of text.
    """
    if max_tokens < 1:
        raise UserError(f"max_tokens must be 1 or more, not {max_tokens}")
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    next_token = NextToken(network, context=context, scale=scale, forward_context=forward_context)
    tokens = encode_prompt(tokenizer, prompt)
    stream = generator(seed, f"generate/{sample}")

    def continue_text() -> Iterator[str]:
        text = TextStream(tokenizer, tokens)
        for _ in range(max_tokens):
            token = sampling.draw(next_token(tokens), stream)
            if token == tokenizer.end:
                break
            tokens.append(token)
            if piece := text.add(token):
                yield piece
        if piece := text.finish():
            yield piece

    return continue_text()


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The end of text, if there is one, and then the prompt's tokens. Raises UserError where that is nothing."""
    ((tokens, _),) = tokenizer.encode([prompt])
    if tokenizer.end is None and not tokens:
        raise UserError("the tokenizer has no end-of-text token to begin with: give a prompt")
    return [*tokens] if tokenizer.end is None else [tokenizer.end, *tokens]
