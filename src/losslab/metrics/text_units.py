"""Figures per unit of the text, which tokenizers share: bits per byte, perplexity per word."""

from __future__ import annotations

import math

_LARGEST_EXPONENT = 700.0


def word_perplexity(nll: float, positions: int, words: int) -> float:
    """exp(Σ nll over tokens / words of the original text), as WikiText results are given (arXiv:1609.07843).

    Args:
        nll: mean over the predicted tokens, in nats.
        positions: predicted tokens of the whole split.
        words: of its original text, `losslab.data.words.count_words`.
    """
    exponent = nll * positions / words
    return math.exp(exponent) if exponent < _LARGEST_EXPONENT else math.inf


def per_text(values: dict[str, float], positions: int, words: int | None) -> dict[str, float]:
    """Metrics with word_perplexity; where words are unknown, for there is no text or the tokenizer loses some, without
    what counts the text itself: the nll of an unknown word is not that of the word."""
    if words is None:
        return {name: value for name, value in values.items() if name != "bits_per_byte"}
    return values | {"word_perplexity": word_perplexity(values["nll"], positions, words)}
