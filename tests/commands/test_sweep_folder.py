"""Whether a sweep's folder is one: a writable place with runs in it, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from losslab.commands.folder import check_folder
from losslab.errors import UserError
from losslab.records import CONFIG, FILE, Record


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "first"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "outputs" / "first")
    assert contents(tmp_path) == {"outputs", "outputs/first"}


@pytest.mark.parametrize(
    "paths",
    [
        [],
        [".slots/host-0.lock", ".gitignore"],
        ["comparison/report.html", "comparison-test-top1/report.html", "multirun.yaml"],
        [f"killed early/{CONFIG}"],
        ["killed earlier/.lock"],
        ["killed earlier still/"],
    ],
    ids=str,
)
def test_what_losslab_leaves_is_in_nobodys_way(paths: list[str], sweep: Path) -> None:
    make(sweep, paths)
    before = contents(sweep)
    check_folder(sweep)
    assert contents(sweep) == before


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["thesis.tex"], "thesis.tex"),
        (["photos/cat.jpg"], "photos"),
        (["photos/.thumbnails", "photos/cat.jpg"], "photos"),
        (["z", "b", "a"], "a"),
        (["comparison/report.html", "thesis.tex"], "thesis.tex"),
    ],
    ids=str,
)
def test_somebodys_own_files_are_named_and_left_alone(paths: list[str], named: str, sweep: Path) -> None:
    make(sweep, paths)
    before = contents(sweep)
    with pytest.raises(UserError) as caught:
        check_folder(sweep)
    assert f"{sweep} holds something else than runs ({named})" in str(caught.value)
    assert "another name=" in str(caught.value)
    assert contents(sweep) == before


def test_notes_beside_runs_are_welcome(sweep: Path) -> None:
    make(sweep, ["notes.txt", f"run/{FILE}"])
    Record(identity="a", name="first").write(sweep / "run")
    check_folder(sweep)


@pytest.mark.parametrize("folder", ["outputs/first", "outputs/first/below"])
def test_a_file_in_the_way_is_told(folder: str, tmp_path: Path) -> None:
    make(tmp_path, ["outputs/first"])
    with pytest.raises(UserError, match=rf"output folder .*{folder} cannot be written: \S+") as caught:
        check_folder(tmp_path / folder)
    assert "Errno" not in str(caught.value)


def test_a_disk_that_cannot_be_written_is_told(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        check_folder(sweep)


def make(folder: Path, paths: list[str]) -> None:
    for path in paths:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if path.endswith("/") else place.touch()
