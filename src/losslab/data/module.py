"""The LightningDataModule for tokenised text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from losslab.data import python_docs, sources
from losslab.data.cache import DAMAGED, TokenCache, build_cache, cache_key, encode_split, open_cache
from losslab.data.splits import split_documents
from losslab.data.tokenizer import FileTokenizer, Tokenizer, check_choice
from losslab.data.windows import EvalWindows, MicroBatches, TrainOrder, gather, hash_batches
from losslab.errors import UserError
from losslab.types import Batch

_FEW_DOCUMENTS = 20
"""A val split with fewer documents is halved by window."""
_FEWEST_TOKENS = 2


class TextDataModule(pl.LightningDataModule):
    """Windows of tokens from a person's own text or from the built-in corpus.

    Args:
        path: a file, folder or glob of UTF-8 text (.txt, .md, .gz).
        corpus: `python_docs`, in place of a path.
        documents: how text is cut into documents; auto takes files if there are at least 20, else blocks between blank
            lines if there are at least 20, else blocks of about 4 KiB.
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
        corpus: Literal["python_docs"] | None = None,
        documents: sources.DocumentRule = "auto",
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
        if path is not None:
            sources.find_files(path)
        self.path = path
        self.documents: sources.DocumentRule = documents
        self.tokenizer_choice = tokenizer
        self.vocab_size = vocab_size
        self.context = context
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.max_eval_tokens = max_eval_tokens
        self.num_workers = num_workers
        self._texts: list[str] | None = None
        self._cache: TokenCache | None = None
        self._windows: dict[str, EvalWindows] = {}
        self._loader: dict[str, int] = {}
        self._order_seed = 0

    def source_hash(self) -> str:
        """SHA-256 of the text's content (of the library's sources, for the built-in corpus)."""
        if self.path is None:
            return _library_hash()
        self._texts = sources.read_texts(self.path)
        return sources.hash_texts(self._texts)

    def input_hashes(self) -> dict[str, str]:
        """Dotted key of each input path → SHA-256 of its content, for the run's identity."""
        hashes = {} if self.path is None else {"data.path": self.source_hash()}
        if self.tokenizer_choice not in ("bpe", "bytes"):
            hashes["data.tokenizer"] = FileTokenizer.read(self.tokenizer_choice).digest()
        return hashes | ({"data.corpus": self.source_hash()} if self.path is None else {})

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
        try:
            self._cache = open_cache(cache_root / cache_key(settings))
        except DAMAGED:
            if self._texts is None:
                texts, documents = python_docs.read_texts(), []
            else:
                texts, documents = self._texts, sources.cut_documents(self._texts, self.documents)
            self._cache = build_cache(cache_root, settings, documents or texts, self.tokenizer_choice, self.vocab_size)
        self._texts = None
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
        texts = python_docs.read_texts() if self.path is None else sources.read_texts(self.path)
        documents = texts if self.path is None else sources.cut_documents(texts, self.documents)
        if split is not None:
            documents = split_documents(documents)[split]
        stream = encode_split(documents, tokenizer)
        if len(stream.tokens) < _FEWEST_TOKENS:
            raise UserError(f"data.path={self.path} holds {len(stream.tokens)} token(s): there is nothing to predict")
        self._windows["text"] = EvalWindows(stream, self.context, by_window=len(documents) < _FEW_DOCUMENTS)

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
        """All windows of `split`, or those that hold `most` positions (`EvalWindows.choose`), shared out among the ranks,
        none twice."""
        return self._eval_windows(split).batches(self.val_batch_size, rank=rank, ranks=ranks, most=most)

    def fit_batches(self, most: int) -> Iterator[Batch]:
        """Windows of val that hold at most `most` positions of the half that fits the temperature."""
        return self._eval_windows("val").fit_batches(self.val_batch_size, most)

    def _eval_windows(self, split: str) -> EvalWindows:
        if split not in self._windows:
            by_window = self.cache.meta["documents"][split] < _FEW_DOCUMENTS
            self._windows[split] = EvalWindows(self.cache.splits[split], self.context, by_window=by_window)
        return self._windows[split]


def _library_hash() -> str:
    digest = hashlib.sha256()
    for path in python_docs.source_files():
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
