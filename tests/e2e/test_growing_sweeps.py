"""A sweep that adds seeds until its losses are decided: trained, stopped by itself, and refused under another rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.commands.status import status
from losslab.errors import UserError
from losslab.records import read
from losslab.sequential.ledger import Ledger
from losslab.sequential.rule import FIRST_LOOK
from runs import find_runs

FOLDER = Path("outputs/t")
WORDS = ["-m", "name=t", "loss=cross_entropy,square", "seed=auto", "decide=0.01", "trainer.max_steps=2"]


def test_a_sweep_ends_by_itself_and_stays_what_it_is(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*WORDS, "max_seeds=9", "hydra.launcher.slots=2") == 0
    said = capsys.readouterr().out
    verdict = f"square: worse than cross_entropy after {FIRST_LOOK} seeds: "
    assert "square is compared with cross_entropy; seeds are added until" in said
    assert said.count(verdict) == 2, "when it falls, and at the end"
    ledger = Ledger.read(FOLDER)
    assert ledger is not None
    records = {label: {seed: read(FOLDER / name) for seed, name in own.items()} for label, own in ledger.runs.items()}
    assert {record.status for own in records.values() for record in own.values()} <= {"completed", "pruned"}
    for own in records.values():
        assert {seed for seed, record in own.items() if record.status == "completed"} >= {*range(1, FIRST_LOOK + 1)}
        assert max(own) <= FIRST_LOOK + 1, "one more may have started"
    kept = (FOLDER / "sequential.json").read_bytes()
    count = len(find_runs(FOLDER))
    done = sum(read(run).status == "completed" for run in find_runs(FOLDER))
    with pytest.raises(UserError, match="max_seeds=9, and this command says 12"):
        run_tiny(*WORDS, "max_seeds=12")
    capsys.readouterr()
    assert run_tiny(*WORDS, "max_seeds=9") == 0
    said = capsys.readouterr().out
    assert "started" not in said and f"{done} of them done" in said
    assert (FOLDER / "sequential.json").read_bytes() == kept and len(find_runs(FOLDER)) == count
    assert status(FOLDER, watch=False, as_json=False) == 0 and verdict in capsys.readouterr().out
    assert status(FOLDER, watch=False, as_json=True) == 0
    (found,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert (found["verdict"], found["seeds"], found["max_seeds"]) == ("worse", FIRST_LOOK, 9)
