"""The choice of a tokenizer, checked before any text is read."""

from __future__ import annotations

from losslab.data.tokenizer import FileTokenizer
from losslab.errors import UserError

_SMALLEST_BPE = 257
"""256 bytes and the end of text."""


def check_choice(tokenizer: str, vocab_size: int, *, lowercase: bool = False, special: bool = False) -> None:
    """Refuse, before any text is read, what cannot work. Raises UserError."""
    if special and tokenizer in ("bpe", "bytes"):
        raise UserError(f"data.special_tokens=true is for a tokenizer.json that has some, and {tokenizer} has none")
    if lowercase and tokenizer != "bpe":
        raise UserError(
            f"data.lowercase=true goes with data.tokenizer=bpe, which is trained on lower case, not with {tokenizer}: "
            "bytes are taken as they are, and a tokenizer.json has a normalizer of its own"
        )
    if tokenizer == "bpe" and vocab_size < _SMALLEST_BPE:
        raise UserError(
            f"data.vocab_size must be at least {_SMALLEST_BPE} (256 bytes and an end of text), not {vocab_size}"
        )
    if tokenizer not in ("bpe", "bytes"):
        FileTokenizer.read(tokenizer)
