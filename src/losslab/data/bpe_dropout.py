"""BPE dropout (Provilkov et al. 2020, arXiv:1910.13267): a text cut into other tokens each time."""

from __future__ import annotations

import json
import random
from itertools import pairwise

from losslab.data.byte_level import byte_characters
from losslab.data.tokenizer import FileTokenizer, Tokenizer
from losslab.errors import UserError


class BpeDropout:
    """Cuts tokens of a byte-level BPE again, each possible merge left out with a probability.

    The `tokenizers` library has such dropout, too, but draws for it from a generator that nobody can seed; here the
    draws are the caller's.

    Args:
        tokenizer: a byte-level BPE, as `data.tokenizer=bpe` trains one.

    Raises:
        UserError: for a tokenizer of another kind.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        content = json.loads(tokenizer.content or "{}")
        model = content.get("model", {})
        byte_level = '"ByteLevel"' in json.dumps(content.get("pre_tokenizer"))
        vocabulary = model.get("vocab") if byte_level and "merges" in model else None
        if not isinstance(tokenizer, FileTokenizer) or not vocabulary or set(byte_characters()) - vocabulary.keys():
            raise UserError(
                "data.augment.bpe_dropout leaves out merges of a byte-level BPE over all bytes, and this tokenizer is "
                "none: give data.tokenizer=bpe, or a tokenizer.json of that kind"
            )
        self.backend = tokenizer.backend
        self.ids: dict[str, int] = vocabulary
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        self.never = len(self.ranks)

    def __call__(self, tokens: list[int], share: float, draws: random.Random) -> list[int]:
        """Other tokens of the same text; the same ones where the text is no whole UTF-8, for a cut went through a
        character.

        Args:
            tokens: without the end of text.
            share: probability with which a possible merge is left out, each time that one is chosen.
        """
        text: str = self.backend.decode(tokens)
        words = [word for word, _ in self.backend.pre_tokenizer.pre_tokenize_str(text)]
        if "".join(words) != "".join(self.backend.id_to_token(token) or "" for token in tokens):
            return tokens
        return [self.ids[part] for word in words for part in self.merge(word, share, draws)]

    def merge(self, word: str, share: float, draws: random.Random) -> list[str]:
        """The parts of a word. As long as there are merges: each possible one is left out or not, and of the others the
        one learned first is made, wherever it was not left out."""
        parts, rank_of, draw = list(word), self.ranks.get, draws.random
        ranks = [rank_of(pair) for pair in pairwise(parts)]
        while True:
            first, places = self.never, [-2]
            for i, rank in enumerate(ranks):
                if rank is not None and draw() >= share and rank <= first:
                    if rank < first:
                        first, places = rank, [i]
                    elif i > places[-1] + 1:  # in AAA the second pair shares a part with the first
                        places.append(i)
            if first == self.never:
                return parts
            for i in reversed(places):
                parts[i : i + 2] = [parts[i] + parts[i + 1]]
                del ranks[i]
                if i:
                    ranks[i - 1] = rank_of((parts[i - 1], parts[i]))
                if i < len(ranks):
                    ranks[i] = rank_of((parts[i], parts[i + 1]))
