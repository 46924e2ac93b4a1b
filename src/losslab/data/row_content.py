"""Rows as `losslab data inspect` describes them."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import SplitContent, Task
from losslab.data.columns import CLASSES, INPUTS, UNKNOWN, target_of
from losslab.data.round_trip import round_trip
from losslab.data.row_reading import Reading
from losslab.data.row_source import RowSource
from losslab.data.row_store import RowStore
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.tokenizer import tokenizer_of

_READ_AGAIN = 1000
"""Rows of a split whose texts are read from their source again, to see what the tokenizer makes of them."""


def row_content(
    store: RowStore,
    task: Task,
    split: str,
    *,
    reading: Reading,
    source: RowSource,
    labels: NDArray[np.int64] | None,
) -> SplitContent:
    """A split of encoded rows.

    Args:
        labels: [N], the classes that the rows have after label noise; None: their own.
    """
    columns, target = store.columns[split], target_of(task.columns)
    lengths = [columns[name].lengths() for name, kind in task.columns.items() if kind in INPUTS]
    kind = None if target is None else task.columns[target]
    classes = owners = values = None
    if target is not None and kind in CLASSES:
        column = columns[target]
        classes = np.asarray(column.values, dtype=np.int64) if labels is None else labels
        owners = None if kind == "label" else np.repeat(np.arange(store.count(split)), column.lengths())
    elif target is not None:
        values = np.asarray(columns[target].values, dtype=np.float64).reshape(-1, store.meta["num_values"])
    return SplitContent(
        unit="row",
        count=store.count(split),
        read=store.count(split),
        lengths=np.asarray(sum(lengths), dtype=np.int64) if lengths else None,
        cut=store.meta["truncated"][split] if lengths else None,
        keys=np.asarray(store.hashes[split]),
        classes=classes,
        owners=owners,
        values=values,
        coverage=_coverage(store, task, split, reading, source),
    )


def _coverage(store: RowStore, task: Task, split: str, reading: Reading, source: RowSource) -> dict[str, float]:
    """The share of words without an id; of texts, what the tokenizer makes of the first rows of the source."""
    words = [name for name, kind in task.columns.items() if kind == "words"]
    if words:
        ids = store.columns[split][words[0]].values
        return {"unknown words": float((ids == UNKNOWN).mean())}
    names = [name for name, kind in task.columns.items() if kind == "text"]
    artifacts = store.meta["artifacts"]
    tokenizer, of_source = tokenizer_of(artifacts), source_tokenizer_of(artifacts)
    if not names or tokenizer is None or of_source is None or split not in source.splits():
        return {}
    if store.meta.get("source_vocab_size") is not None:  # of two tokenizers, that of the sources
        names, tokenizer = [name for name in names if name not in task.predicted], of_source
    rows = islice(reading.parsed(source, split, task.columns, Counter()), _READ_AGAIN)
    texts = [row[name] for _, row, _ in rows for name in names]
    tokens = [ids for ids, _ in tokenizer.encode(texts)]
    words_of_texts = sum(len(text.split()) for text in texts)
    back = round_trip(texts, tokens, tokenizer)
    in_lower_case = round_trip([text.lower() for text in texts], tokens, tokenizer)
    per_word = {"tokens per word": sum(map(len, tokens)) / words_of_texts} if words_of_texts else {}
    return per_word | {
        "texts that come back changed": back.changed / back.documents,
        "texts that come back changed even from lower case": in_lower_case.changed / back.documents,
        "bytes of words lost": back.lost,
    }
