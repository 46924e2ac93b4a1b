"""Plain numbers of a data set: counts, lengths, coverage, labels, values, entities, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from losslab.contracts import DataInfo, DataModule, SplitContent, Task
from losslab.data.columns import target_of
from losslab.errors import UserError
from losslab.inspection.contents import content_of
from losslab.metrics.entities import EntityRule

_BINS = 10
_PERCENTILE = 95


def facts_of(data: DataModule, task: Task) -> dict[str, Any]:
    """Everything that can be said of prepared data, as JSON may hold it."""
    contents = {split: content_of(data, split) for split in data.splits}
    told = list(data.introduction(0))
    found: dict[str, Any] = {
        "introduction": [line for line, is_note in told if not is_note],
        "notes": [line for line, is_note in told if is_note],
        "summary": data.summary(),
        "splits": {split: _split(data.info, split, contents) for split in data.splits},
    }
    if any(content.classes is not None for content in contents.values()):
        found["labels"] = _labels(data.info, contents)
    if any(content.values is not None for content in contents.values()):
        found["values"] = _values(contents)
    if (target := target_of(task.columns)) and task.columns[target] == "tags":
        found |= _entities(data.info, contents)
    return found


def _split(info: DataInfo, split: str, contents: Mapping[str, SplitContent]) -> dict[str, Any]:
    content = contents[split]
    found: dict[str, Any] = {
        "unit": content.unit,
        "count": content.count,
        "read": content.read,
        "positions": info.splits[split].positions,
        "lengths": None if content.lengths is None else _lengths(content.lengths),
        "cut_off": content.cut,
        "coverage": content.coverage,
    }
    if content.keys is None:
        return found
    keys = np.asarray(content.keys)
    unique, places = np.unique(keys, return_inverse=True)
    found["duplicates"] = len(keys) - len(unique)
    if content.classes is not None and content.owners is None:
        pairs = np.unique(np.stack([places.ravel(), content.classes]), axis=1)
        found["several_labels"] = int((np.bincount(pairs[0]) > 1).sum())
    earlier = list(contents)[: list(contents).index(split)]
    found["copies"] = {
        other: int(np.isin(keys, own).sum()) for other in earlier if (own := contents[other].keys) is not None
    }
    return found


def _lengths(lengths: NDArray[np.int64]) -> dict[str, float]:
    middle, high = np.percentile(lengths, [50, _PERCENTILE])
    return {"min": int(lengths.min()), "median": float(middle), "p95": float(high), "max": int(lengths.max())}


def _labels(info: DataInfo, contents: Mapping[str, SplitContent]) -> dict[str, Any]:
    assert info.num_classes is not None, "targets that are classes have a number"
    names = info.class_names or tuple(map(str, range(info.num_classes)))
    counts = {
        split: np.bincount(content.classes, minlength=len(names)).tolist()
        for split, content in contents.items()
        if content.classes is not None
    }
    return {"names": list(names), "counts": counts}


def _values(contents: Mapping[str, SplitContent]) -> dict[str, Any]:
    """Statistics by split, and a histogram whose bins are those of train, widened to hold all values."""
    every = {split: content.values for split, content in contents.items() if content.values is not None}
    columns = next(iter(every.values())).shape[1]
    whole = np.concatenate(list(every.values()))
    edges = [np.histogram_bin_edges(whole[:, k], bins=_BINS) for k in range(columns)]
    return {
        split: [
            {
                "mean": float(column.mean()),
                "std": float(column.std()),
                "min": float(column.min()),
                "median": float(np.median(column)),
                "max": float(column.max()),
                "edges": edges[k].tolist(),
                "counts": np.histogram(column, bins=edges[k])[0].tolist(),
            }
            for k, column in enumerate(values.T)
        ]
        for split, values in every.items()
    }


def _entities(info: DataInfo, contents: Mapping[str, SplitContent]) -> dict[str, Any]:
    """Split → type → number of entities; nothing where tags mark none."""
    try:
        rule = EntityRule(info.class_names or ())
    except UserError:
        return {}
    found = {}
    for split, content in contents.items():
        if content.classes is None or content.owners is None:
            continue
        tags = torch.from_numpy(np.ascontiguousarray(content.classes))
        counts = rule.count_by_type(tags, tags, torch.from_numpy(np.ascontiguousarray(content.owners)))[2]
        found[split] = {name: int(n) for name, n in zip(rule.types, counts.tolist(), strict=True) if name or n}
    return {"entities": found}
