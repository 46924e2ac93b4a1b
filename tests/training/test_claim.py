"""Where a run belongs: what a finder remembers of one run is never another's, and a claim keeps what is there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain, group_choices
from losslab.errors import Held, UserError
from losslab.locks import lock
from losslab.records import CONFIG, FILE, read, read_config
from losslab.training.output.provenance import hash_code
from losslab.training.process.claim import Finder, Place
from runs import TINY, make_text

OWN = "from losslab.losses.square import Square\n\nclass Mine(Square):\n    pass\n"
pytestmark = pytest.mark.usefixtures("workplace")


@functools.cache
def composed(typed: tuple[str, ...]) -> dict[str, Any]:
    overrides = [*TINY, *typed]
    config, choices = compose_job(overrides)
    defaults = compose_plain(group_choices(overrides))
    return {"config": check_run(config), "defaults": defaults, "choices": choices, "overrides": overrides}


def find(finder: Finder, *typed: str) -> Place:
    arguments = composed(typed)
    return finder.find(arguments["config"], **{key: value for key, value in arguments.items() if key != "config"})


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (folder / FILE, folder / CONFIG)
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def change(folder: Path, **changes: Any) -> None:
    record = read(folder)
    for key, value in changes.items():
        setattr(record, key, value)
    record.write(folder)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """A function that lists, from now on, the calls of one that claim.py uses."""

    def watch(name: str) -> list[Any]:
        calls: list[Any] = []
        real = getattr(__import__("losslab.training.process.claim", fromlist=[name]), name)

        def counted(*arguments: Any) -> Any:
            calls.append(arguments)
            return real(*arguments)

        monkeypatch.setattr(f"losslab.training.process.claim.{name}", counted)
        return calls

    return watch


@pytest.mark.parametrize(
    "typed",
    [
        ("data.path=other.txt",),
        ("data.context=16", "model.context=16"),
        ("data.tokenizer=bpe", "data.vocab_size=300"),
        ("model.width=32",),
        ("loss=square",),
        ("trainer.max_steps=4",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("remembered_first", [True, False])
def test_one_finder_finds_what_two_would(typed: tuple[str, ...], remembered_first: bool) -> None:
    Path("other.txt").write_text(make_text(seed=1))
    shared = Finder()
    order = [(), typed] if remembered_first else [typed, ()]
    shared_places = [find(shared, *each) for each in [*order, *order]]
    alone = [find(Finder(), *each) for each in order]
    assert shared_places == [*alone, *alone]
    assert alone[0].identity != alone[1].identity
    assert (alone[0].data_hash != alone[1].data_hash) == ("other.txt" in typed[0])


def test_a_text_is_read_once_for_all_runs_on_it(count: Callable[[str], list[Any]]) -> None:
    Path("other.txt").write_text(make_text(seed=1))
    built, checked = count("hash_inputs"), count("check_components")
    finder = Finder()
    for seed in range(4):
        find(finder, f"seed={seed}")
        find(finder, f"seed={seed}", "name=other")
    assert (len(built), len(checked)) == (1, 1)
    find(finder, "data.path=other.txt")
    assert (len(built), len(checked)) == (2, 2)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("model.num_heads=3", "num_heads"),
        ("loss.label_smoothing=2", "label_smoothing"),
        ("data.path=missing.txt", "missing.txt"),
        ("trainer.strategy=invented", "invented"),
        ("trainer.devices=100000 data.batch_size=100000", "trainer.devices=100000"),
    ],
)
def test_what_is_wrong_is_seen_after_something_right(typed: str, told: str) -> None:
    finder = Finder()
    right = find(finder, "seed=1")
    for _ in range(2):
        with pytest.raises(UserError, match=told):
            find(finder, *typed.split(), "seed=1")
    assert find(finder, "seed=1") == right


def test_a_machine_that_will_not_compute_is_not_asked_for_devices(count: Callable[[str], list[Any]]) -> None:
    asked = count("check_devices")
    typed = ("trainer.devices=100000", "data.batch_size=100000")
    assert find(Finder(here=False), *typed).config["trainer"]["devices"] == 100000
    assert asked == []


def test_changed_code_is_told_for_each_persons_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine_a", "mine_b"):
        (tmp_path / f"{name}.py").write_text(OWN + f"\n{name} = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    typed = [("loss=square", f"loss._target_={name}.Mine") for name in ("mine_a", "mine_b")]
    finder = Finder()
    for each in [(), *typed]:
        place = find(finder, *each)
        finder.claim(place, "running")
        foreign = [] if not each else [each[1].partition("=")[2]]
        change(place.folder.path, status="completed", hashes=hash_code(foreign))
        assert not finder.has_other_code(find(finder, *each))
    assert [finder.has_other_code(find(finder, *each)) for each in typed] == [False, False]
    place = find(finder, *typed[0])
    change(place.folder.path, hashes=hash_code(["mine_b.Mine"]))
    assert [finder.has_other_code(find(finder, *each)) for each in typed] == [True, False]


def test_each_record_names_its_own_folder_and_choices() -> None:
    finder = Finder()
    places = [find(finder, *typed) for typed in (("seed=1",), ("loss=square",), ("seed=1", "name=other"))]
    records = [finder.claim(place, "planned") for place in places]
    assert [record.provenance["folder"] for record in records] == [str(p.folder.absolute()) for p in places]
    assert [record.provenance["choices"]["loss"] for record in records] == ["cross_entropy", "square", "cross_entropy"]
    assert [record.name for record in records] == ["runs", "runs", "other"]
    assert [read(place.folder.path) for place in places] == records


@pytest.mark.parametrize("status", ["completed", "diverged"])
def test_a_result_that_another_process_had_first_stays(status: str) -> None:
    finder = Finder()
    place = find(finder)
    other = find(Finder())
    Finder().claim(other, "running")
    change(other.folder.path, status=status, hardware={"threads": 5})
    before = state(place.folder.path)
    record = finder.claim(place, "running", threads=2)
    assert (record.status, record.hardware) == (status, {"threads": 5})
    assert state(place.folder.path) == before


def test_a_run_keeps_its_first_number_of_threads() -> None:
    finder = Finder()
    for threads, expected in [(None, {}), (3, {"threads": 3}), (1, {"threads": 3}), (None, {"threads": 3})]:
        record = finder.claim(find(finder), "planned", threads)
        assert record.hardware == read(find(finder).folder.path).hardware == expected


@pytest.mark.parametrize(
    ("wanted", "before", "after"),
    [
        (None, None, "planned"),
        ("running", None, "running"),
        (None, "failed", "planned"),
        (None, "interrupted", "interrupted"),
        ("running", "interrupted", "running"),
    ],
)
def test_a_claim_takes_over_what_an_unfinished_run_has(wanted: str | None, before: str | None, after: str) -> None:
    finder = Finder()
    place = find(finder, "seed=1")
    kept: dict[str, Any] = {}
    if before is not None:
        finder.claim(place, None)
        kept = {"step": 4, "metrics": {"best": {"val/nll": 2.0}}, "timing": {"seconds": 3.0}}
        provenance = read(place.folder.path).provenance | {"changes": [{"step": 2}]}
        change(place.folder.path, status=before, **kept, provenance=provenance)
        kept["timing"] = read(place.folder.path).timing
    again = find(finder, "seed=1", "trainer.log_every_n_steps=4")
    record = finder.claim(again, wanted)
    assert record.status == read(place.folder.path).status == after
    for key in ("step", "metrics"):
        assert getattr(record, key) == kept.get(key, getattr(record, key))
    if before is not None:
        assert record.timing["seconds"] == 3.0
        assert record.provenance["changes"] == [{"step": 2}]
        assert record.overrides == place.overrides, "as it was first typed"
    assert read_config(place.folder.path)["trainer"]["log_every_n_steps"] == 4


def test_a_run_that_is_held_cannot_be_claimed() -> None:
    finder = Finder()
    place = find(finder)
    finder.claim(place, None)
    before = state(place.folder.path)
    with lock(place.folder.path), pytest.raises(Held, match="already running in another process"):
        Finder().claim(place, "running")
    assert state(place.folder.path) == before


def test_an_unfinished_run_keeps_its_split_of_the_batch(capsys: pytest.CaptureFixture[str]) -> None:
    finder = Finder()
    place = find(finder, "trainer.micro_batch_size=2")
    finder.claim(place, None)
    capsys.readouterr()
    kept = find(finder, "seed=1")
    assert kept.folder.path == place.folder.path
    assert kept.config["trainer"]["micro_batch_size"] == 2
    assert "stored split" in capsys.readouterr().out
    named = find(finder, "trainer.micro_batch_size=1")
    assert (named.config["trainer"]["micro_batch_size"], named.config["trainer"]["accumulate_grad_batches"]) == (1, 4)


def test_input_paths_are_kept_as_seen_from_anywhere() -> None:
    place = find(Finder())
    assert place.config["data"]["path"] == str(Path("book.txt").absolute())
    assert place.config["data"]["tokenizer"] == "bytes"
