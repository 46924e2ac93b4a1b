"""How a machine is shared out: slots, threads, GPUs, and locks that a killed launcher does not keep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.sweeps.slots import FOLDER, Sharing, Slot, Slots, environment, share

FOUR = tuple(Slot(i) for i in range(4))
HOLDER = """
import sys
from pathlib import Path
from losslab.sweeps.slots import Slot, Slots

slots = Slots(Path(sys.argv[1]), tuple(Slot(i) for i in range(4)))
print(*(slot.index for slot in slots.take(3)), flush=True)
sys.stdin.read()
"""


def on(**changes: Any) -> Sharing:
    """Three runs on eight cores, but for these changes."""
    usual: dict[str, Any] = {"runs": 3, "cores": 8, "gpus": [], "devices": 1, "wanted": None, "threads": None}
    usual |= changes
    return share(usual.pop("runs"), **usual)


@pytest.mark.parametrize(
    ("machine", "slots", "threads"),
    [
        ({"runs": 8}, 8, [1] * 8),
        ({"runs": 16}, 8, [1] * 16),
        ({"runs": 3}, 3, [2] * 3),
        ({"runs": 1}, 1, [8]),
        ({"runs": 9}, 8, [1] * 8 + [8]),
        ({"runs": 10}, 8, [1] * 8 + [4, 4]),
        ({"runs": 11}, 8, [1] * 8 + [2, 2, 2]),
        ({"runs": 5, "cores": 2}, 2, [1, 1, 1, 1, 2]),
        ({"runs": 3, "cores": 1}, 1, [1] * 3),
        ({"runs": 4, "wanted": 2}, 2, [4] * 4),
        ({"runs": 5, "wanted": 2}, 2, [4] * 4 + [8]),
        ({"runs": 2, "wanted": 4}, 4, [4, 4]),
        ({"runs": 4, "cores": 2, "wanted": 4}, 4, [1] * 4),
        ({"runs": 4, "threads": 4}, 2, [4] * 4),
        ({"runs": 5, "threads": 4}, 2, [4] * 5),
        ({"runs": 2, "threads": 16}, 1, [16] * 2),
        ({"runs": 4, "threads": 4, "wanted": 4}, 4, [4] * 4),
        ({"runs": 4, "devices": 2}, 4, [1] * 4),
        ({"runs": 5, "devices": 2}, 4, [1] * 4 + [4]),
        ({"runs": 2, "devices": 2, "threads": 4}, 1, [4] * 2),
        ({"runs": 2, "devices": 16}, 1, [1] * 2),
    ],
    ids=str,
)
def test_a_machine_without_gpus_is_shared_by_its_cores(machine: dict[str, Any], slots: int, threads: list[int]) -> None:
    sharing = on(**machine)
    assert sharing.slots == tuple(Slot(i) for i in range(slots))
    assert list(sharing.threads) == threads


def test_a_gpu_has_one_name_however_an_invocation_counts_its_slots(tmp_path: Path) -> None:
    one = Slots(tmp_path, (Slot(0, ("0",)), Slot(1, ("1",))))
    pairs = Slots(tmp_path, (Slot(0, ("2", "3")), Slot(1, ("0", "1"))))
    taken = one.take(1)
    assert [slot.gpus for slot in pairs.take(1)] == [("2", "3")], "GPU 0 is taken, whatever its slot's number"
    assert pairs.take(1) == []
    one.free(taken)
    assert [slot.gpus for slot in pairs.take(1)] == [("0", "1")]
    assert one.take(1) == []


@pytest.mark.parametrize(
    ("machine", "groups", "threads"),
    [
        ({"gpus": ["0", "1", "2", "3"], "runs": 8}, ["0", "1", "2", "3"], 2),
        ({"gpus": ["0", "1", "2", "3"], "runs": 2}, ["0", "1"], 4),
        ({"gpus": ["0", "1", "2", "3"], "runs": 8, "devices": 2}, ["0 1", "2 3"], 2),
        ({"gpus": ["0", "1", "2"], "runs": 8, "devices": 2}, ["0 1"], 4),
        ({"gpus": ["GPU-a", "GPU-b"], "runs": 2}, ["GPU-a", "GPU-b"], 4),
        ({"gpus": ["0"], "runs": 4, "wanted": 3}, ["0", "0", "0"], 2),
        ({"gpus": ["0", "1"], "runs": 4, "wanted": 3}, ["0", "1", "0"], 2),
        ({"gpus": ["0", "1"], "runs": 4, "wanted": 1}, ["0"], 8),
        ({"gpus": ["0", "1"], "runs": 4, "threads": 3}, ["0", "1"], 3),
        ({"gpus": [str(i) for i in range(16)], "runs": 16}, [str(i) for i in range(16)], 1),
    ],
    ids=str,
)
def test_a_machine_with_gpus_is_shared_by_them(machine: dict[str, Any], groups: list[str], threads: int) -> None:
    sharing = on(**machine)
    assert [" ".join(slot.gpus) for slot in sharing.slots] == groups
    assert [slot.index for slot in sharing.slots] == list(range(len(groups)))
    assert sharing.threads == (threads,) * machine["runs"]
    assert {sharing.width(n) for n in (1, threads, 64)} == {1}


many = settings(max_examples=300, deadline=None, derandomize=True)


@many
@given(runs=st.integers(1, 40), cores=st.integers(1, 70), devices=st.integers(1, 5))
def test_runs_at_once_never_have_more_threads_than_there_are_cores(runs: int, cores: int, devices: int) -> None:
    sharing = on(runs=runs, cores=cores, devices=devices)
    count = len(sharing.slots)
    assert len(sharing.threads) == runs and 1 <= count <= runs
    for first in range(0, runs, count):
        at_once = sharing.threads[first : first + count]
        assert sum(at_once) * devices <= max(cores, devices)
        assert sum(map(sharing.width, at_once)) <= count, "they would not run at once"


@many
@given(runs=st.integers(1, 40), cores=st.integers(1, 70), devices=st.integers(1, 5), wanted=st.integers(1, 12))
def test_an_incomplete_last_round_gets_all_cores(runs: int, cores: int, devices: int, wanted: int) -> None:
    for sharing in (on(runs=runs, cores=cores, devices=devices, wanted=n) for n in (None, wanted)):
        count = len(sharing.slots)
        left_over = runs % count
        full, last = sharing.threads[: runs - left_over], sharing.threads[runs - left_over :]
        assert set(full) <= {max(1, cores // (devices * count))}
        assert set(last) <= {max(1, cores // (devices * max(1, left_over)))}
        assert sum(map(sharing.width, last)) <= count, "they would not run at once"


@many
@given(
    runs=st.integers(1, 20),
    cores=st.integers(1, 70),
    devices=st.integers(1, 5),
    wanted=st.none() | st.integers(1, 12),
    threads=st.integers(1, 80),
)
def test_what_was_asked_for_is_given(runs: int, cores: int, devices: int, wanted: int | None, threads: int) -> None:
    sharing = on(runs=runs, cores=cores, devices=devices, wanted=wanted, threads=threads)
    assert sharing.threads == (threads,) * runs
    assert sharing.width(threads) == 1
    assert len(sharing.slots) == (wanted or min(runs, max(1, cores // (devices * threads))))


@many
@given(
    gpus=st.integers(1, 16),
    data=st.data(),
    runs=st.integers(1, 20),
    cores=st.integers(1, 70),
)
def test_no_two_slots_share_a_gpu_unless_that_was_asked_for(
    gpus: int, data: st.DataObject, runs: int, cores: int
) -> None:
    devices = data.draw(st.integers(1, gpus))
    sharing = on(runs=runs, cores=cores, devices=devices, gpus=[f"GPU-{i}" for i in range(gpus)])
    used = [gpu for slot in sharing.slots for gpu in slot.gpus]
    assert len(used) == len(set(used))
    assert {len(slot.gpus) for slot in sharing.slots} == {devices}
    assert len(sharing.slots) == min(runs, gpus // devices)


@pytest.mark.parametrize(
    ("slots", "each", "threads", "width"),
    [(4, 2, 1, 1), (4, 2, 2, 1), (4, 2, 3, 1), (4, 2, 4, 2), (4, 2, 8, 4), (4, 2, 99, 4), (1, 1, 8, 1)],
)
def test_a_run_with_more_threads_takes_more_slots(slots: int, each: int, threads: int, width: int) -> None:
    sharing = Sharing(tuple(Slot(i) for i in range(slots)), (), each, devices=1, most=slots * each)
    assert sharing.width(threads) == width


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"runs": 8}, "8 at a time, with 1 CPU thread each"),
        ({"runs": 1}, "one at a time, with 8 CPU threads each"),
        ({"runs": 8, "gpus": ["0", "1", "2", "3"], "devices": 2}, "2 at a time, on 2 GPUs each"),
        ({"runs": 8, "gpus": ["0", "1"]}, "2 at a time, on 1 GPU each"),
        ({"runs": 8, "gpus": ["0"], "wanted": 4}, "4 at a time, sharing 1 GPU"),
        ({"runs": 8, "gpus": ["0", "1"], "wanted": 3}, "3 at a time, sharing 2 GPUs"),
        ({"runs": 8, "gpus": ["0", "1"], "wanted": 1}, "one at a time, on 1 GPU each"),
    ],
)
def test_people_read_how_it_is_shared(machine: dict[str, Any], words: str) -> None:
    assert on(**machine).slots_text() == words


def test_two_launchers_never_have_one_slot_twice(tmp_path: Path) -> None:
    first, second = Slots(tmp_path, FOUR), Slots(tmp_path, FOUR)
    assert first.take(1) == [Slot(0)]
    assert second.take(1) == [Slot(1)]
    assert first.take(1) == [Slot(2)]
    assert second.take(1) == [Slot(3)]
    assert first.take(1) == second.take(1) == []
    second.free([Slot(1)])
    assert first.take(1) == [Slot(1)]
    assert second.take(1) == []


def test_sweeps_in_other_folders_do_not_mind(tmp_path: Path) -> None:
    launchers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        launchers.append(Slots(tmp_path / name, FOUR))
    assert [launcher.take(4) for launcher in launchers] == [list(FOUR)] * 2


def test_a_wide_run_gets_all_its_slots_or_none(tmp_path: Path) -> None:
    first, second = Slots(tmp_path, FOUR), Slots(tmp_path, FOUR)
    assert first.take(3) == [Slot(0), Slot(1), Slot(2)]
    assert second.take(2) == []
    assert second.take(1) == [Slot(3)], "the last one was kept by a run that did not get enough"
    second.free([Slot(3)])
    assert first.take(2) == []
    first.free([Slot(0)])
    assert second.take(2) == [Slot(0), Slot(3)]


def holding(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the first three of four slots."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0 1 2\n"
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = holding(tmp_path)
    yield process
    process.kill()
    process.communicate()


def test_a_killed_launcher_frees_its_slots(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    slots = Slots(tmp_path, FOUR)
    assert slots.take(4) == slots.take(2) == []
    assert slots.take(1) == [Slot(3)]
    slots.free([Slot(3)])
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert slots.take(4) == list(FOUR)


def test_the_locks_lie_out_of_the_way(tmp_path: Path) -> None:
    Slots(tmp_path, FOUR).take(2)
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert FOLDER.startswith("."), "reports and check_folder pass over such names"


def test_a_run_sees_the_gpus_of_its_slots_and_nothing_else_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("LOSSLAB_TEST", "kept")
    before = dict(os.environ)
    assert environment([Slot(0), Slot(1)]) == before
    assert environment([Slot(2, ("GPU-a", "GPU-b"))]) == before | {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    assert environment([Slot(0, ("1",)), Slot(1, ("3",))])["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert dict(os.environ) == before
