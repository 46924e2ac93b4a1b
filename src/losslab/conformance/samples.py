"""A few samples for a model or a task on trial: made-up tokens where data is a stream of them, else the data's own."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from losslab.contracts import Batch, DataInfo, DataModule, Share, SplitInfo, Task, Vocabulary, Windows
from losslab.data.module import TextDataModule
from losslab.data.tokenizer import make_tokenizer
from losslab.training.factory import build_data
from losslab.training.random import derive_seed, global_stream
from losslab.training.trial.forms import check_info

COUNT = 8


def few_samples(config: dict[str, Any], task: Task, stack: ExitStack) -> tuple[DataInfo, dict[str, Batch]]:
    """Facts of the data, and some samples of each split.

    Args:
        stack: keeps what was prepared until the trial is over.

    Raises:
        UserError: for data that does not fit the task, or cannot be prepared.
    """
    own = {"val_batch_size": COUNT} if "val_batch_size" in config["data"] else {}
    data = build_data({**config, "data": {**config["data"], **own}})
    data.check_task(task)
    if isinstance(data, TextDataModule):
        return _stream(data, task)
    prepared(data, config, task, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    found = {"train": rows(data.train_batch(0, Share()), slice(0, COUNT))}
    for split in data.splits[1:]:
        found[split] = next(iter(data.eval_batches(split, Share())))
    return data.info, found


def prepared(data: DataModule, config: dict[str, Any], task: Task, cache: Path) -> DataModule:
    """The data as a run has it. Raises UserError for a `prepare` that returns no whole DataInfo."""
    data.seed = derive_seed(config["seed"], "data_order")
    with global_stream(config["seed"], "preparation"):
        data.info = data.prepare(cache, task)
    check_info(data, data.info)
    return data


def rows(batch: Batch, chosen: slice) -> Batch:
    """Some samples of a batch."""
    inputs = {name: value[chosen] for name, value in batch.inputs.items()}
    extras = {name: value[chosen] for name, value in batch.extras.items()}
    return batch._replace(inputs=inputs, target=batch.target[chosen], weight=batch.weight[chosen], extras=extras)


def _stream(data: TextDataModule, task: Task) -> tuple[DataInfo, dict[str, Batch]]:
    """Tokens at random, as long as the data's windows: no text is read."""
    vocab_size, mask = data.vocab_size + task.masks, data.vocab_size if task.masks else None
    if data.tokenizer_choice != "bpe":
        tokenizer = make_tokenizer(data.tokenizer_choice, data.vocab_size, [], masks=task.masks)
        vocab_size, mask = tokenizer.vocab_size, tokenizer.mask
    tokens = torch.randint(vocab_size, (COUNT, data.context + 1), generator=torch.Generator().manual_seed(0))
    number = torch.arange(COUNT)[:, None].expand(COUNT, data.context)
    extras = {"fit": (number + 1) % 2, "unit": number, "bytes": torch.ones(COUNT, data.context)}
    documents = None
    if data.packing == "documents":
        documents = (torch.arange(data.context + 1) > data.context // 2).long().expand(COUNT, -1)
    windows = Windows(tokens, torch.ones(COUNT, data.context), extras, documents)
    size = SplitInfo(COUNT * data.context, COUNT, "window")
    info = DataInfo(
        splits=dict.fromkeys(data.splits, size),
        mean_positions=data.context,
        vocab_size=vocab_size,
        mask=mask,
        class_counts=torch.ones(vocab_size, dtype=torch.float64),
    )
    vocabulary = Vocabulary(vocab_size, None, mask, torch.ones_like)
    batch = task.draw(task.of_windows(windows), np.arange(COUNT, dtype=np.uint64), vocabulary)
    return info, dict.fromkeys(data.splits, batch)
