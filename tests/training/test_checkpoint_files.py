"""A checkpoint is the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import io
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.training.output.checkpoints import (
    AtomicCheckpointIO,
    Damaged,
    ReadCheckpoint,
    keep_newest,
    link,
    newest,
    older,
    read_checkpoint,
    strip,
)


def checkpoint(step: int) -> dict[str, Any]:
    whole = {"losslab": {"step": step}, "state_dict": {"weight": torch.full((300,), float(step))}, "config": {}}
    return whole | {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "callbacks": {}}


def run_of(path: Path) -> RunFolder:
    return RunFolder(path.parent.parent)


def step_of(path: Path) -> int:
    step: int = read_checkpoint(path)["losslab"]["step"]
    return step


OLD, NEW = checkpoint(1), checkpoint(2)

files = AtomicCheckpointIO()


@pytest.fixture
def last(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint(OLD, path)
    return path


def fail(*args: Any, **kwargs: Any) -> None:
    raise OSError("no space left on device")


def save_half(checkpoint: dict[str, Any], file: Any) -> None:
    file.write(b"half")
    fail()


def failing_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "save", save_half)


def failing_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)


def failing_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", fail)


def test_what_is_saved_comes_back(last: Path) -> None:
    content = files.load_checkpoint(last)
    assert content["losslab"] == {"step": 1}
    assert torch.equal(content["state_dict"]["weight"], torch.ones(300))
    files.save_checkpoint(NEW, last)
    assert step_of(last) == 2
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("failure", [failing_save, failing_sync, failing_rename])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    failure: Callable[[pytest.MonkeyPatch], None], last: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = last.read_bytes()
    with monkeypatch.context() as patch:
        failure(patch)
        with pytest.raises(OSError, match="no space left"):
            files.save_checkpoint(NEW, last)
    assert last.read_bytes() == before
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_is_streamed_and_not_copied_in_memory(last: Path) -> None:
    tensors = {f"weight{i}": torch.ones(2**20) for i in range(8)}
    tracemalloc.start()
    try:
        files.save_checkpoint({**NEW, "state_dict": tensors}, last)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert last.stat().st_size > 32 * 2**20
    assert peak < 2**20  # the largest tensor alone has 4 MiB


@pytest.mark.parametrize("failing", range(4))
def test_a_write_that_fails_midway_is_told_as_what_it_is(
    failing: int, last: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's writer is C++, and would turn the system's error into one of its own without a cause."""
    before, opened = last.read_bytes(), Path.open

    class Full(io.BufferedWriter):
        def write(self, data: Any) -> int:
            self.writes = getattr(self, "writes", -1) + 1
            if self.writes >= failing * 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def open_full(path: Path, *args: Any) -> Any:
        return Full(io.FileIO(path, "w")) if args == ("wb",) else opened(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(OSError, match="No space left") as told:
            files.save_checkpoint(NEW, last)
    assert told.value.errno == errno.ENOSPC and told.value.filename == str(last)
    assert last.read_bytes() == before
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_could_not_be_read_back_does_not_replace_one_that_can(last: Path) -> None:
    with pytest.raises(UserError, match="could not be continued from"):
        AtomicCheckpointIO().save_checkpoint({**NEW, "extra": Intruder(last.with_name("ran"))}, last)
    assert step_of(last) == 1
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_what_was_read_is_handed_over_once_and_not_kept(last: Path) -> None:
    resumed = ReadCheckpoint(last, read_checkpoint(last))
    content = resumed.content
    reader = AtomicCheckpointIO(resumed)
    assert reader.load_checkpoint(last) is content
    assert resumed.content == {}  # the caller has the only reference
    assert reader.load_checkpoint(last) is not content  # and a second time it is read


def test_stripping_says_beforehand_what_it_will_free(last: Path) -> None:
    states = [{"state": {0: {"exp_avg": torch.ones(5000)}}}]
    files.save_checkpoint({**NEW, "optimizer_states": states}, last)
    before = last.stat().st_size
    told = strip(last, dry_run=True)
    assert last.stat().st_size == before
    assert strip(last, dry_run=False) == told == before - last.stat().st_size > 20000
    assert strip(last, dry_run=False) == 0


def test_content_is_on_the_disk_before_it_gets_its_name(last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        assert step_of(self) == 2  # whole, beside the target
        assert self.parent == target.parent
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.save_checkpoint(NEW, last)
    assert events[:2] == ["fsync", "rename"]


class Intruder:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_loading_runs_nothing_that_is_in_the_file(tmp_path: Path, save: Callable[..., Any]) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    path.parent.mkdir()
    save({**OLD, "extra": Intruder(tmp_path / "ran")}, path)
    for read in (files.load_checkpoint, read_checkpoint, lambda path: newest(run_of(path))):
        with pytest.raises(UserError, match="refused"):
            read(path)
    with pytest.raises(UserError, match="refused"):
        files.load_checkpoint(path, weights_only=False)  # whatever Lightning asks for
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_refused_even_where_an_older_checkpoint_would_load(last: Path) -> None:
    link(last, last.with_name("best.ckpt"))
    torch.save({**NEW, "extra": Intruder(last.with_name("ran"))}, last)
    with pytest.raises(UserError, match="refused"):
        newest(run_of(last))


def flip_a_byte(content: bytes) -> bytes:
    at = content.index(torch.ones(300).numpy().tobytes()) + 400
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        flip_a_byte,
        lambda content: b"not a checkpoint",
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "one byte", "half", "all but one byte", "one bit", "text", "zeros"],
)
def test_a_damaged_file_is_told_and_the_newest_that_loads_is_used(
    last: Path, spoil: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    link(last, last.with_name("best.ckpt"))
    files.save_checkpoint(NEW, last)
    files.save_checkpoint(OLD, last)
    last.write_bytes(spoil(last.read_bytes()))
    with pytest.raises(Damaged, match=r"last\.ckpt is damaged"):
        read_checkpoint(last)
    found = newest(run_of(last))
    assert found is not None and found.path.name == "best.ckpt"
    assert "continuing from best.ckpt" in capsys.readouterr().err


def test_where_none_loads_nothing_is_begun_again(last: Path) -> None:
    last.write_bytes(b"torn")
    with pytest.raises(UserError, match="delete that folder to train from step 0"):
        newest(run_of(last))
    assert newest(RunFolder(last.parent / "elsewhere")) is None


def test_the_newest_few_stay_and_the_last_of_them_is_tried_first(last: Path) -> None:
    for step in range(1, 6):
        files.save_checkpoint(checkpoint(step), last)
        keep_newest(run_of(last), step, keep=3)
    assert [step_of(path) for path in older(run_of(last))] == [5, 4, 3]
    last.write_bytes(b"torn")
    older(run_of(last))[0].write_bytes(b"torn")
    found = newest(run_of(last))
    assert found is not None and found.step == 4
    keep_newest(run_of(last), 5, keep=1)
    assert older(run_of(last)) == []


def test_removing_a_checkpoint_twice_is_no_error(last: Path) -> None:
    files.remove_checkpoint(last)
    files.remove_checkpoint(last)
    assert not last.exists()


def test_a_link_is_a_second_name_that_outlives_the_first_ones_content(last: Path) -> None:
    best = last.with_name("best.ckpt")
    link(last, best)
    assert best.samefile(last)
    files.save_checkpoint(NEW, last)
    assert step_of(best) == 1
    link(last, best)
    assert step_of(best) == 2
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_linking_again_what_is_linked_already_leaves_no_third_name(last: Path) -> None:
    """A rename between two names of one file does nothing (POSIX); a resumed run may link the same two."""
    for _ in range(2):
        link(last, last.with_name("best.ckpt"))
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_without_hard_links_it_is_an_atomic_copy(last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", fail)
    best = last.with_name("best.ckpt")
    link(last, best)
    assert best.read_bytes() == last.read_bytes()
    assert not best.samefile(last)
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_name_that_a_killed_process_left_is_no_obstacle(last: Path) -> None:
    best = last.with_name("best.ckpt")
    best.with_name(f".best.ckpt.{os.getpid()}.tmp").write_bytes(b"torn")
    link(last, best)
    assert best.samefile(last)
