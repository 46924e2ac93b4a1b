"""A text's files once they were read: their contents by part, the hash of these, and a line about them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from losslab.data.stored_text import StoredText
from losslab.data.text_files import told

WHOLE = "all"
"""The part of texts that are still to be split."""
_MOST_NAMES = 4


@dataclass(frozen=True)
class Read:
    """Files that were read once, by the part of the text that they are: `all`, or train, val and test."""

    texts: dict[str, list[StoredText]]
    files: dict[str, list[Path]]
    """Files by part, without those that are empty."""
    left_out: Counter[str]
    copies: int
    """Files whose content another one has, too."""
    characters: int
    beside: list[Path]
    """Files that look like the val and test of the one file that was named."""

    def told(self) -> str:
        """One line for people: what was read, and what was left out and why."""
        paths = [path for paths in self.files.values() for path in paths]
        names = f" ({', '.join(path.name for path in paths)})" if len(paths) <= _MOST_NAMES else ""
        line = f"read {len(paths):,} file{'s' * (len(paths) != 1)}{names}, {self.characters:,} characters"
        if self.copies:
            line += f"; {self.copies:,} of them {'has' if self.copies == 1 else 'have'} the content of another"
        if self.beside:
            others = ", ".join(path.name for path in self.beside)
            line += f"; beside it lie {others}: data.path={paths[0].parent} takes them"
        return line + (f"; left out: {told(self.left_out)}" if self.left_out else "")


def hash_read(read: Read) -> str:
    """SHA-256 of the content, and of the part that each text is; names and places of files do not count."""
    if list(read.texts) == [WHOLE]:
        return hash_texts(read.texts[WHOLE])
    parts = ",".join(f"{part}:{hash_texts(texts)}" for part, texts in read.texts.items())
    return hashlib.sha256(parts.encode()).hexdigest()


def hash_texts(texts: list[StoredText]) -> str:
    """SHA-256 of the texts' content; names and places of files do not count."""
    digest = hashlib.sha256()
    for text in texts:
        text.feed(digest)
    return digest.hexdigest()


def words_of(texts: list[StoredText]) -> int:
    """Words of the original texts (`losslab.data.words`)."""
    return sum(text.count_words() for text in texts)
