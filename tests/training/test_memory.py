"""Freed memory is kept for the next step, and no run inherits the peak of the one before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from losslab.training.output.memory import peak_memory_mib, reset_peak_memory

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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_run_does_not_inherit_the_peak_of_the_one_before() -> None:
    device = torch.device("cpu")
    reset_peak_memory()
    large = torch.ones(256, 2**18)  # 256 MiB
    del large
    with_large = peak_memory_mib(device)
    reset_peak_memory()
    assert peak_memory_mib(device) < with_large - 200
