"""A checkpoint is the old file or the new one, never half of one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from losslab.training.checkpoints import AtomicCheckpointIO, link, load_weights, read_state

OLD, NEW = {"losslab": {"step": 1}, "state_dict": {"weight": torch.zeros(3)}}, {"losslab": {"step": 2}}

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
    assert torch.equal(content["state_dict"]["weight"], torch.zeros(3))
    files.save_checkpoint(NEW, last)
    assert files.load_checkpoint(last) == NEW
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


def test_content_is_on_the_disk_before_it_gets_its_name(last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        assert files.load_checkpoint(self) == NEW  # whole, beside the target
        assert self.parent == target.parent
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.save_checkpoint(NEW, last)
    assert events[:2] == ["fsync", "rename"]


def test_loading_runs_nothing_that_is_in_the_file(tmp_path: Path) -> None:
    class Intruder:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "foreign.ckpt"
    torch.save({"losslab": Intruder()}, path)
    for read in (files.load_checkpoint, read_state):
        with pytest.raises(pickle.UnpicklingError):
            read(path)
    with pytest.raises(pickle.UnpicklingError):
        files.load_checkpoint(path, weights_only=False)  # whatever Lightning asks for
    assert not (tmp_path / "ran").exists()


def test_removing_a_checkpoint_twice_is_no_error(last: Path) -> None:
    files.remove_checkpoint(last)
    files.remove_checkpoint(last)
    assert not last.exists()


def test_our_own_part_is_read_without_the_rest(last: Path) -> None:
    assert read_state(last) == {"step": 1}
    assert read_state(last.with_name("best.ckpt")) is None


def test_weights_go_back_into_their_module(tmp_path: Path) -> None:
    trained, fresh = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    files.save_checkpoint({"state_dict": trained.state_dict()}, tmp_path / "best.ckpt")
    load_weights(tmp_path / "best.ckpt", fresh)
    assert torch.equal(fresh.weight, trained.weight)


def test_a_link_is_a_second_name_that_outlives_the_first_ones_content(last: Path) -> None:
    best = last.with_name("best.ckpt")
    link(last, best)
    assert best.samefile(last)
    files.save_checkpoint(NEW, last)
    assert read_state(best) == {"step": 1}
    link(last, best)
    assert read_state(best) == {"step": 2}
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
    best.with_name(f".best.ckpt.{os.getpid()}").write_bytes(b"torn")
    link(last, best)
    assert best.samefile(last)
