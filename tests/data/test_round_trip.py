"""Whether a tokenizer keeps a text, and how words are counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer, Tokenizer, make_tokenizer
from losslab.data.words import count_words


def kept(tokenizer: Tokenizer, documents: list[str]) -> RoundTrip:
    return round_trip(documents, [ids for ids, _ in tokenizer.encode(documents)], tokenizer)


def test_bytes_and_a_bpe_of_bytes_keep_everything(documents: list[str]) -> None:
    texts = [*documents, " = Title = \n \n", "\t\r\n", "<|endoftext|> and </s>", "e\u0301 \u00e9", "\0"]
    for tokenizer in (ByteTokenizer(), make_tokenizer("bpe", 300, documents)):
        assert kept(tokenizer, texts) == (len(texts), 0, 0.0)
        assert kept(tokenizer, texts).lossless


@pytest.mark.parametrize(
    ("name", "texts", "changed", "lost"),
    [
        ("lowering", ["the model", "the naïve loss"], 1, 6 / 21),
        ("lowering", ["the the the", "THE MODEL"], 1, 8 / 17),
        ("dropping", ["the", "the loss"], 2, 10 / 10),
    ],
)
def test_what_is_lost_is_counted(
    name: str, texts: list[str], changed: int, lost: float, tokenizer_json: Callable[[str], Path]
) -> None:
    found = kept(FileTokenizer.read(str(tokenizer_json(name))), texts)
    assert found.changed == changed
    assert not found.lossless
    assert found.lost == pytest.approx(lost)
    assert f"the tokenizer words.json does not keep the text: {changed} of 2 documents" in found.told("words.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one", 2),
        ("one\n", 2),
        ("one two\nthree\n", 5),
        (" \n = Title = \n \n A line . \n", 10),
        ("naïve 模型\n\n", 4),
    ],
)
def test_words_are_counted_with_the_ends_of_lines(text: str, words: int) -> None:
    assert count_words(text) == words
    # As the word-level benchmarks do: for line in file, line.split() + ["<eos>"].
    assert words == sum(len([*line.split(), "<eos>"]) for line in text.splitlines())
