"""Whether a tokenizer keeps a text: decode(encode(text)) = text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from losslab.data.tokenizer import Tokenizer


class RoundTrip(NamedTuple):
    """Counts of the documents that decode to their own text, and of those that do not."""

    documents: int
    changed: int
    """Documents that came back otherwise than they were."""
    lost: float
    """Share of the bytes in words (what stands between white space) that did not come back."""

    @property
    def lossless(self) -> bool:
        return not self.changed

    def told(self, tokenizer: str) -> str:
        """A sentence for people, about a text that is not kept."""
        how = f"{self.lost:.1%} of their bytes in words are lost" if self.lost else "white space is lost"
        return (
            f"the tokenizer {tokenizer} does not keep the text: {self.changed:,} of {self.documents:,} documents come "
            f"back changed from decode(encode(text)), {how}; bits_per_byte and word_perplexity are left out, and nll "
            "means something only beside runs of the same tokenizer"
        )


def round_trip(documents: Sequence[str], tokens: Iterable[list[int]], tokenizer: Tokenizer) -> RoundTrip:
    """Decode the tokens of each document, without its end, and compare."""
    changed, lost, total = 0, 0, 0
    for text, ids in zip(documents, tokens, strict=True):
        words = Counter(text.split())
        total += _bytes(words)
        decoded = tokenizer.decode(ids)
        if decoded != text:
            changed += 1
            lost += _bytes(words - Counter(decoded.split()))
    return RoundTrip(len(documents), changed, lost / total if total else 0.0)


def _bytes(words: Counter[str]) -> int:
    return sum(len(word.encode()) * count for word, count in words.items())
