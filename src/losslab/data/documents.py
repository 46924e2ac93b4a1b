"""Cut texts into documents: at a separator, at blank lines, into blocks, or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from losslab.errors import UserError

DocumentRule = Literal["auto", "file", "blank_line", "block"]

BLOCK = 4096
"""Longest block, in characters."""
ENOUGH = 20
"""The number of documents below which `auto` takes the next finer rule."""
REGEX = "re:"
"""Begins a separator that is a regular expression."""
TITLES = "' = Title = ' lines"
_KNOWN = {
    "<|endoftext|>": r"<\|endoftext\|>",
    "<|end_of_text|>": r"<\|end_of_text\|>",
    "</s>": r"</s>[ \t]*$",
    TITLES: r"^(?= ?= [^=\s](?:[^\n]*[^=\s])? = ?\r?$)",
}
"""Separators that are looked for, each as people call it. A title begins a document, and stays in it."""
_ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t"}


@dataclass(frozen=True)
class Cut:
    """Texts, cut."""

    groups: list[list[str]]
    """The pieces of each text that was cut, in their order."""
    known: bool
    """The pieces are documents of their own, and not parts of one."""
    how: str
    """The rule, for people: `cut at blank lines`."""

    @property
    def pieces(self) -> list[str]:
        return [piece for group in self.groups for piece in group]


def cut_documents(texts: list[str], rule: DocumentRule) -> list[str]:
    """Whole files, blocks between blank lines, or blocks of about 4 KiB; no separator is looked for (data.rules=1)."""
    if rule in ("auto", "file") and (rule == "file" or len(texts) >= ENOUGH):
        return texts
    if rule in ("auto", "blank_line"):
        blocks = [block for text in texts for block in _paragraphs(text)]
        if rule == "blank_line" or len(blocks) >= ENOUGH:
            return blocks
    return [block for text in texts for block in _blocks(text)]


def cut_texts(texts: list[str], rule: DocumentRule, separator: str | None, *, enough: int = ENOUGH) -> Cut:
    """Cut at `separator`, or by `rule`.

    `auto` takes known separators where they are, else files if there are at least 20, else blocks between blank lines
    if there are, else blocks of about 4 KiB. Where a known separator leaves fewer documents than `enough`, each of them
    is cut further.

    Raises:
        UserError: when the separator is nowhere in the texts.
    """
    if separator is not None:
        pattern = compile_separator(separator)
        groups = [_parts(text, pattern) for text in texts]
        if not any(pattern.search(text) for text in texts):
            raise UserError(f"data.separator={separator} occurs nowhere in the text; a pattern begins with re:")
        return Cut(groups, known=True, how=f"cut at {separator}")
    found = recognise(texts) if rule == "auto" else None
    before = ""
    if found is not None:
        groups = [_parts(text, re.compile(_KNOWN[found], re.MULTILINE), keep=found == TITLES) for text in texts]
        count = sum(map(len, groups))
        if count >= enough:
            return Cut(groups, known=True, how=f"cut at {found}")
        before = f"{count} documents between {found} are fewer than {enough}: each "
        texts = [part for group in groups for part in group]
    rule = settled(rule, texts, are_files=found is None)
    if rule == "file":
        return Cut([[text] for text in texts], known=True, how="each file is one")
    if rule == "blank_line":
        return Cut([_paragraphs(text) for text in texts], known=False, how=f"{before}cut at blank lines")
    return Cut([_blocks(text) for text in texts], known=False, how=f"{before}cut into blocks of about 4 KiB")


def settled(rule: DocumentRule, texts: list[str], *, are_files: bool = True) -> DocumentRule:
    """The rule that `auto` comes to for texts without a separator."""
    if rule != "auto":
        return rule
    if are_files and len(texts) >= ENOUGH:
        return "file"
    return "blank_line" if sum(len(_paragraphs(text)) for text in texts) >= ENOUGH else "block"


def compile_separator(separator: str) -> re.Pattern[str]:
    """A string as it is (\\n, \\r and \\t are the characters they stand for), or what follows re: as a regular
    expression, whose ^ and $ are the ends of lines. Raises UserError for one that cannot be read."""
    if not separator.removeprefix(REGEX):
        raise UserError("data.separator is empty: give the text that stands between documents, or re:PATTERN")
    if separator.startswith(REGEX):
        try:
            return re.compile(separator.removeprefix(REGEX), re.MULTILINE)
        except re.error as error:
            raise UserError(f"data.separator={separator} is no regular expression: {error}") from None
    for written, meant in _ESCAPES.items():
        separator = separator.replace(written, meant)
    return re.compile(re.escape(separator))


def recognise(texts: list[str]) -> str | None:
    """The known separator that occurs most often: anywhere in a few texts, in most of many."""
    counts = {}
    for name, pattern in _KNOWN.items():
        found = [len(re.findall(pattern, text, re.MULTILINE)) for text in texts]
        if len(texts) < ENOUGH or 2 * sum(map(bool, found)) > len(texts):
            counts[name] = sum(found)
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and counts[best] else None


def _parts(text: str, separator: re.Pattern[str], *, keep: bool = False) -> list[str]:
    """Parts of the text between the matches, without line ends around them.

    Args:
        keep: nothing is dropped; white space before the first part joins it.
    """
    cuts = [0, *(place for match in separator.finditer(text) for place in match.span()), len(text)]
    parts = [text[start:end] for start, end in zip(cuts[::2], cuts[1::2], strict=True)]
    if keep:
        if len(parts) > 1 and not parts[0].strip():
            parts[:2] = [parts[0] + parts[1]]
        return [part for part in parts if part]
    return [part.strip("\r\n") for part in parts if part.strip()]


def _paragraphs(text: str) -> list[str]:
    return [block for block in re.split(r"\r?\n(?:[ \t]*\r?\n)+", text) if block.strip()]


def _blocks(text: str) -> list[str]:
    """Pieces of at most BLOCK characters that end at a line, else at a word, else anywhere."""
    blocks, start = [], 0
    while start < len(text):
        end = start + BLOCK
        if end < len(text):
            for separator in ("\n", " "):
                cut = text.rfind(separator, start + BLOCK // 2, end)
                if cut >= 0:
                    end = cut + 1
                    break
        if text[start:end].strip():
            blocks.append(text[start:end])
        start = end
    return blocks
