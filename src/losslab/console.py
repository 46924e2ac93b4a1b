"""What a person sees while something works: a bar on a terminal, one plain line where output is piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
YARDSTICKS = ("nll", "nll_scaled", "nll_linked", "perplexity", "bits_per_byte", "top1", "unigram_nll", "objective")
"""In the order in which people read them."""
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One line on standard output, as it is."""
    out.print(message, markup=False)


def complain(message: str) -> None:
    """One line on standard error."""
    err.print(f"losslab: {message}", markup=False, style="red" if err.is_terminal else None)


def working(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` through, with a bar on a terminal and one line elsewhere."""
    if sys.stdout.isatty():
        yield from track(items, description=description, total=total, console=out, transient=True)
    else:
        say(f"{description} …")
        yield from items
