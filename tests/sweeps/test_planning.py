"""The plan of a sweep: which runs there are, in which folders, with how many threads; and what is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain, group_choices
from losslab.errors import Held
from losslab.locks import LOCK
from losslab.records import CONFIG, FILE, read, read_config
from losslab.sweeps.plan import Job, Plan
from losslab.sweeps.planning import plan
from losslab.sweeps.slots import Slot
from losslab.training.output.provenance import hash_code
from losslab.training.process.claim import Finder
from runs import TINY, find_runs, make_text

HOLDER = """
import sys
from pathlib import Path
from losslab.locks import lock

with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
FREE = "trainer.threads=null "
"""The sweep chooses the threads."""
pytestmark = pytest.mark.usefixtures("workplace")


def jobs(*combinations: str) -> list[Job]:
    return [_job(combination) for combination in combinations]


@cache
def _job(combination: str) -> Job:
    overrides = [*TINY, *combination.split()]
    config, choices = compose_job(overrides)
    return Job(check_run(config), compose_plain(group_choices(overrides)), choices, overrides, combination)


def planned(*combinations: str, slots: int | None = None, here: bool = True) -> Plan:
    """The plan of what is right."""
    made = plan(jobs(*combinations), slots=slots, here=here)
    assert made.mistakes == []
    return made


def mistakes(*combinations: str, here: bool = True) -> list[str]:
    """Those of what is wrong, of which nothing was written."""
    made = plan(jobs(*combinations), slots=None, here=here)
    assert made.mistakes
    assert made.runs == [] and not Path("outputs").exists()
    assert not any("\n" in mistake for mistake in made.mistakes)
    return made.mistakes


def finish(folder: Path, **changes: Any) -> dict[str, tuple[bytes, int]]:
    """Let a planned run look like a completed one; returns the state of its files."""
    record = read(folder)
    for key, value in ({"status": "completed", "step": 8} | changes).items():
        setattr(record, key, value)
    record.write(folder)
    return state(folder)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def told(folder: Path) -> dict[str, Any]:
    """The record, but for when it was written."""
    content = json.loads((folder / FILE).read_text())
    del content["timing"]["updated"]
    return content


@contextmanager
def held(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def with_cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that gives the machine so many cores."""
    return lambda count: monkeypatch.setattr("losslab.sweeps.planning.cores", lambda: count)


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that gives the machine these GPUs."""

    def give(*names: str) -> None:
        for module in ("losslab.sweeps.planning", "losslab.training.process.devices"):
            monkeypatch.setattr(f"{module}.gpus", lambda: list(names))
            monkeypatch.setattr(f"{module}.uses_gpu", lambda settings: settings["accelerator"] != "cpu")
        monkeypatch.setattr("losslab.training.process.devices.first_device", lambda accelerator: None)
        monkeypatch.setattr("losslab.training.process.devices.make_trainer", lambda config, folder: None)

    return give


def test_a_claim_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Finder.claim
    tries: list[str] = []

    def claim_late(self: Finder, place: Any, status: str | None, *arguments: Any) -> Any:
        tries.append(place.folder.name)
        if len(tries) < 3:
            raise Held("another invocation makes the folder")
        return claim(self, place, status, *arguments)

    monkeypatch.setattr(Finder, "claim", claim_late)
    assert [run.status for run in planned("seed=1").runs] == ["planned"]
    assert len(tries) == 3


def test_each_run_is_claimed_and_says_that_it_is_planned() -> None:
    made = planned("loss=square seed=1", "loss=square seed=2", "seed=1")
    assert [run.number for run in made.runs] == [1, 2, 3]
    assert [run.label for run in made.runs] == ["loss=square seed=1", "loss=square seed=2", "seed=1"]
    assert sorted(run.folder.path for run in made.runs) == find_runs(Path("outputs/runs"))
    assert made.notes == []
    assert made.texts == [f"read 1 file (book.txt), {len(make_text()):,} characters"], "once, whatever differs"
    for run in made.runs:
        record = read(run.folder.path)
        assert (record.status, record.step, record.max_steps) == ("planned", 0, 8)
        assert (run.status, run.step, run.max_steps) == ("planned", 0, 8)
        assert (run.devices, run.nodes, run.trust) == (1, 1, [])
        assert record.provenance["folder"] == str(run.folder.absolute())
        assert record.overrides[: len(TINY)] == TINY
    assert read_config(made.runs[1].folder.path)["seed"] == 2
    assert read_config(made.runs[2].folder.path)["loss"]["_target_"].endswith("CrossEntropy")


def test_a_combination_given_twice_is_one_run() -> None:
    made = planned("seed=1", "seed=2", "seed=1 trainer.log_every_n_steps=4", "seed=2")
    assert [(run.number, run.label) for run in made.runs] == [(1, "seed=1"), (2, "seed=2")]
    assert len(find_runs(Path("outputs/runs"))) == 2
    assert made.notes == ["4 combinations are 2 different runs; each is trained once"]
    assert made.sharing is not None and len(made.sharing.threads) == 2


def test_all_mistakes_are_told_once_and_nothing_is_written() -> None:
    found = mistakes(
        "seed=1",
        "model.num_heads=3 seed=1",
        "model.num_heads=3 seed=2",
        "+loss.invented=1",
        "data.path=elsewhere.txt",
        "data.batch_size=4 trainer.micro_batch_size=3",
        "trainer.num_nodes=2 data.batch_size=4",
    )
    assert len(found) == 5
    for mistake, words in zip(
        found,
        ("num_heads", "'loss.invented'", "elsewhere.txt", "micro_batch_size", "num_nodes above 1"),
        strict=True,
    ):
        assert words in mistake


def test_a_text_that_cannot_be_read_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "book.txt")

    monkeypatch.setattr(Finder, "_hash_inputs", refuse)
    assert mistakes("seed=1", "seed=2") == ["a file could not be read or written at book.txt: Permission denied"]


