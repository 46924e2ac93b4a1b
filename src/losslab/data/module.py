"""The LightningDataModule for tokenised text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from losslab.contracts import Batch
from losslab.data import python_docs, sources
from losslab.data.cache import DAMAGED, TokenCache, build_cache, cache_key, encode_split, open_cache, without_ends
from losslab.data.documents import DocumentRule
from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.tokenizer import FileTokenizer, Tokenizer, check_choice
from losslab.data.windows import EvalWindows, MicroBatches, TrainOrder, gather, hash_batches
from losslab.errors import UserError


class TextMeasure(NamedTuple):
    """The size of a split, beyond its tokens."""

    positions: int
    """Tokens that an evaluation predicts."""
    words: int
    """Of the original text (`losslab.data.words`)."""
    round_trip: RoundTrip
    """Whether the tokenizer keeps the text."""


_FEW_DOCUMENTS = 20
"""A val split with fewer documents is halved by window."""
_FEWEST_TOKENS = 2


class TextDataModule(pl.LightningDataModule):
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
        context: T, tokens in a window.
        batch_size: windows in one optimizer step, over all devices and micro-batches.
        val_batch_size: windows evaluated at once on each device.
        max_eval_tokens: of val and of test, the most tokens that are scored; windows chosen by hash. Default: all.
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
        context: int,
        batch_size: int = 16,
        val_batch_size: int = 32,
        max_eval_tokens: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if path is not None and corpus is not None:
            raise UserError("give data.path or data.corpus, not both: data=text data.path=…, or data=python_docs")
        if path is None and corpus is None:
            raise UserError("data.path is missing: data=text data.path=FILE|DIR|GLOB, or data=python_docs")
        for name, value in (("batch_size", batch_size), ("val_batch_size", val_batch_size), ("context", context)):
            if value <= 0:
                raise UserError(f"data.{name} must be above 0, not {value}")
        if max_eval_tokens is not None and max_eval_tokens <= 0:
            raise UserError(f"data.max_eval_tokens must be above 0, or null for all, not {max_eval_tokens}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be 0 or above, not {num_workers}")
        check_choice(tokenizer, vocab_size)
        own = {"val_path": val_path, "test_path": test_path, "separator": separator}
        own |= {"val_fraction": val_fraction, "test_fraction": test_fraction}  # type: ignore[dict-item]
        self.source: sources.TextSource | None = None
        if path is not None:
            self.source = sources.TextSource(path, documents=documents, rules=rules, **own)  # type: ignore[arg-type]
            self.source.check()
        for name in (name for name, value in own.items() if path is None and value is not None):
            raise UserError(f"data.{name} goes with data.path: the built-in corpus has documents and splits of its own")
        self.path = path
        self.val_path = val_path
        self.test_path = test_path
        self.documents: DocumentRule = documents
        self.tokenizer_choice = tokenizer
        self.vocab_size = vocab_size
        self.context = context
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.max_eval_tokens = max_eval_tokens
        self.num_workers = num_workers
        self._read: sources.Read | None = None
        self._files: str | None = None
        self._text: TextMeasure | None = None
        self._cache: TokenCache | None = None
        self._windows: dict[str, EvalWindows] = {}
        self._loader: dict[str, int] = {}
        self._order_seed = 0

    def source_hash(self) -> str:
        """SHA-256 of the text's content and its own splits (of the library's sources, for the built-in corpus)."""
        if self.source is None:
            return python_docs.source_hash()
        if self._read is None:
            self._read = self.source.read()
        return sources.hash_read(self._read)

    def input_hashes(self) -> dict[str, str]:
        """Dotted key of each input path → SHA-256 of its content, for the run's identity."""
        hashes = {"data.corpus" if self.source is None else "data.path": self.source_hash()}
        if self.tokenizer_choice not in ("bpe", "bytes"):
            hashes["data.tokenizer"] = FileTokenizer.read(self.tokenizer_choice).digest()
        if self._read is not None:
            hashes |= {f"data.{key}": sources.hash_texts(texts) for key, texts in self._given_texts(self._read)}
        return hashes

    def told_files(self) -> str | None:
        """One line for people: which files are read, and which are not and why; None for the built-in corpus."""
        if self._files is None and self.source is not None:
            self._read = self._read or self.source.read()
        if self._read is not None:
            self._files = self._read.told()
        return self._files

    def prepare(self, cache_root: Path) -> None:
        """Tokenise, or open what was tokenised before; safe to call from several processes at once.

        Raises:
            UserError: where the text is too short for three splits of at least one window each.
        """
        settings = {"source": self.source_hash(), "documents": self.documents, "tokenizer": self.tokenizer_choice}
        if self.tokenizer_choice == "bpe":
            settings["vocab_size"] = str(self.vocab_size)
        elif self.tokenizer_choice != "bytes":
            settings["tokenizer"] = FileTokenizer.read(self.tokenizer_choice).digest()
        if self.source is not None:
            settings |= self.source.rules_of_splits()
        try:
            self._cache = open_cache(cache_root / cache_key(settings))
        except DAMAGED:
            corpus = self._cut_read() or sources.corpus_of(python_docs.read_texts(), "one a topic or module")
            self._cache = build_cache(cache_root, settings, corpus, self.tokenizer_choice, self.vocab_size)
        self.told_files()
        self._read = None
        for split, count in self._cache.meta["tokens"].items():
            if count < self.context + 1:
                raise UserError(
                    f"the text is too short: its {split} split has {count} tokens, and one window needs "
                    f"{self.context + 1}; give more text, or a smaller model.context"
                )

    def open_text(self, tokenizer: Tokenizer, split: str | None) -> None:
        """Take the text as one to evaluate on, under the name `text`: whole, or the part that falls to `split`. With
        another run's tokenizer, and without a cache.

        Raises:
            UserError: where the text has no two tokens.
        """
        if self.source is None:
            corpus = sources.corpus_of(python_docs.read_texts(), "one a topic or module")
        else:
            self._read = self._read or self.source.read()
            corpus = self.source.cut(self._read) if split else self.source.cut_whole(self._read)
        parts = [split] if split else list(corpus.documents)
        documents = [text for part in parts for text in corpus.documents[part]]
        stream = encode_split(documents, tokenizer)
        if len(stream.tokens) < _FEWEST_TOKENS:
            raise UserError(f"data.path={self.path} holds {len(stream.tokens)} token(s): there is nothing to predict")
        self._windows["text"] = EvalWindows(stream, self.context, by_window=len(documents) < _FEW_DOCUMENTS)
        self._text = TextMeasure(
            positions=len(stream.tokens) - 1,
            words=sum(corpus.words[part] for part in parts),
            round_trip=round_trip(documents, without_ends(stream, tokenizer), tokenizer),
        )

    def measure(self, split: str) -> TextMeasure:
        """What figures per byte and per word need to know of `split`."""
        if split == "text":
            assert self._text is not None, "open_text() comes first"
            return self._text
        meta = self.cache.meta
        return TextMeasure(meta["tokens"][split] - 1, meta["words"][split], self.cache.round_trip)

    def summary(self) -> dict[str, Any]:
        """What the record keeps of the text: files, documents and words by split, overlap, the tokenizer's losses."""
        meta = self.cache.meta
        about = {key: meta[key] for key in ("how", "documents", "words", "tokens", "overlap")}
        kept = self.cache.round_trip
        return about | {"files": self.told_files(), "tokenizer_lossless": kept.lossless, "round_trip": kept._asdict()}

    @property
    def cache(self) -> TokenCache:
        assert self._cache is not None, "prepare() comes first"
        return self._cache

    def tokenizer(self) -> Tokenizer:
        """The one that the cache was made with."""
        return self.cache.tokenizer()

    @property
    def num_outputs(self) -> int:
        """V of the tokenizer in use; a short text can train fewer tokens than vocab_size asks for."""
        return int(self.cache.meta["vocab_size"])

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """[V]: how often each token occurs in train."""
        return self.cache.counts

    def targets(self, split: str, most: int | None = None) -> NDArray[np.int64]:
        """The tokens that `eval_batches` of `split` predict, each once."""
        return self._eval_windows(split).targets(most)

    def num_positions(self, split: str, most: int | None = None) -> int:
        """How many those are."""
        return self._eval_windows(split).num_positions(most)

    def num_units(self, split: str) -> int:
        """How many parts of `split` are scored apart."""
        return self._eval_windows(split).num_units

    def unit(self, split: str) -> str:
        """What those are: document or window."""
        return "window" if self._eval_windows(split).by_window else "document"

    def order(self, seed: int) -> TrainOrder:
        """The order of training windows under the data_order stream `seed`."""
        return TrainOrder(len(self.cache.splits["train"].tokens), self.context, seed)

    def hash_batches(self, seed: int, count: int = 50) -> str:
        """SHA-256 of the first `count` batches."""
        return hash_batches(self.cache.splits["train"].tokens, self.order(seed), self.batch_size, count)

    def start_at(self, *, seed: int, step: int, micro_batch_size: int, accumulate: int, rank: int, ranks: int) -> None:
        """Where `train_dataloader` begins, and which share of each batch is this rank's."""
        self._order_seed = seed
        self._loader = {
            "micro_batch_size": micro_batch_size,
            "accumulate": accumulate,
            "rank": rank,
            "ranks": ranks,
            "first_step": step,
        }

    def step_targets(self, step: int) -> tuple[Tensor, Tensor]:
        """int64 [N], float32 [N]: target and weight of all positions of an optimizer step, counted from 0."""
        starts = self.order(self._order_seed).starts(step * self.batch_size, self.batch_size)
        batch = gather(self.cache.splits["train"].tokens, starts, self.context)
        return batch.target.flatten(), batch.weight.flatten()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches without end; see `MicroBatches`."""
        dataset = MicroBatches(
            tokens=self.cache.splits["train"].tokens, order=self.order(self._order_seed), **self._loader
        )
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def eval_batches(self, split: str, *, rank: int = 0, ranks: int = 1, most: int | None = None) -> Iterator[Batch]:
        """All windows of `split`, or those that hold `most` positions (`EvalWindows.choose`), shared out among the
        ranks, none twice."""
        return self._eval_windows(split).batches(self.val_batch_size, rank=rank, ranks=ranks, most=most)

    def fit_batches(self, most: int) -> Iterator[Batch]:
        """Windows of val that hold at most `most` positions of the half that fits the temperature."""
        return self._eval_windows("val").fit_batches(self.val_batch_size, most)

    def _cut_read(self) -> sources.Corpus | None:
        return None if self.source is None or self._read is None else self.source.cut(self._read)

    def _given_texts(self, read: sources.Read) -> Iterator[tuple[str, list[str]]]:
        """The keys of paths beside data.path that were given, with what they hold."""
        for split, path in (("val", self.val_path), ("test", self.test_path)):
            if path is not None:
                yield f"{split}_path", read.texts[split]

    def _eval_windows(self, split: str) -> EvalWindows:
        if split not in self._windows:
            by_window = self.cache.meta["documents"][split] < _FEW_DOCUMENTS
            self._windows[split] = EvalWindows(self.cache.splits[split], self.context, by_window=by_window)
        return self._windows[split]
