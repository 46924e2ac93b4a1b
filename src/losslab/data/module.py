"""The LightningDataModule for tokenised text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from losslab.choices import chosen
from losslab.contracts import Batch, DataInfo, DataModule, Share, SplitContent, SplitInfo, Subset, Task
from losslab.data import sources
from losslab.data.cache import MASKS, TokenCache, build_cache, cache_key, encode_split, open_cache, without_ends
from losslab.data.corpora import BuiltInText, OwnText, Text
from losslab.data.documents import DocumentRule
from losslab.data.introduction import introduce_text
from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.store import DAMAGED
from losslab.data.text_content import text_content
from losslab.data.text_sampler import TextSampler
from losslab.data.tokenizer import FileTokenizer, Tokenizer, artifacts_of
from losslab.data.tokenizer_choice import check_choice
from losslab.data.windows import TrainOrder
from losslab.errors import UserError
from losslab.metrics.unigram import unigram_nll

_FEWEST_TOKENS = 2
_RECORDED = ("how", "documents", "words", "tokens", "overlap", "tokenizer_trained_on")


class TextDataModule(DataModule):
    """Windows of tokens from a person's own text or from the built-in corpus.

    Args:
        path: a file, folder or glob of UTF-8 text (.txt, .md, .tokens, .gz).
        val_path, test_path: the same, of splits of their own.
        corpus: `python_docs`, instead of a path.
        documents: how text is cut into documents; auto takes known separators where they are (<|endoftext|>,
            <|end_of_text|>, </s>, WikiText's title lines), else files if there are at least 20, else blocks between
            blank lines if there are at least 20, else blocks of about 4 KiB.
        separator: what stands between documents: text, or re:PATTERN.
        val_fraction, test_fraction: share of the bytes; default: about a twentieth.
        rules: 2, or 1 for the documents and splits of losslab before `separator` was there (`TextSource`).
        tokenizer: bpe (trained on the train split), bytes, or the path of a tokenizer.json.
        vocab_size: of the trained bpe.
        lowercase: the trained bpe lowers the case of what it reads; a text does not come back from its tokens then.
        context: T, tokens in a window.
        batch_size: windows in one optimizer step, over all devices and micro-batches.
        val_batch_size: windows evaluated at once on each device.
        packing: stream: a window reads on over the ends of documents; documents: it tells them apart, so that a model
            reads each alone (`segments`), and the first token of a document is not predicted from another.
        max_eval_tokens: of val and of test, the most tokens that are scored; windows chosen by hash. Default: all.
        eval_stride: of val and of test, how far a window begins after the one before it: each token is scored once,
            with at least context - stride tokens before it, but for those at the beginning. Default: the context.
        num_workers: processes that gather batches; 0 is fastest for windows of tokens.

    Raises:
        UserError: for missing or contradictory arguments; no text is read yet.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        corpus: Literal["python_docs"] | None = None,
        documents: DocumentRule = "auto",
        separator: str | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        rules: sources.Rules = 1,
        tokenizer: str = "bpe",
        vocab_size: int = 4096,
        lowercase: bool = False,
        context: int,
        batch_size: int = 16,
        val_batch_size: int = 32,
        packing: Literal["stream", "documents"] = "stream",
        max_eval_tokens: int | None = None,
        eval_stride: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        if path is not None and corpus is not None:
            raise UserError("give data.path or data.corpus, not both: data=text data.path=…, or data=python_docs")
        if path is None and corpus is None:
            raise UserError("data.path is missing: data=text data.path=FILE|DIR|GLOB, or data=python_docs")
        for name, value in (("batch_size", batch_size), ("val_batch_size", val_batch_size), ("context", context)):
            if value <= 0:
                raise UserError(f"data.{name} must be above 0, not {value}")
        if max_eval_tokens is not None and max_eval_tokens <= 0:
            raise UserError(f"data.max_eval_tokens must be above 0, or null for all, not {max_eval_tokens}")
        if eval_stride is not None and not 0 < eval_stride <= context:
            wanted = f"from 1 to data.context={context}, or null for windows side by side"
            raise UserError(f"data.eval_stride must be {wanted}, not {eval_stride}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be 0 or above, not {num_workers}")
        check_choice(tokenizer, vocab_size, lowercase=lowercase)
        own: dict[str, Any] = {"val_path": val_path, "test_path": test_path, "separator": separator}
        own |= {"val_fraction": val_fraction, "test_fraction": test_fraction}
        self.text: Text = BuiltInText()
        if path is not None:
            self.text = OwnText(sources.TextSource(path, documents=documents, rules=rules, **own))
            self.text.source.check()
        for name in (name for name, value in own.items() if path is None and value is not None):
            raise UserError(f"data.{name} goes with data.path: the built-in corpus has documents and splits of its own")
        self.path = path
        self.documents: DocumentRule = documents
        self.tokenizer_choice = tokenizer
        self.vocab_size = vocab_size
        self.lowercase = lowercase
        self.context = context
        self.packing = packing
        self.max_eval_tokens = max_eval_tokens
        self.eval_stride = eval_stride
        self.num_workers = num_workers
        self.sampler = TextSampler(context)
        self._round_trip: RoundTrip | None = None
        self._cache: TokenCache | None = None

    def source_hash(self) -> str:
        """SHA-256 of the text's content and its own splits (of the library's sources, for the built-in corpus)."""
        return next(iter(self.text.hashes(self.memory).values()))

    def check_task(self, task: Task) -> None:
        """Raises UserError for a task that reads no stream of tokens."""
        if not task.of_stream:
            raise UserError(
                f"{chosen('task', task)} reads no stream of tokens, and data=text and data=python_docs give "
                "nothing else: task=lm, or a data set with rows of its own"
            )
        if self.eval_stride is not None and not task.causal:
            raise UserError(
                f"data.eval_stride={self.eval_stride} gives each token more text before it, and "
                f"{chosen('task', task)} reads what stands on both sides: leave it null"
            )

    def content_hashes(self, task: Task) -> dict[str, str]:
        hashes = dict(self.text.hashes(self.memory))
        if self.tokenizer_choice not in ("bpe", "bytes"):
            hashes["data.tokenizer"] = FileTokenizer.read(self.tokenizer_choice).digest()
        return hashes

    def told(self) -> str | None:
        """One line for people: which files are read, and which are not and why; None for the built-in corpus."""
        return self.text.told(self.memory)

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Tokenise, or open what was tokenised before; safe to call from several processes at once.

        Raises:
            UserError: where the text is too short for three splits of at least one window each.
        """
        settings = {"source": self.source_hash(), "documents": self.documents, "tokenizer": self.tokenizer_choice}
        if self.tokenizer_choice == "bpe":
            settings["vocab_size"] = str(self.vocab_size)
        elif self.tokenizer_choice != "bytes":
            settings["tokenizer"] = FileTokenizer.read(self.tokenizer_choice).digest()
        settings |= self.text.rules() | ({"lowercase": "true"} if self.lowercase else {})
        settings |= {MASKS: "true"} if task.masks else {}
        try:
            self._cache = open_cache(cache / cache_key(settings))
        except DAMAGED:
            self._cache = build_cache(
                cache,
                settings,
                self.text.corpus(),
                self.tokenizer_choice,
                self.vocab_size,
                lowercase=self.lowercase,
            )
        self.sampler = self._sample(task, self._cache.tokenizer(), cache)
        self.sampler.take_cache(self._cache)
        for split, count in self._cache.meta["tokens"].items():
            if count < self.context + 1:
                raise UserError(
                    f"the text is too short: its {split} split has {count} tokens, and one window needs "
                    f"{self.context + 1}; give more text, or a smaller model.context"
                )
        return self._describe()

    def _sample(self, task: Task, tokenizer: Tokenizer, memory: Path | None = None) -> TextSampler:
        self.check_task(task)
        packed = self.packing == "documents"
        return TextSampler(self.context, memory, stride=self.eval_stride, packed=packed, task=task, tokenizer=tokenizer)

    def _describe(self) -> DataInfo:
        tokenizer, meta = self.tokenizer(), self.cache.meta
        splits = {}
        for split, count in meta["tokens"].items():
            windows = self.sampler.windows[split]
            words = meta["words"][split] if self.cache.round_trip.lossless and self.sampler.reads_all else None
            unit = "window" if windows.by_window else "document"
            samples = (count - 1) // self.context if split == "train" else None
            positions = windows.num_positions(None)
            splits[split] = SplitInfo(positions, windows.num_units, unit, words, samples)
        return DataInfo(
            splits=splits,
            mean_positions=self.context,
            vocab_size=int(meta["vocab_size"]),
            mask=tokenizer.mask,
            class_counts=torch.as_tensor(self.train_counts),
            artifacts=artifacts_of(tokenizer),
        )

    def open_text(self, task: Task, tokenizer: Tokenizer, split: str | None) -> DataInfo:
        """Take the text as one to evaluate on, under the name `text`: whole, or the part that falls to `split`. With
        another run's tokenizer, and without a cache.

        Raises:
            UserError: where the text has no two tokens.
        """
        corpus = self.text.corpus() if split else self.text.whole()
        parts = [split] if split else list(corpus.documents)
        documents = corpus.together(parts)
        stream = encode_split(documents, tokenizer)
        if len(stream.tokens) < _FEWEST_TOKENS:
            raise UserError(f"data.path={self.path} holds {len(stream.tokens)} token(s): there is nothing to predict")
        self.sampler = self._sample(task, tokenizer)
        self.sampler.take("text", stream, len(documents))
        self._round_trip = round_trip(documents, without_ends(stream, tokenizer), tokenizer)
        self._words = sum(corpus.words[part] for part in parts)
        words = self._words if self._round_trip.lossless and self.sampler.reads_all else None
        size = SplitInfo(self.num_positions("text"), words=words)
        return DataInfo(splits={"text": size}, mean_positions=self.context, vocab_size=tokenizer.vocab_size)

    @property
    def round_trip(self) -> RoundTrip:
        """Whether the tokenizer keeps the text."""
        return self._round_trip or self.cache.round_trip

    def count_words(self, split: str) -> int:
        """Words of the original text (`losslab.data.words`)."""
        return self._words if split == "text" else int(self.cache.meta["words"][split])

    def summary(self) -> dict[str, Any]:
        """Facts of the text that the record keeps: files, documents and words by split, overlap, the tokenizer's
        losses."""
        about = {key: value for key, value in self.cache.meta.items() if key in _RECORDED}
        kept = self.cache.round_trip
        return about | {"files": self.told(), "tokenizer_lossless": kept.lossless, "round_trip": kept._asdict()}

    def content(self, split: str) -> SplitContent:
        return text_content(self.cache, split)

    def artifact_hashes(self) -> dict[str, str]:
        """The hash of the tokenizer: of everything that decides its ids."""
        return {"tokenizer": self.cache.meta["tokenizer"]}

    def introduction(self, interim: int) -> Iterator[tuple[str, bool]]:
        """Files, documents, overlap, losses of the tokenizer, tokens, and how much of them validations score."""
        return introduce_text(self, interim)

    @property
    def cache(self) -> TokenCache:
        assert self._cache is not None, "prepare() comes first"
        return self._cache

    def tokenizer(self) -> Tokenizer:
        """The one that the cache was made with."""
        return self.cache.tokenizer()

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """[V]: how often each token occurs in train."""
        return self.cache.counts

    def references(self, split: str, most: int | None) -> dict[str, float]:
        """unigram_nll, but of another text: its tokens were not counted in train; and of tokens in part."""
        if split == "text" or self.sampler.masks:
            return {}
        return {"unigram_nll": unigram_nll(self.train_counts, self.sampler.windows[split].targets(most))}

    def num_positions(self, split: str, most: int | None = None) -> int:
        """The number of positions that `eval_batches` gives."""
        return self.sampler.windows[split].num_positions(most)

    def order(self) -> TrainOrder:
        """The order of training windows under `seed`."""
        return self.sampler.order(self.seed)

    def hash_batches(self, count: int = 50) -> str:
        """SHA-256 of the first `count` batches."""
        if not self.sampler.reads_all:
            return super().hash_batches(count)
        return self.sampler.hash_batches(self.order(), self.batch_size, count)

    def train_batch(self, step: int, share: Share) -> Batch:
        """The windows of an optimizer step (`TextSampler.train_batch`)."""
        return self.sampler.train_batch(self.order(), self.batch_size, step, share)

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        """The windows of a split (`TextSampler.eval_batches`)."""
        return self.sampler.eval_batches(split, self.val_batch_size, share, subset, most)
