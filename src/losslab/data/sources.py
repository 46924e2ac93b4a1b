"""A person's own text: files, read and cut into the documents of train, val and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from losslab.data.documents import (
    ENOUGH,
    Cut,
    DocumentRule,
    compile_separator,
    cut_documents,
    cut_texts,
    is_nowhere,
    occurs,
    recognise,
    settled,
)
from losslab.data.own_splits import own_splits
from losslab.data.pieces import Documents
from losslab.data.read_texts import WHOLE, Read, words_of
from losslab.data.splits import SPLITS, Groups, Shares, assign, assign_groups, assign_stretches, split_documents
from losslab.data.stored_text import StoredText
from losslab.data.text_files import FileText, Found, Spool, find_files, read_file
from losslab.data.words import count_words
from losslab.errors import UserError

Rules = Literal[1, 2]
HASHED = "each document's hash decides"
_MOST_NAMES = 4


@dataclass(frozen=True)
class Corpus:
    """Documents, by split."""

    documents: Mapping[str, Sequence[str]]
    words: dict[str, int]
    """Split → words of its original text (`losslab.data.words`)."""
    how: dict[str, str]
    """`documents` and `splits` → how they were made, for people."""

    def together(self, splits: Sequence[str]) -> Sequence[str]:
        """The documents of these splits; those of a single one stay on the disk."""
        found = [self.documents[split] for split in splits]
        return found[0] if len(found) == 1 else [text for texts in found for text in texts]


def corpus_of(documents: list[str], how: str) -> Corpus:
    """Documents that are split by their hashes alone."""
    split = split_documents(documents)
    return Corpus(
        split,
        {name: sum(map(count_words, texts)) for name, texts in split.items()},
        {"documents": how, "splits": HASHED},
    )


@dataclass(frozen=True)
class TextSource:
    """A text's files, and the rules by which it becomes documents and splits.

    Args:
        path, val_path, test_path: FILE, DIR or GLOB; what val_path and test_path name is left out of path.
        documents: how files are cut; auto also looks for known separators (rules 2).
        separator: what stands between documents: text, or re:PATTERN.
        val_fraction, test_fraction: of the bytes; None: about a twentieth of the documents.
        rules: 1 as losslab did up to 0.1: no separator and no splits of a folder are looked for, and every document's
            hash decides, those of one file's blocks too. 2: known separators and splits are taken, and blocks of one
            file stay neighbours in one split.
    """

    path: str
    val_path: str | None = None
    test_path: str | None = None
    documents: DocumentRule = "auto"
    separator: str | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    rules: Rules = 2

    def check(self) -> None:
        """Refuse what cannot work before any file is read. Raises UserError."""
        if self.separator is not None:
            compile_separator(self.separator)
            if self.documents != "auto":
                raise UserError("data.separator cuts the documents: leave data.documents out")
        for split in ("val", "test"):
            fraction, path = getattr(self, f"{split}_fraction"), getattr(self, f"{split}_path")
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"data.{split}_fraction must be above 0 and below 1, not {fraction}")
            if fraction is not None and path is not None:
                raise UserError(f"give data.{split}_path or data.{split}_fraction, not both")
        if (held_back := (self.val_fraction or 0) + (self.test_fraction or 0)) >= 1:
            raise UserError(
                f"data.val_fraction and data.test_fraction leave nothing to train on: together they are {held_back:g}"
            )
        self._find()

    def plan(self) -> tuple[list[Path], dict[str, Any]]:
        """The files that `read` reads, and plain values that its result follows from beside their content."""
        files, left_out = self._find()
        about = {"parts": {part: len(paths) for part, paths in files.items()}, "left_out": sorted(left_out.items())}
        about |= {"given": list(self.given()), "beside": [str(path) for path in self._beside(files)]}
        return [path for paths in files.values() for path in paths], about

    def read(self) -> Read:
        """Read every file once. Raises UserError when there is no text."""
        files, left_out = self._find()
        texts: dict[str, list[StoredText]] = {}
        kept: dict[str, list[Path]] = {}
        every: list[FileText] = []
        unpacked = Spool()
        for part, paths in files.items():
            content = [(path, read_file(path, unpacked)) for path in paths]
            full = [(path, found) for path, found in content if not found.blank]
            if len(full) < len(content):
                left_out["empty"] += len(content) - len(full)
            if not full:
                key = f"{part}_path" if self.given().get(part) else "path"
                raise UserError(f"data.{key}={getattr(self, key)} holds no text: it is empty")
            texts[part], kept[part] = [found.text for _, found in full], [path for path, _ in full]
            every += [found for _, found in full]
        copies = len(every) - len({found.digest for found in every})
        return Read(texts, kept, left_out, copies, sum(found.characters for found in every), self._beside(files))

    def cut(self, read: Read) -> Corpus:
        """Cut what was read into documents, and split what is not split yet.

        Raises:
            UserError: where there are too few documents.
        """
        own = list(read.texts) != [WHOLE]
        if self.rules == 1 and self.separator is None:
            pieces = {part: cut_documents(texts, self.documents) for part, texts in read.texts.items()}
            known, how = True, "cut by data.rules=1"
        else:
            cuts = self._cut_parts(read.texts)
            pieces = {part: cut.pieces for part, cut in cuts.items()}
            known, how = cuts["train" if own else WHOLE].known, _how(cuts)
        whole = pieces.pop("train" if own else WHOLE)
        documents = {part: Documents(found) for part, found in pieces.items()}
        words = {part: words_of(read.texts[part]) for part in pieces}
        if not (shares := self._shares(pieces)):
            documents["train"] = Documents(whole)
            words["train"] = words_of(read.texts["train"])
            return Corpus(documents, words, {"documents": how, "splits": "its own"})
        chosen, rule = _split(whole.groups, shares, known=known)
        split = {name: Documents(whole, np.flatnonzero(chosen == code)) for code, name in enumerate(SPLITS)}
        counted = {name: found.words for name, found in split.items()}
        rule = f"its own {' and '.join(documents)}; of the rest, {rule}" if own else rule
        return Corpus(split | documents, counted | words, {"documents": how, "splits": rule})

    def _cut_parts(self, parts: dict[str, list[StoredText]]) -> dict[str, Cut]:
        """Each part of the text, cut; those without known separators all by one rule."""
        if list(parts) == [WHOLE]:
            return {WHOLE: cut_texts(parts[WHOLE], self.documents, self.separator)}
        if self.separator is not None:
            if not any(occurs(text, self.separator) for texts in parts.values() for text in texts):
                raise is_nowhere(self.separator)
            return {part: cut_texts(texts, self.documents, self.separator) for part, texts in parts.items()}
        marked = {part for part, texts in parts.items() if self.documents == "auto" and recognise(texts)}
        rule = settled(self.documents, [text for part in parts.keys() - marked for text in parts[part]])
        return {
            part: cut_texts(texts, "auto" if part in marked else rule, None, enough=1) for part, texts in parts.items()
        }

    def cut_whole(self, read: Read) -> Corpus:
        """All documents together, as those of `all`."""
        texts = [text for part in read.texts.values() for text in part]
        if self.rules == 1 and self.separator is None:
            return Corpus({WHOLE: Documents(cut_documents(texts, self.documents))}, {WHOLE: words_of(texts)}, {})
        cut = cut_texts(texts, self.documents, self.separator)
        return Corpus({WHOLE: Documents(cut.pieces)}, {WHOLE: words_of(texts)}, {"documents": cut.how})

    def rules_of_splits(self) -> dict[str, str]:
        """Rules of documents and splits beside the text and `documents`, where they are not the first ones."""
        values = {
            "separator": self.separator,
            "val_fraction": self.val_fraction,
            "test_fraction": self.test_fraction,
            "rules": None if self.rules == 1 else self.rules,
        }
        return {key: str(value) for key, value in values.items() if value is not None}

    def _shares(self, there: Container[str]) -> Shares:
        given = {"val": self.val_fraction, "test": self.test_fraction}
        return {split: share for split, share in given.items() if split not in there}

    def _find(self) -> tuple[dict[str, list[Path]], Counter[str]]:
        """The files of each part, and what is left out."""
        main = find_files(self.path)
        given = {split: find_files(path, f"data.{split}_path") for split, path in self.given().items()}
        left_out = main.left_out + sum((found.left_out for found in given.values()), Counter[str]())
        parts = self._own(main, left_out) if self.rules == 2 else {}
        for split in parts.keys() & {"val", "test"}:
            if split in given:
                left_out[f"of the folder's own {split} (data.{split}_path is given)"] += len(parts.pop(split))
            elif getattr(self, f"{split}_fraction") is not None:
                raise UserError(
                    f"data.path={self.path} has a {split} split of its own ({parts[split][0].name}): leave "
                    f"data.{split}_fraction out"
                )
        if not parts and not given:
            return {WHOLE: main.files}, left_out
        parts = {"train": parts.get("train", main.files)} | parts | {s: found.files for s, found in given.items()}
        elsewhere = {os.path.realpath(path) for found in given.values() for path in found.files}
        train = [path for path in parts["train"] if os.path.realpath(path) not in elsewhere]
        if len(train) < len(parts["train"]):
            left_out["from train (it is val or test)"] += len(parts["train"]) - len(train)
        if not train:
            raise UserError(f"data.path={self.path} names no file that is not val or test: nothing is left to train on")
        return {split: {**parts, "train": train}[split] for split in SPLITS if split in parts}, left_out

    def _beside(self, files: dict[str, list[Path]]) -> list[Path]:
        """Files that would be val and test if the folder of the only file were named."""
        if list(files) != [WHOLE] or len(files[WHOLE]) > 1 or self.rules == 1:
            return []
        folder = files[WHOLE][0].parent
        parts = own_splits([path for path in sorted(folder.iterdir()) if path.is_file()], folder)
        is_train = files[WHOLE][0] in parts.get("train", [])
        return [path for split in ("val", "test") for path in parts.get(split, [])] if is_train else []

    def given(self) -> dict[str, str]:
        """Paths of splits of their own, by split."""
        return {split: path for split, path in (("val", self.val_path), ("test", self.test_path)) if path is not None}

    def _own(self, main: Found, left_out: Counter[str]) -> dict[str, list[Path]]:
        """The splits that the data set brings along; what is in none of them is left out."""
        parts = own_splits(main.files, main.root)
        outside = set(main.files) - {path for paths in parts.values() for path in paths}
        if parts and outside:
            names = ", ".join(sorted(path.name for path in outside)) if len(outside) <= _MOST_NAMES else "in no split"
            left_out[f"beside the splits ({names})"] += len(outside)
        return parts


def _split(groups: Groups, shares: Shares, *, known: bool) -> tuple[NDArray[np.int8], str]:
    """The splits of documents or of parts of texts, as numbers, and the rule for people."""
    if known:
        return assign(groups.hashes, groups.sizes, shares), HASHED
    if len(groups.ends) >= ENOUGH:
        return assign_groups(groups, shares), "each file's hash decides, and its pieces stay together"
    return (
        assign_stretches(groups, shares),
        f"neighbours stay together, one stretch of each file in {' and one in '.join(shares)}",
    )


def _how(cuts: dict[str, Cut]) -> str:
    """The rules by which the parts were cut: named once, if all were cut alike."""
    if len({cut.how for cut in cuts.values()}) == 1:
        return next(iter(cuts.values())).how
    return ", ".join(f"{part} {cut.how}" for part, cut in cuts.items())
