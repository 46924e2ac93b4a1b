"""Splits that a data set brings along: files or folders named train, valid and test."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from losslab.data.text_files import SUFFIXES

_NAMES = {
    "train": ("train", "training"),
    "val": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_FILE = re.compile(
    rf"(?P<prefix>(?:.*[._-])?)(?P<name>{'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})"
    r"(?:[._-](?:\d+|part|of|shard|raw)+)*",
    re.IGNORECASE,
)
"""A split's name at the end of a file's, perhaps with a part's number: wiki.train, stories-valid, test-00001-of-2."""


def own_splits(files: list[Path], root: Path | None, suffixes: Sequence[str] = SUFFIXES) -> dict[str, list[Path]]:
    """The files of train, val and test; empty where these files are no such splits.

    They are where files below folders of these names, or files of one folder whose names end in them and are otherwise
    the same (wiki.train.tokens, wiki.valid.tokens), make up train and at least one of val and test.

    Args:
        root: the folder that was named; None: the files' common one.
        suffixes: what a file's name may end in, beside .gz and .zst.
    """
    if not files:
        return {}
    base = root or Path(*_common([path.parent.parts for path in files]))
    groups: dict[tuple[str, ...], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        parts = path.relative_to(base).parts if path.is_relative_to(base) else path.parts
        for depth, folder in enumerate(parts[:-1]):
            if split := _SPLIT_OF.get(folder.lower()):
                groups["/", *parts[:depth]][split].append(path)
                break
        else:
            if match := _FILE.fullmatch(_stem(parts[-1], suffixes)):
                group = (*parts[:-1], match["prefix"].lower())
                groups[group][_SPLIT_OF[match["name"].lower()]].append(path)
    whole = [group for group in groups.values() if "train" in group and len(group) > 1]
    found: dict[str, list[Path]] = {split: sorted(p for g in whole for p in g.get(split, [])) for split in _NAMES}
    return {split: paths for split, paths in found.items() if paths}


def _stem(name: str, suffixes: Sequence[str]) -> str:
    """The name without that of a packed file, and without one of these suffixes."""
    path = Path(name)
    if path.suffix.lower() in (".gz", ".zst"):
        path = path.with_suffix("")
    return path.stem if path.suffix.lower() in suffixes else path.name


def _common(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)
