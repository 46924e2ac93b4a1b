"""Lines that introduce a text: the files that were read, the splits, and the parts of them that are scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from losslab.data.cache import TRAINED_ON, TokenCache
from losslab.data.overlap import SHARE, WORDS
from losslab.data.round_trip import RoundTrip
from losslab.data.splits import SPLITS

_FEW_SEEN = 0.01
"""Share of documents from which copies are worth a note."""
_EARLIER = {"val": "train", "test": "train or val"}


class IntroducedText(Protocol):
    """Members of a TextDataModule that its introduction names; see there for each."""

    max_eval_tokens: int | None
    eval_stride: int | None
    context: int

    @property
    def packing(self) -> str: ...

    @property
    def tokenizer_choice(self) -> str: ...

    @property
    def cache(self) -> TokenCache: ...

    @property
    def round_trip(self) -> RoundTrip: ...

    def told(self) -> str | None: ...

    def num_positions(self, split: str, most: int | None = None) -> int: ...


def introduce_text(data: IntroducedText, interim: int) -> Iterator[tuple[str, bool]]:
    """Lines, each with whether it is a note that a person should see apart."""
    meta, files = data.cache.meta, data.told()
    yield f"text   {files or 'the built-in corpus python_docs'}", False
    documents = " · ".join(f"{meta['documents'][split]:,} {split}" for split in SPLITS)
    yield f"       {documents} documents ({meta['how']['documents']}); splits: {meta['how']['splits']}", False
    if not any(found["copies"] + found["near_copies"] for found in meta["overlap"].values()):
        checked = "".join(_sample(found) for found in meta["overlap"].values())
        long = f"of {WORDS} words or more"
        yield f"       no document of val or test{checked} {long} is in an earlier split, whole or nearly", False
    for split, found in meta["overlap"].items():
        if seen := found["copies"] + found["near_copies"]:
            line = (
                f"{seen:,} of {found['documents']:,} {split} documents{_sample(found)} are in {_EARLIER[split]} as "
                f"well: {found['copies']:,} the same, {found['near_copies']:,} nearly (they share {SHARE:.0%} of their "
                f"{WORDS}-word runs)"
            )
            if seen <= _FEW_SEEN * found["documents"] or files is None:
                yield f"       {line}", False
            else:
                yield f"{line}; a model that has memorised them makes {split} look better than new text would", True
    if not data.round_trip.lossless:
        yield data.round_trip.told(Path(data.tokenizer_choice).name), True
    tokens = " · ".join(f"{meta['tokens'][split]:,} {split}" for split in SPLITS)
    yield f"data   {tokens} tokens, vocabulary {meta['vocab_size']:,}", False
    if trained := meta.get("tokenizer_trained_on"):
        yield (
            f"       the tokenizer was trained on a sample of train by hash: {trained['documents']:,} of "
            f"{trained['of']:,} documents, about {TRAINED_ON / 2**30:.0f} GiB",
            False,
        )
    if data.packing == "documents":
        yield (
            "       each window tells its documents apart, and each is read alone",
            False,
        )
    if data.eval_stride is not None:
        before = data.context - data.eval_stride
        yield (
            f"       val and test: each token is scored once, after at least {before:,} others (eval_stride)",
            False,
        )
    if told := _scored(data, interim):
        yield f"val    {told}", False


def _sample(found: dict[str, int]) -> str:
    return f" (a sample of {found['sample_of']:,})" if "sample_of" in found else ""


def _scored(data: IntroducedText, interim: int) -> str | None:
    """The parts of their splits that validations and the test score, where that is not all."""
    most = data.max_eval_tokens
    val, limited = data.num_positions("val"), data.num_positions("val", most)
    part = data.num_positions("val", min(interim or val, most or val))
    if limited == val and data.num_positions("test", most) == data.num_positions("test"):
        if part == val:
            return None
        return f"each validation scores {part:,} of {val:,} tokens (windows by hash), the last and the best all of them"
    tests = f"{data.num_positions('test', most):,} of {data.num_positions('test'):,} tokens of test"
    return (
        f"each validation scores {part:,} of {val:,} tokens, the last and the best {limited:,}, with {tests} "
        f"(data.max_eval_tokens={most}); windows chosen by hash"
    )
