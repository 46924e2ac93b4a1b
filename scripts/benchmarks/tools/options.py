"""Options that several kinds of scripts/benchmark have, and values of options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from pathlib import Path


def add_rounds(parser: argparse.ArgumentParser, what: str = "in turns; the median of their ratios counts") -> None:
    parser.add_argument("--rounds", type=positive, default=2, metavar="N", help=f"{what} (default: %(default)s)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), metavar="N", help="default: all cores")


def add_vocabularies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocab", type=numbers, default="8192,50304", metavar="V,…", help="numbers of outputs (default: %(default)s)"
    )


def add_only(parser: argparse.ArgumentParser, parts: Collection[str], what: str) -> None:
    """--only: the parts that hold one of some words; all of them where it is not given."""
    parser.add_argument(
        "--only", type=holding(parts), default=list(parts), metavar="WORD,…", help=f"{what} whose names hold a word"
    )


def add_families(parser: argparse.ArgumentParser, enough: int) -> None:
    parser.add_argument(
        "--families", type=positive, default=enough, metavar="N", help="of losses, a setting (default: %(default)s)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=writable, metavar="FILE", help="a file to write the figures to, too")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def numbers(text: str) -> list[int]:
    """Whole numbers above 0 between commas."""
    return [positive(part) for part in text.split(",")]


def words_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads some of these words between commas."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [word for word in found if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return read


def holding(parts: Collection[str]) -> Callable[[str], list[str]]:
    """Reads words between commas, and finds the parts that hold one of them."""

    def read(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if not word or not any(word in part for part in parts):
                raise argparse.ArgumentTypeError(f"no name holds {word!r}; there are: {'; '.join(parts)}")
        return [part for part in parts if any(word in part for word in words)]

    return read


def writable(text: str) -> Path:
    """A file in a folder that exists, since measuring takes minutes before it is written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
