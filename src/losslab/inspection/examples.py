"""Samples as the model reads them: decoded inputs, with what is predicted of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from torch import Tensor

from losslab.contracts import (
    MIXED_SHARES,
    MIXED_TARGET,
    MIXED_TOKENS,
    MIXED_WEIGHT,
    OF_SOURCE,
    Batch,
    DataInfo,
    DataModule,
    Share,
    TargetKind,
    Task,
)
from losslab.data.columns import UNKNOWN, WORDS_FILE
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError
from losslab.inspection.contents import first_of, lengths_of

UNKNOWN_WORD, END, MASKED = "⟨unknown⟩", "⟨end⟩", "⟨mask⟩"
BETWEEN = "┃"
"""Stands between the documents of a window."""
_NO_ANSWER = "⟨no answer⟩"
_OF_MIXTURES = (MIXED_TARGET, MIXED_WEIGHT)


class Names:
    """Names of the ids that a model reads: pieces of text or words, or the ids themselves.

    Args:
        of_source: name those of sources.
    """

    def __init__(self, info: DataInfo, *, of_source: bool = False) -> None:
        self.tokenizer = (source_tokenizer_of if of_source else tokenizer_of)(info.artifacts)
        words = json.loads(info.artifacts[WORDS_FILE]) if WORDS_FILE in info.artifacts else None
        self.words = None if words is None else [UNKNOWN_WORD, *words]
        assert self.words is None or UNKNOWN == 0
        special = {} if self.tokenizer is None else {self.tokenizer.end: END, self.tokenizer.mask: MASKED}
        self.special = {token: name for token, name in special.items() if token is not None}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The name of each id."""
        if self.words is not None:
            return [self.words[i] for i in ids]
        if self.tokenizer is None:
            return [str(i) for i in ids]
        return [self.special.get(i) or self.tokenizer.decode([i]) for i in ids]

    def text(self, ids: Sequence[int]) -> str:
        """The ids as one text, in which special tokens have names."""
        if self.tokenizer is None:
            return " ".join(self.pieces(ids))
        parts = groupby(ids, key=lambda i: self.special.get(i))
        decode = self.tokenizer.decode
        return "".join(name * len(list(run)) if name else decode(list(run)) for name, run in parts)


def examples_of(data: DataModule, task: Task, *, split: str, step: int, count: int) -> list[dict[str, Any]]:
    """The first samples of an optimizer step's batch, or of a batch of another split.

    Args:
        step: number of the optimizer step, or of the batch, from 0.

    Raises:
        UserError: for a split or a batch that there is not.
    """
    if split not in data.splits:
        raise UserError(f"--split {split}: the data has {', '.join(data.splits)}")
    if step < 0 or count < 0:
        raise UserError(f"--step and --examples must be 0 or above, not {min(step, count)}")
    if split == "train":
        batch = data.batch_of(step, Share())
    else:
        found = next(iter(islice(data.eval_batches(split, Share()), step, None)), None)
        if found is None:
            raise UserError(f"--step {step}: {split} has fewer batches of data.val_batch_size={data.val_batch_size}")
        batch = found
    batch = first_of(batch, count)
    lengths, names = lengths_of(batch), Names(data.info)
    sizes = [None] * len(batch.weight) if lengths is None else lengths.tolist()
    return [_example(batch, i, size, data.info, task, names) for i, size in enumerate(sizes)]


def _example(batch: Batch, i: int, size: int | None, info: DataInfo, task: Task, names: Names) -> dict[str, Any]:
    inputs = {name: value[i] for name, value in batch.inputs.items()}
    found: dict[str, Any] = {"length": size}
    tokens: list[int] | None = None
    if "tokens" in inputs:
        tokens = inputs["tokens"][:size].tolist()
        found |= {"reads": _reads(tokens, inputs, size, names), "tokens": names.pieces(tokens)}
    for name in ("segments", "types"):
        if name in inputs:
            found[name] = inputs[name][:size].tolist()
    if "source" in inputs:
        mask = inputs.get("source_mask")
        source = (inputs["source"] if mask is None else inputs["source"][mask != 0]).tolist()
        of_source = Names(info, of_source=True)
        found["source"] = of_source.pieces(source)
        found["reads"] = [of_source.text(source), *found.get("reads", [])]
    known = {"tokens", "mask", "segments", "types", MIXED_TOKENS, MIXED_SHARES} | OF_SOURCE
    for name in inputs.keys() - known:
        found.setdefault("other_inputs", {})[name] = _told(inputs[name])
    if MIXED_TOKENS in inputs:
        real = inputs[MIXED_SHARES][:, 1] != 0
        found["mixed_with"] = names.text(inputs[MIXED_TOKENS][real].tolist())
    target, weight = batch.target[i], batch.weight[i]
    found["weight"] = weight.item() if weight.ndim == 0 else weight.flatten()[:size].tolist()
    found |= _predicted(target, weight, tokens, info, task, names)
    mixed = [batch.extras[name][i] for name in _OF_MIXTURES if name in batch.extras]
    if len(mixed) == len(_OF_MIXTURES):
        found["mixed_target"] = (
            _of_classes(mixed[0], info, names) if not mixed[0].is_floating_point() else mixed[0].tolist()
        )
        found["mixed_weight"] = mixed[1].flatten()[0].item()
    return found


