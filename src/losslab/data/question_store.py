"""Questions on disk, encoded, under a hash of everything that decides them: texts once, whatever is cut out of them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import Passage
from losslab.data.offsets import Located, covering, located
from losslab.data.question_windows import NO_SPAN
from losslab.data.questions import Faulty, Question, QuestionFiles
from losslab.data.row_splits import hash64, split_rows
from losslab.data.splits import SPLITS
from losslab.data.store import DAMAGED, key_of, map_array, open_or_build, read_meta, write_meta
from losslab.data.tokenizer import artifacts_of, make_tokenizer
from losslab.errors import UserError

SplitBy = Literal["article", "context"]
_FORMAT = 1
_ARRAYS = ("tokens", "tokens.ends", "offsets", "questions", "questions.ends", "texts", "texts.ends")
_OF_QUESTIONS = ("text", "split", "span", "hashes", "answers", "answers.ends")


@dataclass(frozen=True)
class QuestionStore:
    """All questions, those of train first, then those of val and of test, and the texts that they are about."""

    meta: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def numbers(self, split: str) -> NDArray[np.int64]:
        """The numbers of a split's questions, which rise."""
        return np.flatnonzero(np.asarray(self.arrays["split"]) == SPLITS.index(split))

    def question(self, number: int) -> NDArray[np.int32]:
        """Its tokens."""
        return _part(self.arrays, "questions", number)

    def text(self, number: int) -> Located:
        """The tokens of a question's text."""
        text = int(self.arrays["text"][number])
        return Located(
            _part(self.arrays, "tokens", text), _slice(self.arrays["offsets"], self.arrays["tokens.ends"], text)
        )

    def lengths(self, numbers: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Tokens of questions, and of their texts."""
        questions = np.diff(self.arrays["questions.ends"], prepend=0)[numbers]
        texts = np.diff(self.arrays["tokens.ends"], prepend=0)[self.arrays["text"][numbers]]
        return questions.tolist(), texts.tolist()

    def span(self, number: int) -> tuple[int, int]:
        """The first and the last token of its answer; NO_SPAN where there is none."""
        first, last = self.arrays["span"][number].tolist()
        return first, last

    def passage(self, number: int) -> Passage:
        """Its text and the answers that people gave."""
        text = bytes(_part(self.arrays, "texts", int(self.arrays["text"][number]))).decode()
        return Passage(text, json.loads(bytes(_part(self.arrays, "answers", number))))


def _part(arrays: Mapping[str, NDArray[Any]], name: str, number: int) -> NDArray[Any]:
    return _slice(arrays[name], arrays[f"{name}.ends"], number)


def _slice(values: NDArray[Any], ends: NDArray[np.int64], number: int) -> NDArray[Any]:
    return values[ends[number - 1] if number else 0 : ends[number]]


@dataclass(frozen=True)
class QuestionReading:
    """How questions are read and split.

    Args:
        val_fraction, test_fraction: share of the questions; None: a twentieth, but at least 100 and at most a quarter.
        split_by: what stays in one split: an article's questions, or a text's.
        faulty: refuse questions that cannot be used, or skip and count them.
    """

    val_fraction: float | None = None
    test_fraction: float | None = None
    split_by: SplitBy = "article"
    faulty: Faulty = "refuse"

    def read(self, files: Mapping[str, Path]) -> tuple[list[Question], list[str], dict[str, Any]]:
        """All questions, the split of each, and facts for people.

        Args:
            files: of train, and of val and test where they have their own.

        Raises:
            UserError: for files that cannot be read, an id that stands twice, and too few questions.
        """
        skipped: Counter[str] = Counter()
        found: list[Question] = []
        splits: list[str] = []
        seen: dict[str, Path] = {}
        for first, second in itertools.combinations(files, 2):
            if files[first] == files[second]:
                raise UserError(
                    f"{files[first]} cannot serve as {first} and as {second}: each split needs questions of its own; "
                    f"leave data.{second}_path out, and {second} is cut from train"
                )
        for split, path in files.items():
            for question in QuestionFiles(self.faulty).read(path, skipped):
                if question.id in seen:
                    where = f"twice in {path}" if seen[question.id] == path else f"in {seen[question.id]} and in {path}"
                    raise UserError(
                        f"the question {question.id} stands {where}: each id is one question's; leave one out"
                    )
                seen[question.id] = path
                found.append(question)
                splits.append(split)
        shares = {split: getattr(self, f"{split}_fraction") for split in ("val", "test") if split not in files}
        of_train = [i for i, split in enumerate(splits) if split == "train"]
        if shares:
            groups = [hash64(self._group(found[i])) for i in of_train]
            for i, split in zip(of_train, split_rows(groups, shares), strict=True):
                splits[i] = split
        self._check(splits, files, skipped)
        own = " and ".join(f"{split} its own" for split in ("val", "test") if split in files)
        rule = f"the hash of each {self.split_by} decides: its questions stay together" if shares else ""
        how = "; of the rest, ".join(filter(None, [own, rule]))
        return found, splits, {"how": how, "skipped": dict(skipped)}

    def _group(self, question: Question) -> str:
        return question.context if self.split_by == "context" or question.article is None else question.article

    def _check(self, splits: Sequence[str], files: Mapping[str, Path], skipped: Counter[str]) -> None:
        counts = Counter(splits)
        for split, fewest in (("train", 1), ("val", 2), ("test", 1)):
            if counts[split] < fewest:
                whose = files.get(split, files["train"])
                left = "".join(f"; left out: {count:,} {what}" for what, count in skipped.items())
                by_article = len(files) < len(SPLITS) and self.split_by == "article" and len(splits) > 1
                cure = "; data.split_by=context splits articles" if by_article else ""
                raise UserError(
                    f"{whose}: too few questions: the {split} split has {counts[split]} of them, and needs at least "
                    f"{fewest}{left}{cure}"
                )


def open_questions(
    root: Path, settings: dict[str, Any], files: Mapping[str, Path], reading: QuestionReading
) -> QuestionStore:
    """Open the folder for `settings`, or read and encode the questions.

    Args:
        settings: all that decides what is kept; `tokenizer` (bpe, bytes or a path), `vocab_size`, `lowercase` and
            `begins` are read.

    Raises:
        UserError: for questions that cannot be used.
    """
    choice = settings["tokenizer"]
    stored = {**settings, "tokenizer": choice if choice in ("bpe", "bytes") else "file"}
    folder = root / key_of({**stored, "format": ["questions", _FORMAT]})

    def write(folder: Path) -> None:
        _write(folder, settings, *reading.read(files))

    try:
        return _open(folder)
    except DAMAGED:
        return open_or_build(folder, _open, write)


def _open(folder: Path) -> QuestionStore:
    meta = read_meta(folder)
    return QuestionStore(meta, {name: map_array(folder / f"{name}.npy") for name in (*_ARRAYS, *_OF_QUESTIONS)})


def _write(
    folder: Path,
    settings: Mapping[str, Any],
    questions: Sequence[Question],
    splits: Sequence[str],
    facts: dict[str, Any],
) -> None:
    order = sorted(range(len(questions)), key=lambda i: SPLITS.index(splits[i]))
    questions, codes = [questions[i] for i in order], [SPLITS.index(splits[i]) for i in order]
    texts = {context: i for i, context in enumerate(dict.fromkeys(question.context for question in questions))}
    of_train = [question for question, code in zip(questions, codes, strict=True) if code == 0]
    learned = [*dict.fromkeys(question.context for question in of_train), *(question.text for question in of_train)]
    tokenizer = make_tokenizer(
        settings["tokenizer"],
        settings["vocab_size"],
        learned,
        lowercase=settings["lowercase"],
        begins=settings["begins"],
    )
    encoded = list(located([*texts], tokenizer))
    asked = [found.ids for found in located([question.text for question in questions], tokenizer)]
    numbers = np.array([texts[question.context] for question in questions], dtype=np.int64)
    spans, unaligned = _spans(questions, numbers, encoded)
    answers = [json.dumps([text for text, _ in question.answers]) for question in questions]
    arrays = {
        **_joined("tokens", [found.ids for found in encoded]),
        "offsets": np.concatenate([found.offsets for found in encoded]),
        **_joined("questions", asked),
        **_joined("texts", [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]),
        **_joined("answers", [np.frombuffer(answer.encode(), dtype=np.uint8) for answer in answers]),
        "text": numbers,
        "split": np.array(codes, dtype=np.int8),
        "span": spans,
        "hashes": np.array([hash64([question.text, question.context]) for question in questions], dtype=np.uint64),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    meta = facts | {
        "unaligned": unaligned,
        "copies": _copies(numbers, np.array(codes)),
        "vocab_size": tokenizer.vocab_size,
        "artifacts": artifacts_of(tokenizer),
    }
    write_meta(folder, meta)


def _spans(
    questions: Sequence[Question], texts: NDArray[np.int64], encoded: Sequence[Located]
) -> tuple[NDArray[np.int64], int]:
    """The tokens of each question's first answer, [Q, 2], and how many of these do not begin and end as it does.

    Raises:
        UserError: for an answer that the tokenizer leaves out.
    """
    spans, unaligned = np.full((len(questions), 2), NO_SPAN, dtype=np.int64), 0
    for i, question in enumerate(questions):
        if not question.answers:
            continue
        answer, start = question.answers[0]
        begin = start + len(answer) - len(answer.lstrip())
        end = start + len(answer.rstrip())
        offsets = encoded[texts[i]].offsets
        if (span := covering(offsets, begin, end)) is None:
            raise UserError(
                f"the question {question.id} has the answer {answer!r}, of which data.tokenizer leaves no token: "
                "choose another tokenizer, or leave the question out"
            )
        spans[i] = span
        unaligned += (int(offsets[span[0], 0]), int(offsets[span[1], 1])) != (begin, end)
    return spans, unaligned


def _joined(name: str, parts: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate(parts), f"{name}.ends": np.cumsum([len(part) for part in parts], dtype=np.int64)}


def _copies(texts: NDArray[np.int64], codes: NDArray[Any]) -> dict[str, int]:
    """Questions of val and test whose text an earlier split has as well."""
    return {
        split: int(np.isin(texts[codes == code], texts[codes < code]).sum())
        for code, split in enumerate(SPLITS)
        if code
    }