def test_a_folder_that_cannot_be_made_is_told() -> None:
    (mistake,) = mistakes("output_dir=book.txt/outputs")
    assert mistake.startswith("the folder book.txt/outputs/runs")
    assert mistake.endswith("cannot be made: Not a directory")


def test_a_damaged_record_is_told_before_anything_is_written() -> None:
    (run,) = planned("seed=1").runs
    (run.folder.path / FILE).write_text("{")
    made = plan(jobs("seed=2", "seed=1"), slots=None)
    (mistake,) = made.mistakes
    assert str(run.folder.path / FILE) in mistake and "move it away" in mistake
    assert find_runs(Path("outputs/runs")) == [run.folder.path]


def test_threads_are_fixed_when_the_sweep_is_planned(with_cores: Callable[[int], None]) -> None:
    with_cores(8)
    first = planned(*(FREE + f"seed={seed}" for seed in (1, 2, 3)))
    assert [run.threads for run in first.runs] == [2, 2, 2]
    records = [told(run.folder.path) for run in first.runs]
    assert [record["hardware"] for record in records] == [{"threads": 2}] * 3
    assert read_config(first.runs[0].folder.path)["trainer"]["threads"] is None, "it is this machine's, not the run's"

    for cores, slots, each in [(1, None, 1), (64, None, 16), (8, 1, 8)]:
        with_cores(cores)
        later = planned(*(FREE + f"seed={seed}" for seed in (3, 1, 2, 3 + cores)), slots=slots)
        assert [run.threads for run in later.runs] == [2, 2, 2, each]
        assert read(later.runs[-1].folder.path).hardware == {"threads": each}
        assert [told(run.folder.path) for run in first.runs] == records


def test_threads_that_were_asked_for_come_first(with_cores: Callable[[int], None]) -> None:
    with_cores(8)
    made = planned("trainer.threads=3 seed=1", "trainer.threads=1 seed=2", FREE + "seed=3")
    assert [run.threads for run in made.runs] == [3, 1, 3]
    assert made.sharing is not None and len(made.sharing.slots) == 2, "by the most demanding run"


def test_a_list_that_grows_leaves_the_old_runs_as_they_are(with_cores: Callable[[int], None]) -> None:
    with_cores(2)
    old = planned(FREE + "seed=1", FREE + "seed=2").runs
    finished = finish(old[0].folder.path)
    record = read(old[1].folder.path)
    record.status, record.step, record.hashes["code"] = "interrupted", 4, "of then"
    record.timing |= {"seconds": 3.0}
    record.provenance["changes"] = [{"step": 2}]
    record.write(old[1].folder.path)
    before = told(old[1].folder.path)

    made = planned(*(FREE + f"seed={seed}" for seed in (0, 1, 2, 3)))
    grown = made.runs
    assert made.notes == [], "what is unfinished says itself that its code has changed"
    assert [(run.number, run.status, run.step) for run in grown] == [
        (1, "planned", 0),
        (2, "completed", 8),
        (3, "interrupted", 4),
        (4, "planned", 0),
    ]
    assert [grown[1].folder.path, grown[2].folder.path] == [run.folder.path for run in old]
    assert state(old[0].folder.path) == finished
    assert told(old[1].folder.path) == before


@pytest.mark.parametrize("status", ["completed", "diverged"])
def test_a_result_is_not_touched(status: str) -> None:
    (run,) = planned("seed=1").runs
    (run.folder.path / LOCK).unlink(missing_ok=True)
    before = finish(run.folder.path, status=status)
    made = planned("seed=1", "seed=2")
    assert [run.status for run in made.runs] == [status, "planned"]
    assert state(run.folder.path) == before


@pytest.mark.parametrize("status", ["failed", "interrupted", "running", "planned"])
def test_what_is_unfinished_is_taken_up_where_it_is(status: str) -> None:
    (run,) = planned("seed=1").runs
    finish(run.folder.path, status=status, step=4)
    (again,) = planned("seed=1").runs
    expected = "planned" if status == "failed" else status  # so that a failure read later is a new one
    assert (again.folder.path, again.status, again.step) == (run.folder.path, expected, 4)
    assert read(run.folder.path).status == expected


