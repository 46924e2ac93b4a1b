"""The LightningDataModule for pairs of texts: two files with a sentence a line, or a table of two columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from losslab.choices import chosen
from losslab.contracts import DataInfo, Task
from losslab.data.pair_files import SOURCE, TARGET, PairFiles, line_files
from losslab.data.references import References
from losslab.data.row_files import FileRows
from losslab.data.rows import RowsDataModule
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.table_format import FormatName
from losslab.data.tokenizer import tokenizer_of
from losslab.data.written_targets import writer_of
from losslab.errors import UserError


class PairsDataModule(RowsDataModule):
    """Pairs of texts, for task=translation. What is told of rows in `RowsDataModule` holds for pairs; those of which a
    text is empty are left out, and counted.

    Args:
        source, target: two files of which line n of one goes with line n of the other, also .gz and .zst: FILE, GLOB or
            a list of these.
        val_source, val_target, test_source, test_target: the same, of splits of their own.
        val_references, test_references: further translations of each sentence of val and test, line by line: FILE or
            GLOB of each. `bleu` and `chrf` judge by them, too; nothing else reads them.
        path: a table with the columns `source` and `target` instead (`RowsDataModule`), and val_path and test_path.
        columns: `source` and `target` → the table's columns, where they have other names.
        references: columns of val's and test's own tables that hold further translations; empty cells are none.
        val_fraction, test_fraction: share of the pairs; default: a twentieth, but at least 100 of them and at most a
            quarter. A hash of the source decides where a pair belongs, so that all translations of it stay together.
        delimiter, quotes, header, encoding, format: of the table, see `RowsDataModule`.
        tokenizer: bytes, bpe (trained on the train split), or the path of a tokenizer.json.
        vocab_size: of the trained bpe, or of each of two.
        joint: source and target have one vocabulary, and a bpe is trained on both.
        lowercase: the trained bpe lowers the case of what it reads.
        context: the longest source, and the longest target, with their ends of text.
        longer: what is done with texts that are longer: they are cut at their end and counted, or refused.
        augment: changes to the sources of train (`Augmentation`).
        batch_size: pairs in one optimizer step, over all devices and micro-batches; the most of them with batch_tokens.
        batch_tokens: tokens in one optimizer step, of sources and targets, padding included, of at most `batch_size`
            pairs of similar length; None: `batch_size` pairs of any length.
        val_batch_size: pairs evaluated at once on each device.
        num_workers: processes that make batches.

    Raises:
        UserError: for missing or contradictory arguments; no pair is read yet.
    """

    def __init__(
        self,
        *,
        source: str | list[str] | None = None,
        target: str | list[str] | None = None,
        val_source: str | list[str] | None = None,
        val_target: str | list[str] | None = None,
        test_source: str | list[str] | None = None,
        test_target: str | list[str] | None = None,
        val_references: list[str] | None = None,
        test_references: list[str] | None = None,
        path: str | list[str] | None = None,
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        references: list[str] | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        delimiter: str | None = None,
        quotes: bool = True,
        header: list[str] | None = None,
        encoding: str = "utf-8",
        format: FormatName | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        joint: bool = True,
        lowercase: bool = False,
        context: int,
        longer: Literal["cut", "refuse"] = "cut",
        augment: dict[str, Any] | None = None,
        batch_size: int = 64,
        batch_tokens: int | None = None,
        val_batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        lines = {
            "train": (source, target),
            "val": (val_source, val_target),
            "test": (test_source, test_target),
        }
        tables = {"path": path, "val_path": val_path, "test_path": test_path}
        given = {"val": val_references, "test": test_references}
        files = line_files(lines, tables, encoding, {split: own for split, own in given.items() if own})
        if files is not None and (columns or references):
            key = "columns" if columns else "references"
            raise UserError(f"data.{key} names columns of a table, and data.source and data.target have none")
        if files is None and (split := next((split for split, own in given.items() if own), None)):
            raise UserError(
                f"data.{split}_references goes with data.{split}_source, line by line; columns of a table: "
                "data.references"
            )
        super().__init__(
            source=files,
            path=path,
            val_path=val_path,
            test_path=test_path,
            columns=columns,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            rules=2,
            delimiter=delimiter,
            quotes=quotes,
            header=header,
            encoding=encoding,
            format=format,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            lowercase=lowercase,
            context=context,
            augment=augment,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
        )
        if not joint and tokenizer != "bpe":
            raise UserError(
                f"data.joint=false trains a bpe for the sources and another for the targets, and data.tokenizer="
                f"{tokenizer} is one for both: leave data.joint, or give data.tokenizer=bpe"
            )
        self.joint = joint
        self.longer = longer
        self.further = References(self.source, self._further(files, references or []))
        self.further.check()

    def _further(self, files: PairFiles | None, columns: list[str]) -> dict[str, list[str]]:
        """Split → columns of further translations."""
        own = [split for split in ("val", "test") if split in self.source.splits()]
        if columns and not own:
            raise UserError(
                "data.references goes with tables of their own for val and test: give data.val_path and data.test_path"
            )
        return {split: columns if files is None else files.reference_columns(split) for split in own}

    def check_task(self, task: Task) -> None:
        """See `RowsDataModule.check_task`; a task without the columns of a pair is refused, too."""
        if not {SOURCE, TARGET} <= task.columns.keys():
            raise UserError(
                f"data=pairs gives sources and their targets, and {chosen('task', task)} reads none: "
                "task=translation model=encoder_decoder does"
            )
        super().check_task(task)

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read and encode the pairs, or open what was encoded before.

        Raises:
            UserError: for files of unequal length, too few pairs, and texts that are too long where they are refused.
        """
        info = super().prepare(cache, task)
        info = replace(info, references=self.further.count("test", self.reading, task))
        if self.longer == "refuse" and any(self.store.meta["truncated"].values()):
            raise self._too_long(task)
        return info

    def texts(self, split: str, column: str) -> list[list[str]]:
        """See `DataModule.texts`; after each text the further translations."""
        others = self.further.read(split, self.reading, self.task)
        own = super().texts(split, column)
        if others is None:
            return own
        if len(others) != len(own):
            raise UserError(
                f"the files of {split} have changed since they were read: {len(own):,} pairs before, {len(others):,} "
                "now"
            )
        return [[*one, *more] for one, more in zip(own, others, strict=True)]

    def summary(self) -> dict[str, Any]:
        """See `RowsDataModule.summary`; and the runs that wrote targets of train."""
        return super().summary() | ({"written": writers} if (writers := self._writers()) else {})

    def introduction(self, interim: int) -> Iterator[tuple[str, bool]]:
        """See `RowsDataModule.introduction`; and the runs that wrote targets of train."""
        yield from super().introduction(interim)
        for file, about in self._writers().items():
            yield f"{file} was written by {about['run']}, {about['beams']} beams", False

    def _writers(self) -> dict[str, dict[str, Any]]:
        """File of train → its description, where a run wrote it (`losslab translate --to`)."""
        files = self.source.files["train"] if isinstance(self.source, PairFiles | FileRows) else []
        found = {file.name: writer_of(file) for each in files for file in (each if isinstance(each, tuple) else [each])}
        return {name: about for name, about in found.items() if about is not None}

    def _too_long(self, task: Task) -> UserError:
        """The sentence for the first text that is longer than the context: the pairs are read again for it."""
        count = sum(self.store.meta["truncated"].values())
        artifacts = self.store.meta["artifacts"]
        tokenizers = {SOURCE: source_tokenizer_of(artifacts), TARGET: tokenizer_of(artifacts)}
        for split in self.source.splits():
            for place, row, _ in self.reading.parsed(self.source, split, task.columns, Counter()):
                for name, tokenizer in tokenizers.items():
                    assert tokenizer is not None, "columns of text have a tokenizer"
                    ((tokens, _),) = tokenizer.encode([row[name]])
                    if len(tokens) + 1 > self.context:
                        return UserError(
                            f"{place}: its {name} has {len(tokens) + 1:,} tokens, its end among them, and is longer "
                            f"than data.context={self.context} ({count:,} texts are): give a longer model.context, or "
                            "data.longer=cut, which cuts such texts at their end"
                        )
        raise AssertionError("the store counted texts that are too long")
