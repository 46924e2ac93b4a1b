"""The LightningDataModule for questions about texts, in windows: SQuAD and its like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import DataInfo, Task
from losslab.data.question_store import QuestionReading, QuestionStore, SplitBy, open_questions
from losslab.data.question_windows import NO_SPAN, QuestionSamples, WindowRule, is_unreached
from losslab.data.questions import SUFFIXES, Faulty
from losslab.data.row_introduction import counted
from losslab.data.sampler import EvalSamples
from losslab.data.samples import SamplesDataModule
from losslab.data.splits import SPLITS
from losslab.data.tables import suffix_of
from losslab.data.tokenizer import FileTokenizer, Tokenizer, tokenizer_of
from losslab.data.tokenizer_choice import check_choice
from losslab.errors import UserError


@dataclass(frozen=True)
class SplitWindows(Sequence[dict[str, Any]]):
    """The windows of a split, made when they are asked for."""

    store: QuestionStore
    rule: WindowRule
    tokenizer: Tokenizer
    numbers: NDArray[np.int64]
    """[Q]: the questions of the split."""
    question: NDArray[np.int64]
    """[W]: the place of each window's question among `numbers`."""
    parts: NDArray[np.int64]
    """[W, 2]: the first token of each window's text, and the one behind its last."""
    cut: int
    """Questions that are longer than the rule allows."""
    unreached: int
    """Questions whose answer stands whole in no window."""

    @classmethod
    def of(cls, store: QuestionStore, split: str, rule: WindowRule, tokenizer: Tokenizer) -> SplitWindows:
        """The windows of all questions of a split."""
        numbers = store.numbers(split)
        questions, texts = store.lengths(numbers)
        parts = [rule.parts(question, text) for question, text in zip(questions, texts, strict=True)]
        place = np.repeat(np.arange(len(parts)), [len(own) for own in parts])
        unreached = sum(
            is_unreached(own, store.span(number)) for own, number in zip(parts, numbers.tolist(), strict=True)
        )
        cut = sum(question > rule.longest_question for question in questions)
        flat = np.array([each for own in parts for each in own], dtype=np.int64).reshape(-1, 2)
        return cls(store, rule, tokenizer, numbers, place, flat, cut, unreached)

    def __len__(self) -> int:
        return len(self.question)

    def __getitem__(self, window: Any) -> Any:
        number = int(self.numbers[self.question[window]])
        start, stop = self.parts[window].tolist()
        return self.rule.example(
            self.store.question(number), self.store.text(number), (start, stop), span=self.store.span(number),
            number=number, tokenizer=self.tokenizer,
        )  # fmt: skip

    def without_answer(self) -> int:
        """Questions that their text does not answer."""
        return int((self.store.arrays["span"][self.numbers, 0] == NO_SPAN[0]).sum())


