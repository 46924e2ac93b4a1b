"""Perplexity per word: the summed nll, over the words of the original text."""

import math

import pytest

from losslab.metrics.text_units import per_text, word_perplexity


@pytest.mark.parametrize(("positions", "words"), [(100, 100), (130, 100), (90, 100), (1, 7)])
def test_the_sum_is_spread_over_the_words(positions: int, words: int) -> None:
    losses = [0.5 + i / 50 for i in range(positions)]
    by_hand = math.prod(math.exp(loss) ** (1 / words) for loss in losses)
    found = word_perplexity(math.fsum(losses) / positions, positions, words)
    assert found == pytest.approx(by_hand, rel=1e-12)


def test_as_many_words_as_tokens_give_the_perplexity() -> None:
    assert word_perplexity(2.5, 1000, 1000) == math.exp(2.5)


def test_what_no_float_holds_is_infinite() -> None:
    assert word_perplexity(11.0, 1000, 10) == math.inf


def test_a_tokenizer_that_loses_text_has_neither() -> None:
    values = {"nll": 2.0, "bits_per_byte": 1.0, "top1": 0.5}
    assert per_text(values, 30, None) == {"nll": 2.0, "top1": 0.5}
    assert per_text(values, 30, 20) == values | {"word_perplexity": math.exp(3.0)}
