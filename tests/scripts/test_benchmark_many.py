"""Many small runs as one batched model: each member is what it is by itself; crews of processes, and faults in them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmark
from benchmarks import many as benchmark_many
from benchmarks.many_runs.crews import Crew, at_work, in_child, multi_process_service
from benchmarks.many_runs.equality import alone, compare, together
from benchmarks.many_runs.members import Batched, Single, Work
from benchmarks.many_runs.variants import Way, ways
from benchmarks.tools.shape import Shape
from benchmarks.tools.turns import Turns

SMALL = Work(Shape(23, layers=2, heads=2, width=8, context=5, batch_size=3), "cpu", seeds=2, dtype=torch.float64)


def test_members_of_a_batch_are_the_single_runs() -> None:
    batch = together(SMALL, 6, dense=True)
    for loss in SMALL.losses:
        own = batch.member(SMALL.members.index((loss, 1)))
        assert own.distance(alone(SMALL, loss, 6, dense=True)) < 1e-13


def test_our_heads_train_a_batch_as_dense_ones_do() -> None:
    single = replace(SMALL, dtype=torch.float32)
    ours, dense = (together(single, 6, dense=dense) for dense in (False, True))
    assert ours.distance(dense) < 1e-5


def test_a_member_does_not_depend_on_the_others() -> None:
    """Large gradients of one member would shrink those of all, were they clipped together."""
    batch = Batched(SMALL, [("cross_entropy", 1), ("cross_entropy", 2)], dense=True)
    run = Single(SMALL, "cross_entropy", 1, dense=True)
    with torch.no_grad():
        batch.stacked["embedding.weight"][1] *= 1000
    for i in range(3):
        batch.step(*batch.batches[i])
        run.step(*run.batches[i])
    for name, weight in run.parameters().items():
        assert torch.allclose(batch.parameters(0)[name], weight, rtol=1e-12, atol=1e-14), name


def test_gradients_of_a_member_are_clipped_to_the_largest_norm() -> None:
    batch = Batched(SMALL, [("cross_entropy", 1), ("brier", 2)], dense=True)
    with torch.no_grad():
        batch.stacked["embedding.weight"][0] *= 30
    batch.step(*batch.batches[0])
    gradients = [stacked.grad for stacked in batch.stacked.values()]
    norms = torch.stack([each.flatten(1).norm(dim=1) for each in gradients if each is not None]).norm(dim=0)
    assert norms.max() == pytest.approx(1.0, abs=1e-5) and norms.min() < 0.99


def test_weights_decay_but_for_norms_and_embeddings() -> None:
    batch, run = Batched(SMALL, SMALL.members, dense=True), Single(SMALL, "focal", 1, dense=True)
    names = {id(stacked): name for name, stacked in batch.stacked.items()} | {
        id(own): name for name, own in run.parameters().items()
    }
    of_batch, of_run = (
        [{names[id(p)] for p in group["params"]} for group in each.optimizer.param_groups] for each in (batch, run)
    )
    assert of_batch == of_run
    assert "layers.0.mlp.output.weight" in of_run[0] and {"embedding.weight", "last_norm.weight"} <= of_run[1]


def test_equality_is_found_and_its_lack_too() -> None:
    found = compare(replace(SMALL, losses=("poly1",), dtype=torch.float32), 2)
    assert set(found) == {"poly1, our head", "poly1, dense"}
    assert all(row["batch again"] is True and row["single again"] is True for row in found.values())
    one, two = together(SMALL, 2, dense=True), together(replace(SMALL, seeds=1), 2, dense=True)
    assert not one.member(0).is_equal(one.member(1)) and one.member(0).distance(one.member(1)) > 0.01
    assert one.member(0).distance(two.member(0)) < 1e-13


def _counting(place: int, turns: Turns) -> None:
    if place == 2:
        raise ValueError("no such place")
    for _ in turns:
        time.sleep(0.01)


def test_a_crew_works_in_turns_and_says_what_failed() -> None:
    good, bad = Crew(_counting, 2, 1, {}), Crew(_counting, 3, 1, {})
    with at_work([good, bad], 30):
        assert good.missing == "" and bad.missing == "ValueError: no such place"
        both, one = good.work(0.1, 2, 1, 10), good.work(0.1, 1, 2, 10)
        assert 2 <= both.steps <= 22 and 0.1 <= both.wall < 5, "side by side"
        assert 2 <= one.steps <= 12 and 0.1 <= one.wall < 5, "one behind the other"


def test_a_process_of_its_own_answers_fails_or_dies() -> None:
    assert in_child(os.getpid, 30) != os.getpid()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_child(lambda: 1 / 0, 30)
    with pytest.raises(RuntimeError, match="its process ended with code 7"):
        in_child(lambda: os._exit(7), 30)


def test_without_the_service_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with multi_process_service(tmp_path) as service:
        assert service.missing == "there is no nvidia-cuda-mps-control"
        assert service.environment == {} and service.clients() == 0


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
def test_without_a_gpu_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["many", "--device", "gpu"]) == 2
    assert "--device gpu: torch finds no GPU here; --device cpu computes" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_row_has_its_crew(device: str) -> None:
    works = [Work(SMALL.shape, device, seeds=seeds) for seeds in (1, 3)]
    rows, kinds = ways(works, 2, [2, 4])
    assert {row.crew for row in rows} == kinds.keys() and len({row.name for row in rows}) == len(rows)
    assert rows[0].name == ("slots=4" if device == "cpu" else "one after another"), "what losslab does by itself"
    assert {row.at_once for row in rows if "batch" in row.name} == {5, 15}
    assert all(row.processes * row.windows <= kinds[row.crew].size for row in rows)
    assert [row.windows for row in rows if row.crew == "slots"] == ([1, 3, 5] if device == "cpu" else [5, 3, 1])
    assert {row.processes for row in rows if kinds[row.crew].mps} == ({2, 4} if device == "cuda" else set())


def test_a_part_that_fails_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no answer within 60 s")

    monkeypatch.setattr(benchmark_many, "_equality", fail)
    monkeypatch.setattr(benchmark_many, "_sweeps", lambda *_: {"runs": 4})
    file = tmp_path / "figures.json"
    assert benchmark.main(["many", "--only", "equality,sweeps", "--json", str(file)]) == 1
    assert "equality failed: no answer within 60 s" in capsys.readouterr().err
    assert set(json.loads(file.read_text())) == {"many sweeps, cpu"}


def test_rows_that_were_not_measured_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Way("one", "a"), Way("two", "b"), Way("three", "c")]
    speeds = {"one": [2.0, 4.0], "two": [6.0, 4.0], "three": list[float]()}
    benchmark_many._print_steps(rows, speeds, {name: [0.5, 0.5] for name in speeds}, {"c": "OSError: no"})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["two", "5.0", "2.00", "[1.00,", "3.00]", "500.00"]
    assert lines[3] == ["three", "not", "here:", "OSError:", "no"]