class Squad(SamplesDataModule):
    """Questions about texts, out of files in the form of SQuAD 1.1 or 2.0, or of a question a line (Rajpurkar et al.
    2016, arXiv:1606.05250; 2018, arXiv:1806.03822). A sample is a window of a text behind a question.

    Args:
        path: FILE of train (.json, .jsonl, also .gz and .zst).
        val_path, test_path: the same, of splits of their own; else they are parts of train.
        val_fraction, test_fraction: share of the questions; default: a twentieth, but at least 100 of them and at most
            a quarter.
        split_by: what stays in one split: the questions of an article (of a text, where a file has no titles), or those
            of a text.
        faulty: refuse or skip questions that cannot be used; those that are skipped are counted.
        tokenizer: bytes, bpe (trained on the texts and questions of train), or the path of a tokenizer.json.
        vocab_size: of the trained bpe.
        lowercase: the trained bpe lowers the case of what it reads.
        special_tokens: windows begin with the token that the post-processor of a tokenizer.json puts before texts
            ([CLS]), instead of the end of text.
        context, max_question, stride: see `losslab.data.question_windows.WindowRule`.
        batch_size: windows in one optimizer step, over all devices and micro-batches.
        val_batch_size: windows evaluated at once on each device.
        num_workers: processes that make batches.

    Raises:
        UserError: for missing or contradictory arguments; no question is read yet.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        split_by: SplitBy = "article",
        faulty: Faulty = "refuse",
        tokenizer: str = "bpe",
        vocab_size: int = 8192,
        lowercase: bool = False,
        special_tokens: bool | None = None,
        context: int,
        max_question: int | None = None,
        stride: int | None = None,
        batch_size: int = 16,
        val_batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers)
        given = {"train": path, "val": val_path, "test": test_path}
        if path is None:
            raise UserError("data.path is missing: data=squad data.path=FILE, in the form of SQuAD (train-v2.0.json)")
        for split, fraction in (("val", val_fraction), ("test", test_fraction)):
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"data.{split}_fraction must be above 0 and below 1, not {fraction}")
            if fraction is not None and given[split] is not None:
                raise UserError(
                    f"give data.{split}_path or data.{split}_fraction, not both: {split} has questions of its own"
                )
        if (held_back := (val_fraction or 0) + (test_fraction or 0)) >= 1:
            raise UserError(
                f"data.val_fraction and data.test_fraction leave nothing to train on: together they are {held_back:g}"
            )
        check_choice(tokenizer, vocab_size, lowercase=lowercase, special=bool(special_tokens))
        self.paths = {split: _file(split, name) for split, name in given.items() if name is not None}
        self.rule = WindowRule(context, max_question, stride)
        self.rule.check()
        self.reading = QuestionReading(val_fraction, test_fraction, split_by, faulty)
        self.choice = {
            "tokenizer": tokenizer,
            "vocab_size": vocab_size,
            "lowercase": lowercase,
            "begins": bool(special_tokens),
        }
        self._store: QuestionStore | None = None

    def check_task(self, task: Task) -> None:
        """Raises UserError for a task that does not look for places in a text."""
        if not task.points:
            raise UserError(
                f"data=squad gives questions about texts, and {chosen('task', task)} reads none: task=qa does"
            )
        super().check_task(task)

    def files(self) -> Mapping[str, Path]:
        """The files of questions, and that of a tokenizer."""
        keys = {"train": "data.path", "val": "data.val_path", "test": "data.test_path"}
        return {keys[split]: path for split, path in self.paths.items()}

    def content_hashes(self, task: Task) -> dict[str, str]:
        hashes = super().content_hashes(task)
        if (choice := str(self.choice["tokenizer"])) not in ("bpe", "bytes"):
            hashes["data.tokenizer"] = FileTokenizer.read(choice).digest()
        return hashes

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read and encode the questions, or open what was encoded before.

        Raises:
            UserError: for questions that cannot be used, and too few of them.
        """
        settings = {"hashes": self.content_hashes(task), "reading": asdict(self.reading), **self.choice}
        self._store = store = open_questions(cache, settings, self.paths, self.reading)
        self.vocab_size = store.meta["vocab_size"]
        return replace(super().prepare(cache, task), passages=store.passage)

    @property
    def store(self) -> QuestionStore:
        assert self._store is not None, "prepare() comes first"
        return self._store

    def datasets(self) -> Mapping[str, SplitWindows]:
        """The windows of each split."""
        tokenizer = tokenizer_of(self.artifacts())
        assert tokenizer is not None, "its artifacts hold one"
        return {split: SplitWindows.of(self.store, split, self.rule, tokenizer) for split in self.splits}

    def sampler(self, split: str, samples: Sequence[Any], counts: Tensor | None) -> EvalSamples:
        assert isinstance(samples, SplitWindows), "datasets() makes them"
        arrays, numbers = self.store.arrays, samples.numbers
        return QuestionSamples(samples.question, arrays["hashes"][numbers], arrays["text"][numbers])

    def artifacts(self) -> dict[str, str]:
        return dict(self.store.meta["artifacts"])

    def told(self) -> str:
        names = ", ".join(path.name for path in self.paths.values())
        return f"{len(self.paths)} file{'s' * (len(self.paths) != 1)} ({names})"

    def _counts(self, count: str) -> dict[str, int]:
        """A number of each split's windows by the split's name."""
        found = {split: self._splits[split].samples for split in SPLITS}
        values = {split: getattr(windows, count) for split, windows in found.items()}
        return {split: value() if callable(value) else value for split, value in values.items()}

    def summary(self) -> dict[str, Any]:
        """The questions as the record keeps them."""
        meta = self.store.meta
        found = {key: meta[key] for key in ("how", "skipped", "copies", "unaligned")} | {"files": self.told()}
        found["questions"] = {split: len(self.store.numbers(split)) for split in SPLITS}
        return super().summary() | found | {key: self._counts(key) for key in ("without_answer", "cut", "unreached")}

    def introduction(self, interim: int) -> Iterator[tuple[str, bool]]:
        """Files, questions, windows, and what was left out, cut off or out of reach."""
        found = self.summary()
        yield f"read   {found['files']}", False
        yield f"       {counted(found['questions'])} questions; splits: {found['how']}", False
        if found["skipped"]:
            yield f"       left out: {' · '.join(f'{n:,} {what}' for what, n in found['skipped'].items())}", False
        yield f"       {counted(found['without_answer'])} have no answer", False
        yield f"data   {counted(found['positions'])} windows, vocabulary {self.vocab_size:,}", False
        if found["unaligned"]:
            yield f"       {found['unaligned']:,} answers begin or end inside a token, all of which counts", False
        for split, copies in found["copies"].items():
            if copies:
                every = found["questions"][split]
                yield f"{copies:,} of {every:,} {split} questions are about texts of an earlier split", True
        if any(found["cut"].values()):
            longest = self.rule.longest_question
            yield (
                f"{counted(found['cut'])} questions are longer than data.max_question={longest} and were cut off",
                True,
            )
        if any(found["unreached"].values()):
            cure = "a smaller data.stride helps, or a longer data.context"
            yield f"{counted(found['unreached'])} answers stand whole in no window: {cure}", True
        if not any(found["without_answer"].values()):
            yield "every question has an answer: task.null_threshold=null predicts one for each", True


def _file(split: str, name: str) -> Path:
    key = "data.path" if split == "train" else f"data.{split}_path"
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"{key}={name} {'is a folder: name the file' if path.is_dir() else 'does not exist'}")
    if suffix_of(path) not in SUFFIXES:
        raise UserError(f"{key}={name} must end in {', '.join(SUFFIXES)} (also .gz and .zst)")
    return path
