"""The LightningDataModule for rows: of files or of another source, which the task turns into examples and batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from losslab.choices import chosen
from losslab.contracts import Batch, DataInfo, DataModule, Share, SplitContent, SplitInfo, Subset, Task
from losslab.data.augmentation import Augmentation
from losslab.data.columns import class_names
from losslab.data.long_rows import LongRows
from losslab.data.paraphrases import files_of
from losslab.data.per_class import PerClass
from losslab.data.row_content import row_content
from losslab.data.row_draws import RowDraws
from losslab.data.row_files import FileRows, hash_files, source_of
from losslab.data.row_introduction import introduce_rows
from losslab.data.row_reading import Reading, Rules, Unlabelled
from losslab.data.row_settings import row_settings
from losslab.data.row_source import RowSource
from losslab.data.row_store import RowStore, open_rows
from losslab.data.row_tasks import check_task_of_rows
from losslab.data.sampler import EvalSamples, count_positions
from losslab.data.table_format import FormatName, TableFormat
from losslab.data.tokenizer import FileTokenizer
from losslab.data.tokenizer_choice import check_choice
from losslab.data.train_rows import Sampling, TrainRows
from losslab.errors import UserError

_SAMPLE = 4096
"""Rows of train from which the mean number of positions is taken."""
_AT_ONCE = 256


class RowsDataModule(DataModule):
    """Rows of a person's own table. Which columns are read, and as what, the task says (`Task.columns`).

    Args:
        path: a file, folder, glob or a list of these (.csv, .tsv, .jsonl, .ndjson, .parquet, also .gz and .zst).
            Files of a folder or glob named train.csv, test.csv and the like are splits of their own.
        val_path, test_path: the same, of splits of their own.
        source: rows that stand in no such files, instead of path, or more of their cells than the files hold: a class
            of its own (`RowSource`).
        columns: the task's name of a column → the file's, where they differ.
        val_fraction, test_fraction: share of the rows; default: a twentieth, but at least 100 of them and at most a
            quarter. A hash of a row's inputs decides where it belongs, within each label.
        group: a column of the file; rows with the same cell stay in one split.
        unlabelled: refuse or skip rows without a target; those that are skipped are counted.
        rules: 2, or 1 for rows and splits of losslab before: texts that are empty are kept, and splits do not look at
            labels or at the names of files.
        delimiter: of csv; default: the one of comma, semicolon, tab and | that divides the first line most often.
        quotes: of csv: cells may stand in quotation marks.
        header: of csv whose first line is a row: the names of its columns.
        encoding: of the files, a name of an encoding that Python has.
        format: of the files; default: by the suffix of each.
        tokenizer: bytes, bpe (trained on the train split), or the path of a tokenizer.json.
        vocab_size: of the trained bpe; of columns of words, the most that have an id of their own.
        lowercase: the trained bpe lowers the case of what it reads.
        special_tokens: a text begins with the token that the post-processor of a tokenizer.json puts there ([CLS]).
        context: T, the longest sequence; what is longer is cut off, and counted.
        eval_stride: rows of val and test that are longer are read in windows of `context`, which begin so many tokens
            apart, and have one prediction; None: they are cut off, too.
        augment: changes to the rows of train (`Augmentation`).
        batch_size: rows in one optimizer step, over all devices and micro-batches.
        batch_tokens: tokens in one optimizer step, padding included, of at most `batch_size` rows of similar length;
            None: `batch_size` rows of any length.
        balance: 0: rows as they are; 1: each class is drawn as often; between them, n^(1 − balance) of its n rows.
        per_class, per_class_seed: a few rows of each class of train (`PerClass`).
        val_batch_size: rows evaluated at once on each device.
        num_workers: processes that make batches.

    Raises:
        UserError: for missing or contradictory arguments; no row is read yet.
    """

    joint = True  # texts that are the target have the tokenizer of the others

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        source: RowSource | None = None,
        columns: dict[str, str] | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        group: str | None = None,
        unlabelled: Unlabelled = "refuse",
        rules: Rules = 1,
        delimiter: str | None = None,
        quotes: bool = True,
        header: list[str] | None = None,
        encoding: str = "utf-8",
        format: FormatName | None = None,
        tokenizer: str = "bytes",
        vocab_size: int = 4096,
        lowercase: bool = False,
        special_tokens: bool | None = None,
        context: int,
        eval_stride: int | None = None,
        augment: dict[str, Any] | None = None,
        batch_size: int = 16,
        batch_tokens: int | None = None,
        balance: float = 0.0,
        per_class: int | None = None,
        per_class_seed: int | None = None,
        val_batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        for name, value in (("batch_size", batch_size), ("val_batch_size", val_batch_size), ("context", context)):
            if value <= 0:
                raise UserError(f"data.{name} must be above 0, not {value}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be 0 or above, not {num_workers}")
        check_choice(tokenizer, vocab_size, lowercase=lowercase, special=bool(special_tokens))
        self.long = LongRows(context, eval_stride)
        self.long.check()
        self.augmentation = Augmentation.of(augment)
        self.augmentation.check_tokenizer(tokenizer)
        self.sampling = Sampling(batch_size=batch_size, batch_tokens=batch_tokens, balance=balance)
        self.sampling.check()
        self.per_class = PerClass(per_class, per_class_seed)
        self.per_class.check()
        form = TableFormat(delimiter, quotes, encoding, None if header is None else tuple(header), format)
        files = FileRows(path or "", val_path, test_path, form, own=rules > 1)
        self.source = source_of(source, path, files, columns or {}, context)
        self.source.check()
        own = group or self.source.group()
        self.reading = Reading(dict(columns or {}), val_fraction, test_fraction, rules, own, unlabelled)
        self.reading.check(self.source)
        self.tokenizer_choice = tokenizer
        self.vocab_size = vocab_size
        self.lowercase = lowercase
        self.special_tokens = bool(special_tokens)
        self.context = context
        self.num_workers = num_workers
        self._store: RowStore | None = None
        self._task: Task | None = None
        self._train: TrainRows | None = None
        self._samplers: dict[str, EvalSamples] = {}

    def check_task(self, task: Task) -> None:
        """Refuse a task that reads no rows, names of columns that it does not have, and files that lack one.

        Raises:
            UserError: naming what there is.
        """
        self.long.check_task(task)
        self.per_class.check_columns(task.columns, chosen("task", task))
        check_task_of_rows(task, self.reading, self.source, self.augmentation, self.sampling, self.tokenizer_choice)

    def content_hashes(self, task: Task) -> dict[str, str]:
        hashes = self.source.hashes(self.memory)
        if self.tokenizer_choice not in ("bpe", "bytes"):
            hashes |= {"data.tokenizer": FileTokenizer.read(self.tokenizer_choice).digest()}
        if self.augmentation.paraphrases is not None:
            hashes |= {"data.augment.paraphrases": hash_files(files_of(self.augmentation.paraphrases))}
        return hashes

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read and encode the rows, or open what was encoded before.

        Raises:
            UserError: for cells that do not fit their columns, labels that train lacks, and too few rows.
        """
        self.check_task(task)
        self._task = task
        self.reading = replace(self.reading, predicted=tuple(task.predicted))
        masks = task.masks or (self.augmentation.masking > 0 and "text" in task.columns.values())
        settings = row_settings(
            task, self.source, self.reading, self.long, hashes=self.content_hashes(task),
            tokenizer=self.tokenizer_choice, vocab_size=self.vocab_size, joint=self.joint, whole=self.splits[1:],
            switches={"lowercase": self.lowercase, "masks": masks, "begins": self.special_tokens},
        )  # fmt: skip
        store = open_rows(cache, settings, self.source, self.reading, task.columns, self.tokenizer_choice)
        self._store = self.per_class.choose(store, self.seed)
        self._train, self._draws = None, RowDraws(task, self._store)
        return self._describe()

    def _describe(self) -> DataInfo:
        meta = self.store.meta
        rows_of_train = self.store.count("train")
        step = -(-rows_of_train // _SAMPLE)
        mean = float(self._positions("train", range(0, rows_of_train, step)).mean())
        splits = {"train": SplitInfo(round(mean * rows_of_train), samples=rows_of_train)}
        for split in self.splits[1:]:
            order = self.store.order(split)
            self._samplers[split] = sampler = EvalSamples(order, self._positions(split, range(len(order))))
            splits[split] = SplitInfo(int(sampler.positions.sum()), sampler.num_units, "sample")
        counts = self.train.class_counts()
        return DataInfo(
            splits=splits,
            mean_positions=mean,
            mean_share=self.store.mean_share(self.task, self.context),
            vocab_size=meta["vocab_size"],
            source_vocab_size=meta.get("source_vocab_size"),
            frame_width=meta.get("frame_width"),
            mask=meta.get("mask"),
            num_classes=meta["num_classes"],
            class_names=class_names(self.task.columns, meta["artifacts"]),
            num_values=meta["num_values"],
            value_stats=self.store.value_stats(),
            class_counts=None if counts is None else torch.tensor(counts).double(),
            artifacts=meta["artifacts"],
        )

    def _positions(self, split: str, rows: range) -> NDArray[np.int64]:
        """[len(rows)]: how many positions of each row count."""
        numbers = np.asarray(rows)
        found = np.zeros(len(rows), dtype=np.int64)
        for part in self.long.parts(self.store.lengths(split, self.task.columns)[numbers], _AT_ONCE):
            found[part] = count_positions(self._collate(split, numbers[part].tolist()).weight)
        return found

    @property
    def store(self) -> RowStore:
        assert self._store is not None, "prepare() comes first"
        return self._store

    @property
    def task(self) -> Task:
        assert self._task is not None, "prepare() comes first"
        return self._task

    @property
    def train(self) -> TrainRows:
        """The rows of train under `seed`."""
        sampling = replace(self.sampling, batch_size=self.batch_size)  # which a trial sets
        if self._train is None or (self._train.seed, self._train.sampling) != (self.seed, sampling):
            names = self.reading.of(self.task.columns)
            self._train = TrainRows(self.store, self.task, sampling, self.augmentation, seed=self.seed, names=names)
        return self._train

    def _collate(self, split: str, rows: Iterable[int]) -> Batch:
        return self.task.collate([self.task.example(self.store.row(split, row)) for row in rows])

    def train_batch(self, step: int, share: Share) -> Batch:
        """Rows of an optimizer step: those at its places in endless passes over train (`losslab.data.row_order`)."""
        return self.train.batch(step, share)

    def places(self, step: int, share: Share) -> range:
        """Those of the order of train, at least one."""
        found = self.train.order.places(step, share)
        return found or range(found.start, found.start + 1)

    @property
    def samples_per_step(self) -> float:
        """Rows of an optimizer step, on average."""
        return self.train.order.samples_per_step

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        """The rows of a split in their order, or those that `most` leaves of them; with `fit`, `unit` and `id`."""
        sampler = self._samplers[split]
        mine = sampler.choose(most, fit=subset == "fit")[share.rank :: share.ranks]
        windows = self.long.windows(self.val_batch_size)
        for places in self.long.parts(self.store.lengths(split, self.task.columns)[mine], self.val_batch_size):
            part = mine[places]
            hashes = np.asarray(self.store.hashes[split])[part]
            batch = self._draws(self._collate(split, part.tolist()), "evaluation", hashes)
            yield batch._replace(extras={**sampler.extras(part, batch.weight), **batch.extras}, windows=windows)

    def texts(self, split: str, column: str) -> list[list[str]]:
        """See `DataModule.texts`: each text alone."""
        return [[text] for text in self.store.texts(split, column)]

    def told(self) -> str | None:
        """One line for people: what is read."""
        return self.source.told()

    def summary(self) -> dict[str, Any]:
        """The rows as the record keeps them: how many, how they were split, copies, and what was skipped or cut off."""
        keys = ("how", "rows", "copies", "grouped", "skipped", "truncated")
        meta = self.store.meta
        found = super().summary() | {key: meta[key] for key in keys} | {"files": self.told()}
        return found | self.long.summary(meta) | self.per_class.summary(meta) | self.train.summary()

    def content(self, split: str) -> SplitContent:
        labels = self.train.labels if split == "train" else None
        return row_content(self.store, self.task, split, reading=self.reading, source=self.source, labels=labels)

    def introduction(self, interim: int) -> Iterator[tuple[str, bool]]:
        """Files, rows, what was skipped, copies between splits, and rows that were cut off."""
        bare = {split: int((sampler.positions == 0).sum()) for split, sampler in self._samplers.items()}
        yield from introduce_rows(self.store.meta, self.source.told(), self.info, self.long, bare)
        yield from ((line, False) for line in (*self.per_class.told(self.store.meta), *self.train.told()))
