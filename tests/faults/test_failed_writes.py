"""A write that fails, at any point of a run, costs nothing: the same command completes it, bit for bit."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from injection import Operation, inject
from run_state import damage, differences, digest, litter, results, saved_step
from typer.main import get_command

from losslab import records
from losslab.cli import app
from losslab.commands.train import train
from losslab.data import stamps
from losslab.errors import UserError
from losslab.run_folder import RunFolder
from runs import TINY, find_runs, make_text

pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]
RUN = [
    *TINY,
    "model.dropout=0.1",
    "optimizer.lr=30.0",  # the second step is worse than the first, the third better
    "scheduler.warmup_steps=0",
    "trainer.max_steps=3",
    "trainer.val_check_interval=1",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_n_steps=1",
    "loggers=tensorboard",
]
TRAIN = ["train", *RUN]
SPLITS, ARRAYS = ("train", "val", "test"), ("tokens", "bytes", "fit", "lengths")
KINDS = ("mkdir", "open", "truncate", "write", "fsync", "rename", "link")
FILES = {
    "run.json": ["run.json"],
    "config.yaml": ["config.yaml"],
    "last.ckpt": ["last.ckpt"],
    "best.ckpt": ["best.ckpt"],
    "metrics.csv": ["metrics.csv"],
    "events": ["events"],
    "train.log": ["train.log"],
    "test_scores.npz": ["test_scores.npz"],
    "cache": [
        *(f"{split}.{array}.npy" for split in SPLITS for array in ARRAYS),
        "counts.npy",
        "meta.json",
        "the cache's folder",
    ],
    "progress of the cache": ["shards", ".tokenizer"],
    "notes": ["hashes.json", "verified.json"],
    "folders": ["the run's folder", "checkpoints", ".cache", "runs", "outputs", "a lock", "the probe"],
}
"""Every file that a run writes, in the groups that are tested together."""
NAMES = [name for group in FILES.values() for name in group]
MANY = [FILES[group] for group in ("cache", "progress of the cache", "notes", "folders")]
"""Those whose operations share out the modes."""
BORNE = [("link", "best.ckpt"), ("open", "train.log"), ("write", "train.log")]
BORNE += [("fsync", ".cache"), ("fsync", "the cache's folder")]
BORNE += [(kind, "events") for kind in ("open", "write", "fsync", "rename")]
"""Failures that a run may survive: a copy replaces a hard link, a log may miss a line, and TensorBoard's files
are written again when the run ends. The cache notes hashes and
verified files as short cuts, and syncs a folder for them."""
COMMAND = get_command(app)
"""Made once: typer makes all of it again for each call of `app`."""
MODES = ("ENOSPC", "EIO", "partial")
CAUSES = [os.strerror(number) for number in (errno.ENOSPC, errno.EIO, errno.EFBIG)]


@dataclass
class Scene:
    """A folder before the run that is disturbed, and what a run that is not comes to from there."""

    folder: Path
    operations: list[Operation]
    expected: dict[str, Any]
    neighbour: dict[str, str]
    run: str
    since: int = 0


@dataclass
class Attempt:
    """How a command ended."""

    code: object
    output: str
    refused: bool = False
    """By a UserError before any job."""


def attempt(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Attempt:
    """The command as a person types it, in this process."""
    capsys.readouterr()
    code: object
    message = ""
    try:
        code = COMMAND.main(arguments, standalone_mode=False)
    except UserError as error:
        code, message = 2, str(error)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = message = f"{type(error).__name__}: {error}"
    shown = capsys.readouterr()
    return Attempt(code, shown.out + shown.err + message, refused=code == 2 and message != "")


@pytest.fixture(autouse=True, scope="module")
def hashes_noted_at_once() -> Iterator[None]:
    """In each attempt, however quick it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stamps, "_SETTLED", 0)
        yield


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """No cache, and a completed neighbour in the folder that the run goes to."""
    folder = tmp_path_factory.mktemp("cold")
    (folder / "book.txt").write_text(make_text(paragraphs=40), encoding="utf-8")
    with contextlib.chdir(folder):
        assert train([*RUN, "loss=square"]) == 0
        (neighbour,) = find_runs(Path("outputs/runs"))
        shutil.rmtree("outputs/.cache")
        return observe(folder, neighbour, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def continued(cold: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The run has stopped after its first step, at a checkpoint that could not be written."""
    folder = tmp_path_factory.mktemp("continued") / "work"
    shutil.copytree(cold.folder, folder)
    with contextlib.chdir(folder):
        with inject(folder, Operation("open", "last.ckpt", 2)), contextlib.suppress(SystemExit):
            train(RUN)
        (neighbour,) = (path for path in find_runs(Path("outputs/runs")) if path.name != cold.run)
        scene = observe(folder, neighbour, tmp_path_factory.mktemp("twice"))
    assert scene.since == 1
    assert scene.expected == cold.expected
    return scene


def observe(folder: Path, neighbour: Path, place: Path) -> Scene:
    """Run undisturbed in a copy of `folder`, and note every operation."""
    copy = place / "work"
    shutil.copytree(folder, copy)
    with contextlib.chdir(copy), inject(copy) as faults:
        assert train(RUN) == 0
    (run,) = (path for path in find_runs(copy / "outputs/runs") if path.name != neighbour.name)
    before = folder / "outputs/runs" / run.name
    return Scene(folder, faults.operations, results(run), digest(neighbour), run.name, saved_step(before))


def sample(operations: list[Operation], files: list[str], mode: str, *, turn: int = 0) -> list[Operation]:
    """An operation of each kind on each file: the first in one mode, a later one in the next. What a run does once, and
    MANY of the files, share out the modes, and the splits in the cache share out the operations on an array."""
    kinds: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.file in files and (operation.kind == "write" or mode != "partial"):
            kinds[operation.kind, operation.file].append(operation)
    rng = random.Random(mode)
    chosen = []
    for place, ((kind, file), found) in enumerate(kinds.items()):
        modes = MODES if kind == "write" else MODES[:2]
        shared = files in MANY or len(found) == 1
        own = modes[(turn + NAMES.index(file) + KINDS.index(kind)) % len(modes)]
        if (shared and mode != own) or left_out(kind, file):
            continue
        first = (place + MODES.index(mode) + turn) % 2 == 0 or len(found) == 1
        chosen.append(found[0] if first else rng.choice(found[1:]))
    return chosen


def left_out(kind: str, file: str) -> bool:
    """Whether another split's array is tested for this one."""
    split, _, array = file.removesuffix(".npy").partition(".")
    if split not in SPLITS or array not in ARRAYS:
        return False
    return SPLITS[(KINDS.index(kind) + ARRAYS.index(array)) % 3] != split


@contextlib.contextmanager
def copied(scene: Scene, place: Path) -> Iterator[Path]:
    """The scene in a fresh folder, which becomes the current one; yields the run's folder in it."""
    shutil.copytree(scene.folder, place)
    with contextlib.chdir(place):
        yield place / "outputs/runs" / scene.run
    shutil.rmtree(place)


def check_failure(end: Attempt, run: Path, scene: Scene, statuses: Sequence[str] = ("failed", "running")) -> list[str]:
    """Faults right after a run whose disk failed; `statuses` are those that its record may have."""
    problems = damage(run, since=scene.since) + check_neighbour(run, scene) + check_litter(run)
    begun = (run / records.FILE).exists()
    if end.code != 1 and not (end.code == 2 and (end.refused or not begun)):
        problems.append(f"it ended with {end.code}")
    if any(sign in end.output for sign in ("Traceback", "Logging error", "Error executing job")):
        problems.append("it showed a traceback")
    if not any(cause in end.output for cause in CAUSES):
        problems.append("it did not tell the cause")
    if begun and (status := status_of(run)) not in statuses:
        problems.append(f"its status is {status}")
    return problems


def possible(at: Operation, mode: str) -> list[str]:
    """The statuses that a run may have after this fault: `failed` wherever that can be written."""
    if at.kind == "fsync" and at.file == "the run's folder":
        return ["failed", "running", "completed"]  # the record itself may be in place already
    return ["failed"] if mode == "EIO" and at.file != records.FILE else ["failed", "running"]


def status_of(run: Path) -> str:
    try:
        return records.read(run).status
    except UserError:
        return "unreadable"


def check_neighbour(run: Path, scene: Scene) -> list[str]:
    (neighbour,) = (path for path in run.parent.iterdir() if path.is_dir() and path != run)
    return [] if digest(neighbour) == scene.neighbour else ["a completed run beside it was changed"]


def check_repair(end: Attempt, run: Path, scene: Scene) -> list[str]:
    """Faults after the same command on a disk that works again."""
    if end.code != 0:
        return [f"again, it ended with {end.code}: {end.output.strip()[-300:]}"]
    problems = damage(run, since=scene.since) + differences(run, scene.expected) + check_neighbour(run, scene)
    if (status := status_of(run)) != "completed":
        problems.append(f"again, it became {status}")
    return problems + check_litter(run)


def check_litter(run: Path) -> list[str]:
    return [f"{name} was left behind" for name in litter(run.parents[1])]


def disturb(scene: Scene, at: Operation, mode: str, place: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run with a fault, look, and run again without it."""
    with copied(scene, place) as run:
        with inject(place, at, mode) as faults:
            end = attempt(TRAIN, capsys)
        if not faults.hit:
            return ["it was never reached"]
        if end.code == 0 and ((at.kind, at.file) in BORNE or at.file in FILES["notes"]):
            return check_repair(end, run, scene)
        problems = check_failure(end, run, scene, possible(at, mode))
        resumable = (run / records.FILE).exists() and scene.operations.index(at) % 4
        return problems + check_repair(attempt(["resume", str(run)] if resumable else TRAIN, capsys), run, scene)


@pytest.mark.parametrize("files", FILES)
def test_a_failed_write_loses_nothing(
    cold: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: str
) -> None:
    problems = {
        f"{mode}: {operation}": found
        for mode in MODES
        for operation in sample(cold.operations, FILES[files], mode)
        if (found := disturb(cold, operation, mode, tmp_path / "work", capsys))
    }
    assert not problems, report(problems)


@pytest.mark.parametrize("files", [files for files in FILES if files != "progress of the cache"])
def test_a_failed_write_of_a_continued_run_loses_nothing(
    continued: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: str
) -> None:
    chosen = sample(continued.operations, FILES[files], "EIO", turn=1)
    problems = {
        str(operation): found
        for operation in chosen
        if (found := disturb(continued, operation, "EIO", tmp_path / "work", capsys))
    }
    assert chosen and not problems, report(problems)


def test_every_operation_on_a_file_fails_in_some_mode(cold: Scene) -> None:
    """But for those on an array of a split of which another split's stands in."""
    chosen = [one for mode in MODES for files in FILES.values() for one in sample(cold.operations, files, mode)]
    done = {(one.kind, one.file) for one in cold.operations if not left_out(one.kind, one.file)}
    assert {(one.kind, one.file) for one in chosen} == done


def report(problems: dict[str, list[str]]) -> str:
    return "\n".join(["", *(f"{operation}: {'; '.join(found)}" for operation, found in problems.items())])


def test_every_file_of_a_run_is_covered(cold: Scene) -> None:
    covered = {operation.file for operation in cold.operations}
    named = {file for files in FILES.values() for file in files}
    assert covered <= named, f"not tested: {sorted(covered - named)}"
    assert {"run.json", "config.yaml", "last.ckpt", "best.ckpt", "metrics.csv", "events", "train.log"} <= covered
    assert set(FILES["cache"]) <= covered


def test_what_takes_a_name_is_on_the_disk_before_and_keeps_it(cold: Scene) -> None:
    operations = [operation for operation in cold.operations if operation.file != "events"]
    problems = {}
    for place, operation in enumerate(operations):
        if operation.kind != "rename":
            continue
        parts = FILES["cache"][:-1] if operation.file == "the cache's folder" else [operation.file]
        last = {done.file: done.kind for done in operations[:place]}
        found = [f"{part} was not synced" for part in parts if last[part] not in ("fsync", "link")]
        folders = [*FILES["folders"], "the cache's folder"]
        if not any(after.kind == "fsync" and after.file in folders for after in operations[place + 1 :][:1]):
            found.append("its folder was not synced")
        if found:
            problems[str(operation)] = found
    assert not problems, report(problems)


def test_a_sweep_goes_on_after_a_failed_write(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_this_process = "hydra/launcher=basic"
    with inject(workplace, Operation("fsync", "last.ckpt", 1), "EIO"):
        assert attempt([*TRAIN, "-m", "seed=1,2", in_this_process], capsys).code == 1
    runs = find_runs(workplace / "outputs/runs")
    assert [records.read(run).status for run in runs] == ["failed", "completed"]
    assert attempt([*TRAIN, "-m", "seed=1,2"], capsys).code == 0
    assert [records.read(run).status for run in runs] == ["completed", "completed"]


def test_a_file_size_limit_below_a_checkpoint_loses_nothing(cold: Scene, tmp_path: Path) -> None:
    limited = (
        "import sys; from losslab.cli import main; import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "main()\n"
    )
    with copied(cold, tmp_path / "work") as run:
        command = [sys.executable, "-B", "-c", limited, "train", *RUN]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        end = Attempt(process.returncode, process.stdout + process.stderr)
        problems = check_failure(end, run, cold)
        assert (run / records.FILE).exists() and not RunFolder(run).last.exists()
        assert train(RUN) == 0
        problems += check_repair(Attempt(0, ""), run, cold)
    assert not problems, report({"the limit": problems})


@pytest.mark.parametrize(("checkpoints", "step"), [(0.6, 0), (1.6, 1)])
def test_a_full_disk_loses_nothing(
    cold: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoints: float, step: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "losslab-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        work = disk / "work"
        shutil.copytree(cold.folder, work)
        run = work / "outputs/runs" / cold.run
        with contextlib.chdir(work):
            assert train([*RUN, "name=warm"]) == 0
            size = next(work.glob("outputs/warm/*/checkpoints/last.ckpt")).stat().st_size
            shutil.rmtree("outputs/warm")
            usage = shutil.disk_usage(disk)
            resize(disk, usage.used + FIRST_FILES + round(checkpoints * size))
            end = attempt(TRAIN, capsys)
            problems = check_failure(end, run, cold)
            assert saved_step(run) == step
            resize(disk, usage.total)
            problems += check_repair(attempt(TRAIN, capsys), run, cold)
        assert not problems, report({"the full disk": problems})
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


FIRST_FILES = 6 * 4096
"""Pages that a run has written before its first checkpoint: configuration, record, logs."""


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size // 1024}k", str(disk)], check=True)
