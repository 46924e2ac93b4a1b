"""Variants in turns: those that are missing, fail or vanish leave a row, and the others go on."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import benchmark
from benchmarks import step
from benchmarks.tools import plain as by_hand
from benchmarks.tools import turns as benchmark_turns
from benchmarks.tools.shape import ADAMW, CLIP, Shape
from benchmarks.tools.turns import Measured, NotHere, Turns, Variant, take_turns


def works(shared: Path, turns: Turns) -> None:
    """Counts its steps in a file, and leaves another one where it ends by itself."""
    with tempfile.TemporaryDirectory(dir=shared):
        for count, _ in enumerate(turns, 1):
            (shared / "steps").write_text(str(count))
    (shared / "ended").touch()


def is_missing(shared: Path, turns: Turns) -> None:
    raise NotHere("nobody installed it")


def fails_at_once(shared: Path, turns: Turns) -> None:
    raise TypeError("no kernel\nfor this card")


def fails_later(shared: Path, turns: Turns) -> None:
    for count, _ in enumerate(turns):
        if count == 5:
            raise MemoryError("out of it")


def vanishes(shared: Path, turns: Turns) -> None:
    next(turns)
    os._exit(9)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that need not import torch."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(benchmark_turns, "multiprocessing", SimpleNamespace(get_context=lambda _: fork))


@pytest.mark.parametrize("abreast", [(), ("ours", "late")])
def test_a_peer_that_fails_does_not_end_the_others(forked: None, tmp_path: Path, abreast: tuple[str, ...]) -> None:
    variants: dict[str, Variant] = {
        "ours": works,
        "missing": is_missing,
        "broken": fails_at_once,
        "late": fails_later,
        "gone": vanishes,
    }
    found = take_turns(variants, tmp_path, threads=1, rounds=2, steps=3, abreast=abreast)
    assert list(found) == list(variants)
    ours = found.pop("ours")
    assert ours.usable
    assert len(ours.wall) == len(ours.cpu) == 2
    assert ours.mib > 0
    assert (tmp_path / "steps").read_text() == "10"  # 3 to warm up, one for the memory, two rounds of 3
    assert not any(measured.usable for measured in found.values())
    assert found["missing"].missing == "nobody installed it"
    assert found["broken"].failure == "for this card"
    assert "TypeError: no kernel" in found["broken"].failed
    assert found["late"].failure == "MemoryError: out of it"
    assert found["gone"].failure == "its process ended with code 9"


def test_a_card_is_waited_for_and_given_back(forked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more step of each turn takes the memory again, and does not count."""
    calls = tmp_path / "calls"
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.open("a").write(f"{name} "))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**21)
    found = take_turns({"ours": works}, tmp_path, threads=1, rounds=2, steps=3, device="cuda")
    assert found["ours"].mib == 2
    assert (tmp_path / "steps").read_text() == "14"
    turn, first = ["synchronize", "synchronize", "empty_cache"], ["reset_peak_memory_stats"]
    assert calls.read_text().split() == [*turn, turn[0], *first, *turn[1:], *turn, *turn]


