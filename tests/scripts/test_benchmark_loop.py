"""scripts/benchmark loop and scaling: what they count, fit and draw, on made-up measurements and a small command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import loop as benchmark_loop
from benchmarks import scaling as benchmark_scaling
from benchmarks.loop import Time
from benchmarks.scaling import Axis
from benchmarks.tools.busy import Busy, watched

PARENT = """
import os, signal, subprocess, sys, time
from pathlib import Path

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as the fork server does, so that nobody counts what its children used
spin = "import time; end = time.process_time() + 0.6\\nwhile time.process_time() < end: pass"
children = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
for child in children:
    try:
        os.waitpid(child.pid, 0)
    except ChildProcessError:
        pass
for i in range(4):
    folder = Path("outputs", str(i))
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_processes_for_which_nobody_waits_are_counted(tmp_path: Path) -> None:
    found = watched([sys.executable, "-c", PARENT], tmp_path, tmp_path / "outputs")
    assert 1.1 < found.cpu < 2.5
    assert 0 < found.ready <= 1 and found.share > 0 and found.wall > 0.6


def test_a_share_beside_other_programs_gets_no_verdict() -> None:
    nothing = (1.0, 0.9)
    quiet = Busy(0.9, 10.0, 18.0, 0.5, 0.9, nothing, nothing, nothing)
    assert not quiet.is_disturbed and quiet._replace(others=2.0).is_disturbed
    assert "90.0% in 10.0 s" in str(quiet)


def test_ratios_are_of_wall_and_of_cpu_time() -> None:
    found = benchmark_loop.both([Time(2, 3), Time(4, 3)], [Time(1, 1), Time(1, 2)])
    assert found == {"wall": (3, 2, 4), "cpu": (2.25, 1.5, 3)}


def test_the_clock_of_a_run_is_read_by_step(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/clock.txt").write_text("1 10.5 2.0\n50 12.5 3.0\n")
    assert benchmark_loop.clock(tmp_path) == {1: Time(10.5, 2), 50: Time(12.5, 3)}


def test_a_power_law_is_found_with_its_interval() -> None:
    sizes = [1, 2, 4, 8]
    exact = benchmark_scaling.fit(sizes, [3 * size**1.5 for size in sizes])
    assert exact.exponent == pytest.approx(1.5) and exact.level == pytest.approx(3)
    assert exact.high - exact.low == pytest.approx(0, abs=1e-6)
    assert exact.deviations == pytest.approx([1] * 4)
    bent = benchmark_scaling.fit(sizes, [1 + size for size in sizes])
    assert 0 < bent.low < bent.exponent < 1 < bent.high + 0.5 and bent.deviations[0] > 1


def test_an_axis_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = Axis("tokens", [256, 512, 1024], [[0.1, 0.2], [0.2, 0.3], [0.4, 0.5]], [[0.1]] * 3, [1e9, 2e9, 4e9])
    runs = Axis("compare", [8, 32, 128], [[1.0], [2.0], [4.0]], [[1.0], [2.0], [4.0]], None)
    kept = [benchmark_scaling.table(axis) for axis in (tokens, runs)]
    told = capsys.readouterr().out
    assert "operations 1.00" in told and "compare: exponent 0.50 [0.50, 0.50]" in told
    assert kept[1]["exponent"]["exponent"] == pytest.approx(0.5)
    benchmark_scaling.plot([tokens, runs], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
