"""Tokens → text, piece by piece, in whole characters."""

from __future__ import annotations

from losslab.data.tokenizer import Tokenizer

_BEFORE = 8
"""Tokens of the text before that decide how the next ones read, such as whether a space comes first."""
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes tokens as they come. All pieces together are the text that decoding all tokens at once gives.

    A token may end in the middle of a character of several bytes: such a piece waits for the rest of it. Bytes that
    are no UTF-8 become the replacement character, with the piece after them.

    Args:
        before: tokens of the text that goes before.
    """

    def __init__(self, tokenizer: Tokenizer, before: list[int]) -> None:
        self.tokenizer = tokenizer
        self._tokens = before[-_BEFORE:]
        self._shown = len(self._tokens)
        """Tokens whose text was returned, or went before."""

    def add(self, token: int) -> str:
        """The text that can be shown after one more token; may be empty."""
        self._tokens.append(token)
        piece = self._waiting()
        return "" if piece.endswith(_INCOMPLETE) else self._show(piece)

    def finish(self) -> str:
        """The text that still waits, however it ends."""
        return self._show(self._waiting())

    def _waiting(self) -> str:
        shown = self.tokenizer.decode(self._tokens[: self._shown])
        return self.tokenizer.decode(self._tokens)[len(shown) :]

    def _show(self, piece: str) -> str:
        if piece:
            self._tokens = self._tokens[self._shown :]
            self._shown = len(self._tokens)
        return piece
