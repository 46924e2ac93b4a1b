"""Freed memory is kept for the next step, and no run inherits the peak of the one before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from losslab.training.output.memory import peak_memory_mib, reset_peak_memory
from losslab.training.process.allocator import allocator_environment

FAULTS = """
import resource, torch
from losslab.training.output.memory import keep_freed_memory
keep_freed_memory()
def step():
    torch.ones(4, 2**20)  # 16 MiB in pages of 4 KiB
for _ in range(10):  # until what lies between them has found its place
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GROWTH = """
import ctypes
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
class Info(ctypes.Structure):
    _fields_ = [(f"field_{i}", ctypes.c_size_t) for i in range(10)]
library.mallinfo2.restype = Info
library.mallopt(-1, 2**31 - 1)
library.mallopt(-3, 2**28)
def allocate(mib):
    place = ctypes.c_void_p()
    library.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(mib * 2**20))
    return place
for _ in range(20):  # chunks of logits, and two products of each
    logits = allocate(32)
    for _ in range(2):
        product = allocate(24)
        for size in range(24, 96, 8):
            library.malloc(ctypes.c_size_t(size))  # something small that stays
        library.free(product)
    library.free(logits)
print(library.mallinfo2().field_0 // 2**20)
"""
PAGES = 4096
"""Page faults that a step may cost."""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt")


def page_faults(environment: dict[str, str] | None = None) -> int:
    """Page faults of ten later steps, in a process of their own."""
    command = ["env", *(f"{name}={value}" for name, value in (environment or {}).items()), sys.executable, "-c", FAULTS]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@on_glibc
def test_later_steps_use_the_pages_of_earlier_ones() -> None:
    assert page_faults() < PAGES


@on_glibc
def test_whoever_set_glibcs_variables_has_decided() -> None:
    assert page_faults({"MALLOC_MMAP_THRESHOLD_": "131072"}) > 9 * PAGES


@on_glibc
def test_blocks_that_come_again_find_the_place_of_the_last_ones() -> None:
    own = allocator_environment()
    command = ["env", *(f"{name}={value}" for name, value in own.items()), sys.executable, "-c", GROWTH]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 2 * (32 + 24)


def test_whoever_tuned_glibc_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    (own,) = allocator_environment().values()
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    assert allocator_environment()
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=3")
    assert not allocator_environment()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_run_does_not_inherit_the_peak_of_the_one_before() -> None:
    device = torch.device("cpu")
    reset_peak_memory()
    large = torch.ones(256, 2**18)  # 256 MiB
    del large
    with_large = peak_memory_mib(device)
    reset_peak_memory()
    assert peak_memory_mib(device) < with_large - 200
