"""Settings of glibc's allocator for processes that train. No torch here."""

from __future__ import annotations

import os

_TUNABLES = "GLIBC_TUNABLES"
_OURS = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
"""No caches of small blocks. A tensor is aligned, which leaves some bytes beside it: in a cache these lie between two
free blocks for good, and the next tensor of the same size, which needs some bytes more than the hole of the last one,
takes memory that nobody has used yet."""
_THRESHOLDS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def is_decided() -> bool:
    """Whether somebody has set glibc's own variables, which then stay."""
    return any(name in os.environ for name in _THRESHOLDS) or os.environ.get(_TUNABLES, _OURS) != _OURS


def allocator_environment() -> dict[str, str]:
    """Variables that a process which trains is to begin with; other allocators do not read them."""
    return {} if is_decided() else {_TUNABLES: _OURS}
