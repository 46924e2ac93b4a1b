"""Cut texts into documents: at a separator, at blank lines, into blocks, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from losslab.data.pieces import Pieces
from losslab.data.stored_text import Cut as StoredCut
from losslab.data.stored_text import StoredText
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
_GAP = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")
"""Blank lines, with the end of the line before them."""
_NO_GAP = re.compile(r"[ \t]*(?:[^ \t\r\n]|\r[^\n])")
_ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t"}


_NEEDLES = {TITLES: "= "}
"""Text without which a known separator cannot be there; default: itself."""


@dataclass(frozen=True)
class Cut:
    """Texts, cut."""

    pieces: Pieces
    """Pieces of each text that was cut, a group for each text."""
    known: bool
    """The pieces are documents of their own, and not parts of one."""
    how: str
    """The rule, for people: `cut at blank lines`."""


def cut_documents(texts: list[StoredText], rule: DocumentRule) -> Pieces:
    """Whole files, blocks between blank lines, or blocks of about 4 KiB; no separator is looked for (data.rules=1)."""
    if rule == "auto" and len(texts) < ENOUGH:
        return _cut(texts, settled(rule, texts))
    return _cut(texts, "file" if rule == "auto" else rule)


def cut_texts(texts: list[StoredText], rule: DocumentRule, separator: str | None, *, enough: int = ENOUGH) -> Cut:
    """Cut at `separator`, or by `rule`.

    `auto` takes known separators where they are, else files if there are at least 20, else blocks between blank lines
    if there are, else blocks of about 4 KiB. Where a known separator leaves fewer documents than `enough`, each of them
    is cut further.

    Raises:
        UserError: when the separator is nowhere in the texts.
    """
    if separator is not None:
        if not any(occurs(text, separator) for text in texts):
            raise is_nowhere(separator)
        pieces, cut = Pieces(), _part_cutter(compile_separator(separator))
        for text in texts:
            pieces.add(text, text.pieces(cut, whole=separator.startswith(REGEX)))
        return Cut(pieces, known=True, how=f"cut at {separator}")
    found = recognise(texts) if rule == "auto" else None
    before = ""
    if found is not None:
        pattern, keep = re.compile(_KNOWN[found.name], re.MULTILINE), found.name == TITLES
        if found.times + len(texts) < enough:  # each is long perhaps: none is read whole
            texts = [part for text in texts for part in _parts(text, pattern, keep=keep)]
        else:
            pieces = Pieces()
            for text in texts:
                pieces.add(text, text.pieces(_part_cutter(pattern, keep=keep, lines=True)))
            if len(pieces) >= enough:
                return Cut(pieces, known=True, how=f"cut at {found.name}")
            texts = [text.part(start, stop) for text, start, stop in map(pieces.place, range(len(pieces)))]
        before = f"{len(texts)} documents between {found.name} are fewer than {enough}: each "
    rule = settled(rule, texts, are_files=found is None)
    if rule == "file":
        return Cut(_cut(texts, rule), known=True, how="each file is one")
    if rule == "blank_line":
        return Cut(_cut(texts, rule), known=False, how=f"{before}cut at blank lines")
    return Cut(_cut(texts, rule), known=False, how=f"{before}cut into blocks of about 4 KiB")


def _cut(texts: list[StoredText], rule: DocumentRule) -> Pieces:
    """Cut by a rule that is settled."""
    pieces = Pieces()
    for text in texts:
        if rule == "file":
            pieces.add(text, iter([(0, text.size, text.read())]))
        else:
            pieces.add(text, text.pieces(_paragraphs if rule == "blank_line" else _blocks))
    return pieces


def settled(rule: DocumentRule, texts: list[StoredText], *, are_files: bool = True) -> DocumentRule:
    """The rule that `auto` comes to for texts without a separator."""
    if rule != "auto":
        return rule
    if are_files and len(texts) >= ENOUGH:
        return "file"
    paragraphs = (piece for text in texts for piece in text.pieces(_paragraphs))
    return "blank_line" if sum(1 for _ in islice(paragraphs, ENOUGH)) >= ENOUGH else "block"


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


class Recognised(NamedTuple):
    """A known separator that is in some texts."""

    name: str
    times: int
    """How often it is there, over all texts."""


def recognise(texts: list[StoredText]) -> Recognised | None:
    """The known separator that occurs most often: anywhere in a few texts, in most of many."""
    found = [_count_known(text) for text in texts]
    counts = {}
    for name in _KNOWN:
        of_each = [of_one[name] for of_one in found]
        if len(texts) < ENOUGH or 2 * sum(map(bool, of_each)) > len(texts):
            counts[name] = sum(of_each)
    best = max(counts, key=lambda name: counts[name], default=None)
    return Recognised(best, counts[best]) if best is not None and counts[best] else None


def _count_known(text: StoredText) -> dict[str, int]:
    """How often each known separator is in a text."""
    counts = dict.fromkeys(_KNOWN, 0)

    def count(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
        stop = _whole_lines(buffer, last)
        for name, pattern in _KNOWN.items():
            if _NEEDLES.get(name, name) in buffer:
                counts[name] += sum(1 for _ in re.compile(pattern, re.MULTILINE).finditer(buffer, 0, stop))
        return [], stop

    for _ in text.pieces(count):
        pass
    return counts


def occurs(text: StoredText, separator: str) -> bool:
    """Whether a separator of one's own is in a text. One that is a regular expression may ask for anything around it:
    the whole text is read for it."""
    pattern = compile_separator(separator)

    def look(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
        match = pattern.search(buffer)
        return ([match.span()] if match else []), max(len(buffer) - len(separator), 0)

    return any(True for _ in text.pieces(look, whole=separator.startswith(REGEX)))


def is_nowhere(separator: str) -> UserError:
    return UserError(f"data.separator={separator} occurs nowhere in the text; a pattern begins with re:")


def _whole_lines(buffer: str, last: bool) -> int:
    return len(buffer) if last else buffer.rfind("\n") + 1


def _part_cutter(separator: re.Pattern[str], *, keep: bool = False, lines: bool = False) -> StoredCut:
    """Cut into the parts between the matches, without line ends around them.

    Args:
        keep: nothing is dropped; white space before the first part joins it.
        lines: the separator asks whether it stands at the end of a line.
    """

    def cut(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
        matches = [match.span() for match in separator.finditer(buffer, 0, _whole_lines(buffer, last or not lines))]
        if keep and first and matches and not buffer[: matches[0][0]].strip():
            del matches[0]
        places = [0, *(place for span in matches for place in span), *([len(buffer)] if last else [])]
        parts = list(zip(places[::2], places[1::2], strict=False))
        if keep:
            return [(start, stop) for start, stop in parts if stop > start], places[-1]
        return [_stripped(buffer, *part) for part in parts if buffer[slice(*part)].strip()], places[-1]

    return cut


def _stripped(buffer: str, start: int, stop: int) -> tuple[int, int]:
    part = buffer[start:stop]
    return stop - len(part.lstrip("\r\n")), start + len(part.rstrip("\r\n"))


def _parts(text: StoredText, separator: re.Pattern[str], *, keep: bool) -> Iterator[StoredText]:
    """The parts that `_part_cutter` with `lines` cuts, by their places alone, however long they are."""

    def find(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
        stop = _whole_lines(buffer, last)
        return [match.span() for match in separator.finditer(buffer, 0, stop)], stop

    spans = [(start, stop) for start, stop, _ in text.pieces(find)]
    if keep and spans and text.part(0, spans[0][0]).is_blank():
        del spans[0]
    places = [0, *(place for span in spans for place in span), text.size]
    for start, stop in zip(places[::2], places[1::2], strict=True):
        part = text.part(start, stop)
        if keep and part.size:
            yield part
        elif not keep and not part.is_blank():
            yield part.without_line_ends()


def _paragraphs(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
    found, start = [], 0
    for match in _GAP.finditer(buffer):
        if not last and not _NO_GAP.match(buffer, match.end()):  # the gap may go on behind the buffer
            break
        found.append((start, match.start()))
        start = match.end()
    if last:
        found.append((start, len(buffer)))
        start = len(buffer)
    return [span for span in found if buffer[slice(*span)].strip()], start


def _blocks(buffer: str, first: bool, last: bool) -> tuple[list[tuple[int, int]], int]:
    """Pieces of at most BLOCK characters that end at a line, else at a word, else anywhere."""
    found, start = [], 0
    while start < len(buffer) and (last or start + BLOCK < len(buffer)):
        end = min(start + BLOCK, len(buffer))
        if end < len(buffer):
            for separator in ("\n", " "):
                cut = buffer.rfind(separator, start + BLOCK // 2, end)
                if cut >= 0:
                    end = cut + 1
                    break
        if buffer[start:end].strip():
            found.append((start, end))
        start = end
    return found, start