def test_variants_end_by_themselves(forked: None, tmp_path: Path) -> None:
    """Killed processes leave temporary folders and semaphores behind."""
    take_turns({"ours": works}, tmp_path, threads=1, rounds=1, steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {"steps", "ended"}


def test_a_variant_that_hangs_is_ended(forked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_turns, "LONGEST", {"cpu": 0.2})
    found = take_turns({"slow": lambda *_: multiprocessing.Event().wait()}, tmp_path, threads=1, rounds=1, steps=1)
    assert found["slow"].failure == "took more than 0.2 s for 3 steps"


def measured(seconds: float, mib: float) -> Measured:
    return Measured([seconds, 2 * seconds], [seconds, seconds], mib)


def test_a_table_has_a_row_for_whoever_is_missing_or_failed(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "losslab": measured(0.1, 1000),
        "peer": measured(0.2, 2500),
        "absent": Measured(missing="it is not installed"),
        "broken": Measured(failed="Traceback\n  File\nRuntimeError: " + "long " * 100),
    }
    result = step.table(found, 1500, cpu=False)
    lines = capsys.readouterr().out.splitlines()
    assert "CPU" not in lines[0]
    assert re.fullmatch(r"losslab +150\.0 +10,000 +1\.00 \[1\.00, 1\.00\] +1,000 +1\.00", lines[1])
    assert re.fullmatch(r"peer +300\.0 +5,000 +2\.00 \[2\.00, 2\.00\] +2,500 +2\.50", lines[2])
    assert lines[3] == "absent   not here: it is not installed"
    assert lines[4].startswith("broken   RuntimeError: long long")
    assert len(lines) == 5
    assert max(map(len, lines)) < 180
    assert result["peer"]["losslab_is"] == (2.0, 2.0, 2.0)
    assert result["absent"] == {"missing": "it is not installed"}
    assert result["broken"]["failed"].startswith("Traceback")


def test_a_table_without_ours_has_no_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    result = step.table({"losslab": Measured(failed="KeyError: 'x'"), "peer": measured(0.2, 2500)}, 1500, cpu=True)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "losslab  KeyError: 'x'",
        f"peer   {300.0:>8}     5,000",
    ]
    assert "losslab_is" not in result["peer"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused where there is no card")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["step", "--device", "gpu"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("scripts/benchmark step: --device gpu needs a CUDA card")
    assert len(told.err.splitlines()) == 1


def test_peers_run_the_same_command_in_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    codes = iter([3, 0])

    def make(words: list[str], **_: object) -> SimpleNamespace:
        calls.append(words)
        return SimpleNamespace(returncode=next(codes))

    monkeypatch.setattr(step.subprocess, "run", make)
    monkeypatch.setattr(step.os, "execv", lambda python, words: calls.append([python, *words]))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "step", "--peers", "--rounds", "1"])
    assert benchmark.main(sys.argv[1:]) == 3
    assert len(calls) == 1  # and no step, where the environment could not be made
    benchmark.main(sys.argv[1:])
    python = str(step.ROOT / ".venv-peers/bin/python")
    assert calls[-1] == [python, python, *sys.argv]


def test_peers_have_a_pin_of_their_own_only_where_it_differs() -> None:
    pins, ours = (
        dict(line.lower().split("==") for line in (step.ROOT / name).read_text().splitlines() if "==" in line)
        for name in ("scripts/peers.txt", "constraints.txt")
    )
    assert {"litgpt", "liger-kernel", "cut-cross-entropy"} <= pins.keys()
    assert not pins.items() & ours.items()


@pytest.mark.parametrize("make", [by_hand.plain, by_hand.chunked])
def test_a_step_by_hand_trains_in_bf16(make: Callable[[Shape, Turns], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where autocast has bf16, too."""
    losses = []
    forward = by_hand.Model.forward

    def noted(*arguments: object) -> torch.Tensor:
        loss = forward(*arguments)  # type: ignore[arg-type]
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(by_hand.Model, "forward", noted)
    make(Shape(64, 1, 2, 16, 32, 16, bf16=True), iter([None] * 9))
    assert len(losses) == 9
    assert losses[-1] < losses[0]


def test_a_loop_by_hand_has_our_settings_and_not_our_imports() -> None:
    """Else what is resident of its process would be more than its own."""
    config = Shape(64).config()
    given = config["optimizer"]
    assert {key: tuple(given[key]) if key == "betas" else given[key] for key in ADAMW} == ADAMW
    assert config["trainer"]["gradient_clip_val"] == CLIP
    code = (
        "import sys; from benchmarks.tools import plain as by_hand; from benchmarks.tools.shape import Shape\n"
        "by_hand.plain(Shape(64, 1, 1, 8, 8, 1), iter([None]))\n"
        "print(*sorted({'torch', 'lightning', 'hydra', 'omegaconf', 'transformers'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=step.ROOT / "scripts", capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("torch\n", "")


def test_a_gpu_has_gpt_2_small_and_a_batch_that_fits() -> None:
    small, large = Shape.on_gpu(50304), Shape.on_gpu(128256)
    assert (small.layers, small.heads, small.width, small.context) == (12, 12, 768, 1024)
    assert (small.positions, large.positions) == (16384, 8192)
    asked = replace(large, batch_size=2).config()
    assert asked["trainer"]["accelerator"] == "gpu"
    assert asked["trainer"]["precision"] == "bf16-mixed"
