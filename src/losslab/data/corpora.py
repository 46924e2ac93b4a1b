"""Sources of text: a person's files, or the documents that come with Python. Both are read once, and only if needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from losslab.data import python_docs
from losslab.data.read_texts import Read, hash_read, hash_texts
from losslab.data.sources import Corpus, TextSource, corpus_of
from losslab.data.stamps import kept

_FORMAT = 1
"""The form of the line about files and of the hashes, which are kept between runs."""
_BUILT_IN = "one a topic or module"


class Text(Protocol):
    """A source of text. `memory` is the folder where hashes are kept between runs, or None."""

    def hashes(self, memory: Path | None) -> dict[str, str]:
        """SHA-256 by dotted key; the first is that of the whole text, its own splits included."""

    def told(self, memory: Path | None) -> str | None:
        """One line for people: which files are read, and which are not and why; None where there are none."""

    def corpus(self) -> Corpus:
        """Documents by split; the text is forgotten afterwards. Raises UserError for too short a text."""

    def whole(self) -> Corpus:
        """All documents together."""

    def rules(self) -> dict[str, str]:
        """Settings beside the text that decide documents and splits."""


class OwnText:
    """The files of a person's own text."""

    def __init__(self, source: TextSource) -> None:
        self.source = source
        self._read: Read | None = None
        self._found: dict[str, Any] | None = None

    def hashes(self, memory: Path | None) -> dict[str, str]:
        hashes: dict[str, str] = self._find(memory)["hashes"]
        return hashes

    def told(self, memory: Path | None) -> str | None:
        line: str = self._find(memory)["told"]
        return line

    def corpus(self) -> Corpus:
        read, self._read = self._opened(), None
        return self.source.cut(read)

    def whole(self) -> Corpus:
        return self.source.cut_whole(self._opened())

    def rules(self) -> dict[str, str]:
        return self.source.rules_of_splits()

    def _opened(self) -> Read:
        if self._read is None:
            self._read = self.source.read()
        return self._read

    def _find(self, memory: Path | None) -> dict[str, Any]:
        if self._found is None:
            files, about = self.source.plan()
            self._found = kept(memory, files, ["text", _FORMAT, about], self._hash)
        return self._found

    def _hash(self) -> dict[str, Any]:
        read = self._opened()
        given = {f"data.{split}_path": hash_texts(read.texts[split]) for split in self.source.given()}
        return {"hashes": {"data.path": hash_read(read)} | given, "told": read.told()}


class BuiltInText:
    """The corpus python_docs."""

    def hashes(self, memory: Path | None) -> dict[str, str]:
        def find() -> dict[str, str]:
            return {"data.corpus": python_docs.source_hash()}

        return kept(memory, python_docs.source_files(), ["python_docs", _FORMAT], find)

    def told(self, memory: Path | None) -> str | None:
        return None

    def corpus(self) -> Corpus:
        return corpus_of(python_docs.read_texts(), _BUILT_IN)

    def whole(self) -> Corpus:
        return self.corpus()

    def rules(self) -> dict[str, str]:
        return {}
