"""The tokenizer of sources, where it is not that of the texts that are predicted."""

from __future__ import annotations

from collections.abc import Mapping

from losslab.data.tokenizer import Tokenizer, restore_tokenizer, tokenizer_of

_FILE = "source_tokenizer.json"


def source_artifacts(tokenizer: Tokenizer) -> dict[str, str]:
    """The file that restores it, beside that of the other: name → content."""
    assert tokenizer.content is not None, "two tokenizers are trained"
    return {_FILE: tokenizer.content}


def source_tokenizer_of(artifacts: Mapping[str, str]) -> Tokenizer | None:
    """The tokenizer of sources among the artifacts of a data set: one of their own, or that of all texts."""
    return restore_tokenizer(artifacts[_FILE]) if _FILE in artifacts else tokenizer_of(artifacts)
