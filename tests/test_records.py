"""run.json survives whatever happens to the process that writes it, and says so when it cannot be read."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from losslab import records
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.locks import is_locked, lock
from losslab.records import FILE, Record, read
from losslab.run_folder import RunFolder, find_identity, find_runs, runs_of_sweep

IDENTITY = "0123456789abcdef" * 4


def make_run(folder: Path, identity: str = IDENTITY, **changes) -> Path:
    folder.mkdir(parents=True)
    Record(identity=identity, name="runs", **changes).write(folder)
    return folder


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path` until it is killed."""
    program = f"""
import sys
from pathlib import Path
from losslab.locks import lock
with lock(Path({str(tmp_path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_record_reads_back_as_it_was_written(tmp_path) -> None:
    record = Record(
        identity=IDENTITY,
        name="first",
        overrides=["loss=square"],
        status="completed",
        step=3,
        max_steps=3,
        metrics={"best": {"test/nll": 2.5, "step": 2.0}},
        hashes={"data": "d"},
        provenance={"choices": {"loss": "square"}},
        error=None,
    )
    record.write(tmp_path)
    assert read(tmp_path) == record
    assert record.timing["updated"] <= records.now()


def test_every_key_is_always_present(tmp_path) -> None:
    Record(identity=IDENTITY, name="runs").write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    documented = {line.split()[0] for line in records.__doc__.splitlines() if line[:1].isalpha() and "  " in line}
    assert documented
    assert documented <= content.keys()
    assert content["schema"] == records.SCHEMA


def test_what_is_no_number_becomes_null(tmp_path) -> None:
    values = {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "fine": 1.5}
    record = Record(identity=IDENTITY, name="runs", metrics={"best": values}, provenance={"list": [math.nan, (1,)]})
    record.write(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / FILE).read_text(), parse_constant=refuse)
    assert content["metrics"]["best"] == {"nan": None, "inf": None, "minus": None, "fine": 1.5}
    assert content["provenance"]["list"] == [None, [1]]
    assert read(tmp_path).metrics["best"]["fine"] == 1.5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "holds no run.json"),
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b'{"schema": 1, "identity": "ab', "cannot be read"),
        (b"\xff\xfe\x00garbage", "cannot be read"),
        (b"[1, 2]", "no record of a run"),
        (b"null", "no record of a run"),
        (b"{}", "no record of a run"),
        (b'{"schema": 7, "identity": "a", "name": "runs"}', "update losslab"),
        (b'{"schema": 0, "identity": "a", "name": "runs"}', "not a whole record"),
        (b'{"schema": 4, "identity": 5, "name": "runs"}', "holds 5 as identity"),
        (b'{"schema": 4, "identity": "a", "name": "runs", "status": "done"}', "no status"),
        (b'{"schema": 5, "identity": "a", "name": "runs", "metrics": {"best": {"step": "x"}}}', "no numbers"),
        (b'{"schema": 5, "identity": "a", "name": "runs", "metrics": {"best": 1}}', "no numbers"),
        (b'{"schema": 1}', FILE),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(content: bytes | None, reason: str, tmp_path) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_of_a_newer_minor_version_are_passed_over(tmp_path) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"invented_later": 1}))
    assert read(tmp_path / "run").identity == IDENTITY


def test_write_atomic_writes_the_content_and_nothing_else(tmp_path) -> None:
    for content in (b"first", b"second, longer"):
        write_atomic(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@contextmanager
def disk_that_fails_to(step: str, monkeypatch):
    """Writing stops for real, at a limit on the size of files; fsync and rename only pretend."""

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if step != "write":
        monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "replace")}[step], fail)
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
@pytest.mark.parametrize("before", [{"file": b"old"}, {}], ids=["over an old file", "into nothing"])
def test_a_failed_write_leaves_what_was_there(before: dict[str, bytes], step: str, tmp_path, monkeypatch) -> None:
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=r"No space|too large"), disk_that_fails_to(step, monkeypatch):
        write_atomic(tmp_path / "file", b"new content, longer than the disk has room for")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_process_cannot_hold_the_same_run(tmp_path, holder) -> None:
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match="already running in another process"), lock(tmp_path):
        pytest.fail("two processes hold one run")


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path, holder) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    with lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_the_lock_is_freed_after_an_exception(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    assert not is_locked(tmp_path)


def test_asking_for_the_lock_makes_no_file(tmp_path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_repetitions_are_found_oldest_first(tmp_path) -> None:
    base = f"square-seed1-{IDENTITY[: records.SHORT]}"
    names = [base, *(f"{base}-{n}" for n in range(2, 12))]
    for name in reversed(names):
        make_run(tmp_path / name)
    make_run(tmp_path / f"{base}-stranger", identity=IDENTITY[: records.SHORT] + "f" * 54)
    make_run(tmp_path / "other-seed1-ffffffffff", identity="f" * 64)
    (tmp_path / f"{base}-12").mkdir()  # claimed by nobody yet
    assert [path.name for path in find_identity(tmp_path, IDENTITY)] == names


def test_find_runs_takes_a_sweep_or_a_single_run(tmp_path) -> None:
    runs = [make_run(tmp_path / name) for name in ("b", "a")]
    (tmp_path / "notes").mkdir()
    found = [RunFolder(tmp_path / name) for name in ("a", "b")]
    assert find_runs(tmp_path) == runs_of_sweep(tmp_path) == found
    assert find_runs(runs[0]) == [found[1]]
    assert find_runs(tmp_path / "notes") == []
    assert runs_of_sweep(runs[0]) == runs_of_sweep(tmp_path / "absent") == []


def test_a_record_of_schema_1_is_read_as_one_of_today(tmp_path) -> None:
    old = {
        "schema": 1,
        "identity": IDENTITY,
        "name": "first",
        "status": "completed",
        "hardware": {"threads": 2},
        "provenance": {"commit": "c", "dirty": False, "command": "losslab train", "choices": {"loss": "square"}},
        "yardsticks": {"best": {"test/nll": None, "step": 2.0}},
    }
    (tmp_path / FILE).write_text(json.dumps(old))
    record = read(tmp_path)
    assert (record.schema, record.status, record.step) == (records.SCHEMA, "completed", 0)
    assert record.hardware == {
        "threads": 2,
        "strategy": None,
        "deterministic": None,
        "float32_matmul_precision": None,
        "cudnn_allow_tf32": None,
        "visible_devices": None,
    }
    assert record.metrics == old["yardsticks"]
    assert record.timing == {"first_step": None}
    assert record.provenance == old["provenance"] | {"diff": None, "folder": None, "changes": []}
    record.write(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["schema"] == records.SCHEMA


def test_a_configuration_with_aliases_is_refused_and_none_is_ever_written(tmp_path) -> None:
    groups = ("model", "loss", "data", "optimizer", "scheduler", "task", "trainer")
    shared = {"a": [1, 2]}
    records.write_config(tmp_path, {"seed": 1, **dict.fromkeys(groups, shared)})
    assert "&" not in (tmp_path / records.CONFIG).read_text()
    assert records.read_config(tmp_path)["loss"] == shared
    (tmp_path / records.CONFIG).write_text("seed: 1\nmodel: &a {x: 1}\n" + "".join(f"{g}: *a\n" for g in groups[1:]))
    with pytest.raises(UserError, match="alias"):
        records.read_config(tmp_path)
