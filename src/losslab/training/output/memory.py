"""The memory of a run: kept between steps, measured at the end."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource
import sys
from pathlib import Path

import torch

from losslab.training.process.allocator import is_decided

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
_KEPT = 2**31 - 1
"""Bytes; the most that mallopt takes."""
_LARGEST = 2**28
"""Bytes of a block that is kept. The holes between kept blocks cost some memory, so the largest are handed back."""
_STAYING = 2**20
"""Bytes from which on a block may have pages of its own."""
_kept: set[str] = set()
"""Holds a word once freed memory is kept."""


def keep_freed_memory() -> None:
    """Let the allocator keep what a step frees for the next one.

    By default glibc hands every tensor above some megabytes, such as the logits, back to the kernel, and pays for each
    page again at the next step, a good part of a step on the CPU. The peak may grow by a tenth. Whoever has set glibc's
    own variables has decided already; other allocators do not read this.
    """
    if not is_decided():
        _kept.add("kept")
        _set_thresholds(_LARGEST)


def lay_apart(wanted: bool) -> None:
    """Give each large tensor pages of its own for as long as it is there, or, as `keep_freed_memory` does, pages that
    are kept for others.

    Tensors that stay, such as an optimizer's states, would cut the memory that is kept into pieces that are too small
    for a step's largest tensors. Where memory is not kept, this changes nothing.
    """
    if _kept:
        _set_thresholds(_STAYING if wanted else _LARGEST)


def _set_thresholds(largest: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_M_MMAP_THRESHOLD, largest)


def reset_peak_memory() -> None:
    """Reset the peak, so that runs of one process do not inherit each other's: only Linux can, elsewhere they do."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Since `reset_peak_memory`: of the device where it keeps count, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        return int(re.findall(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