def test_a_fresh_run_stands_beside_the_old_one() -> None:
    (old,) = planned("seed=1").runs
    (run,) = planned("seed=1 fresh=true").runs
    assert run.folder.path == old.folder.path, "there is no result yet to stand beside"
    before = finish(old.folder.path)
    made = planned("seed=1 fresh=true", "seed=1 fresh=true trainer.log_every_n_steps=4")
    (fresh,) = made.runs
    assert fresh.folder.path == old.folder.path.with_name(f"{old.folder.name}-2")
    assert (fresh.status, read(fresh.folder.path).identity) == ("planned", read(old.folder.path).identity)
    assert state(old.folder.path) == before
    (again,) = planned("seed=1 fresh=true").runs
    assert again.folder.path == fresh.folder.path, "the same command continues its repetition"


def test_results_of_other_code_are_named() -> None:
    runs = planned(*(f"seed={seed}" for seed in range(1, 7))).runs
    for run in runs[:5]:
        finish(run.folder.path, hashes={"code": "0" * 64})
    finish(runs[5].folder.path, hashes=hash_code([]))
    (note,) = planned(*(f"seed={seed}" for seed in range(1, 8))).notes
    names = ", ".join(run.folder.name for run in runs[:3])
    assert note == f"the code has changed since {names} and 2 more were trained; fresh=true trains it again"
    (note,) = planned("seed=2", "seed=6").notes
    assert runs[1].folder.name in note and " was trained" in note
    assert planned("seed=6").notes == []


def test_a_text_that_has_changed_is_named() -> None:
    (old,) = planned("seed=1").runs
    before = finish(old.folder.path)
    Path("book.txt").write_text(make_text(seed=1))
    made = planned("seed=1", "seed=2")
    (note,) = made.notes
    assert note.startswith(f"the text has changed: {made.runs[0].folder.name} was planned beside")
    assert "another name=" in note
    assert made.runs[0].folder.path != old.folder.path and state(old.folder.path) == before
    assert planned("seed=1 name=other").notes == []


def test_a_run_that_another_process_holds_is_no_mistake() -> None:
    first, second = planned("seed=1", "seed=2").runs
    finish(first.folder.path, status="running", step=4)
    before = state(first.folder.path)
    with held(first.folder.path):
        made = planned("seed=1", "seed=2", "seed=3")
    assert [(run.status, run.step) for run in made.runs] == [("running", 4), ("planned", 0), ("planned", 0)]
    assert [run.folder.path for run in made.runs[:2]] == [first.folder.path, second.folder.path]
    assert state(first.folder.path) == before


def test_gpus_are_shared_out(with_gpus: Callable[..., None]) -> None:
    with_gpus("GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e")
    made = planned(*(f"trainer=gpu trainer.devices=2 seed={seed}" for seed in (1, 2, 3)))
    assert made.sharing is not None
    assert made.sharing.slots == (Slot(0, ("GPU-a", "GPU-b")), Slot(1, ("GPU-c", "GPU-d")))
    assert [run.devices for run in made.runs] == [2, 2, 2]


def test_more_devices_than_gpus_are_refused(with_gpus: Callable[..., None]) -> None:
    with_gpus("0", "1")
    (mistake,) = mistakes("trainer=gpu seed=1", "trainer=gpu trainer.devices=4 seed=1", "trainer=gpu seed=2")
    assert mistake == "trainer.devices=4 is more than the 2 GPU(s) of this machine"


def test_runs_on_cores_beside_runs_on_gpus_need_no_gpus(with_gpus: Callable[..., None]) -> None:
    with_gpus("0", "1")
    made = planned("trainer=gpu", "trainer.devices=4 trainer.accumulate_grad_batches=1 seed=2")
    assert made.sharing is not None
    assert made.sharing.slots == (Slot(0, ("0",)), Slot(1, ("1",)))


def test_what_computes_elsewhere_is_not_measured_by_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.sweeps.planning.cores", lambda: pytest.fail("this machine was asked"))
    made = planned(
        FREE + "trainer=gpu trainer.devices=2 trainer.num_nodes=2 trainer.accumulate_grad_batches=1", here=False
    )
    (run,) = made.runs
    assert made.sharing is None
    assert (run.devices, run.nodes) == (2, 2)
    assert "threads" not in read(run.folder.path).hardware


def test_a_persons_own_classes_are_listed_for_the_job(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "losses_of_mine.py").write_text(
        "from losslab.losses.square import Square\n\nclass Mine(Square):\n    pass\n"
    )
    monkeypatch.syspath_prepend(workplace)
    made = planned("loss=square loss._target_=losses_of_mine.Mine", "loss=square")
    assert [run.trust for run in made.runs] == [["losses_of_mine.Mine"], []]


def test_records_and_configurations_lie_in_each_folder_and_nothing_else() -> None:
    (run,) = planned("seed=1").runs
    assert {CONFIG, FILE} <= {path.name for path in run.folder.path.iterdir()} <= {CONFIG, FILE, LOCK}