def _reads(tokens: Sequence[int], inputs: Mapping[str, Tensor], size: int | None, names: Names) -> list[str]:
    """Texts that are read: one, or those of a pair; documents of a window have a line between them."""

    def parts(name: str) -> list[list[int]]:
        pairs = zip(tokens, inputs[name][:size].tolist(), strict=True)
        return [[token for token, _ in run] for _, run in groupby(pairs, key=lambda pair: pair[1])]

    if "segments" in inputs:
        return [f" {BETWEEN} ".join(map(names.text, parts("segments")))]
    if "types" in inputs:
        return [names.text(part) for part in parts("types")]
    return [names.text(tokens)]


def _predicted(
    target: Tensor, weight: Tensor, tokens: list[int] | None, info: DataInfo, task: Task, names: Names
) -> dict[str, Any]:
    """Targets: `targets` for programs, `predicts` or `hidden` for people."""
    counts = (weight != 0).tolist()
    if task.points and tokens is not None:
        first, last = (int(place) for place in target[[0, -1]])
        answer = names.text(tokens[first : last + 1]) if last else _NO_ANSWER
        return {"targets": target.tolist(), "predicts": answer}
    if target.is_floating_point():
        return {"targets": target.tolist(), "predicts": ", ".join(f"{value:g}" for value in target.flatten().tolist())}
    if info.num_classes is not None:
        if weight.ndim == 0:
            found = _of_classes(target, info, names)
            if TargetKind.SEQUENCES in task.accepts:
                return {"targets": found, "predicts": "".join(found)}
            return {"targets": found, "predicts": ", ".join(found) if isinstance(found, list) else found}
        tags = _of_classes(target[weight != 0], info, names)
        shown = names.pieces(tokens or [])
        pairs = [f"{word}/{tag}" for word, tag in zip(shown, tags, strict=False)] if tokens else list(tags)
        return {"targets": tags, "predicts": " ".join(pairs)}
    ids = target.flatten().tolist()
    kept = [token for token, count in zip(ids, counts, strict=True) if count] if weight.ndim else ids
    found = {"targets": names.pieces(kept)}
    if task.masks and tokens is not None:
        return found | {"hidden": _hidden(ids, counts, tokens, names)}
    if task.continues_texts and all(counts):
        return found | {"predicts": f"the next token at every position, the last one {found['targets'][-1]!r}"}
    runs = groupby(zip(ids, counts, strict=True), key=lambda pair: pair[1])
    texts = [names.text([token for token, _ in run]) for counted, run in runs if counted]
    return found | {"predicts": " … ".join(texts), "predicted_positions": len(kept)}


def _hidden(ids: list[int], counts: list[bool], tokens: list[int], names: Names) -> list[dict[str, Any]]:
    """Positions that are predicted, with the token that is read there."""
    pieces, read = names.pieces(ids), names.pieces(tokens)
    return [
        {"position": i, "target": pieces[i], "reads": read[i], "kept": ids[i] == tokens[i]}
        for i, count in enumerate(counts[: len(tokens)])
        if count
    ]


def _of_classes(target: Tensor, info: DataInfo, names: Names) -> Any:
    """The name of a class, or names of those that hold; of tokens their pieces."""
    listed = [place for place in target.flatten().tolist() if place >= 0]
    if info.num_classes is None:
        found = names.pieces(listed)
    else:
        found = [info.class_names[place] if info.class_names else str(place) for place in listed]
    return found if target.ndim else found[0]


def _told(value: Tensor) -> str:
    shape = " × ".join(map(str, value.shape)) or "1"
    if not value.numel() or value.is_complex():
        return f"{shape} numbers"
    return f"{shape} numbers from {value.min().item():g} to {value.max().item():g}"
