"""Tokens as text of a page: escaped, with signs for characters that have no shape of their own."""

from __future__ import annotations

import unicodedata
from html import escape

END = "■"
"""The sign for the end of a document."""
_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥"}
_MARKS = {" ": "<u> </u>", "\n": "<b>↵</b>\n", "\t": "<b>⇥</b>\t"}
_SHAPELESS = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
"""Controls, and formatting characters that could turn the order of the page's own text around."""


def visible(text: bytes) -> str:
    """A token as a word on the page: spaces and newlines have signs, what no font shows has its number in hex."""
    return "".join(_SIGNS.get(character) or _printable(character) for character in _characters(text))


def _characters(text: bytes) -> str:
    """Bytes that are no UTF-8 become lone surrogates, one each."""
    return text.decode(errors="surrogateescape")


def _printable(character: str) -> str:
    if unicodedata.category(character) not in _SHAPELESS:
        return character
    point = ord(character)
    return f"⟨{point - 0xDC00:02X}⟩" if 0xDC80 <= point <= 0xDCFF else f"⟨U+{point:04X}⟩"


def marked(text: bytes, is_end: bool) -> str:
    """A token in the running text, escaped: its spaces and newlines stay what they are, with a sign each."""
    if is_end:
        return f"<b>{END}</b>\n\n"
    return "".join(_MARKS.get(character) or escape(_printable(character)) for character in _characters(text))
