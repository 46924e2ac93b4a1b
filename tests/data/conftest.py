"""Small corpora, and tokenizers that mistreat text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

WORDS = "the loss of a model is what it pays for each token that it did not foresee — naïve 模型 🙂".split()


def prose(number: int, length: int) -> str:
    """A document of its own: `length` words, the same each time."""
    return " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(length)) + f" ({number})\n"


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """60 different documents, about 24 KB."""
    return [prose(number, 60 + number) for number in range(60)]


def _words(unknown: str | None) -> Tokenizer:
    vocabulary = {"[UNK]": 0, "the": 1, "loss": 2, "model": 3}
    return Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))


def _lowering() -> Tokenizer:
    tokenizer = _words("[UNK]")
    steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _dropping() -> Tokenizer:
    """BPE over a few letters, without an unknown token: every other character disappears."""
    return Tokenizer(models.BPE(vocab={"t": 0, "h": 1, "e": 2, "th": 3, "</s>": 4}, merges=[("t", "h")]))


def _prefixing() -> Tokenizer:
    tokenizer = _words("[UNK]")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("▁▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_json(tmp_path_factory) -> Callable[[str], Path]:
    """Name → the tokenizer.json of a tokenizer that lowercases, drops or adds characters."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, make in (("lowering", _lowering), ("dropping", _dropping), ("prefixing", _prefixing)):
        make().save(str(folder / f"{name}.json"))
    return lambda name: folder / f"{name}.json"
