"""`losslab bench`: each loss beside its own dense evaluation, at the shape of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from losslab.conformance.bench import bench, table
from losslab.conformance.measure import DENSE, FLOOR, Measurement, Variant
from losslab.errors import UserError
from runs import losslab

SHAPE = ["data.vocab_size=512", "model.width=16", "model.num_heads=2", "model.context=32", "data.batch_size=2"]


def test_every_loss_has_a_row_with_its_cost(tmp_path: Path) -> None:
    """As a command: a process has one fork server, and that of this one is for the sweeps' tests."""
    process = losslab("bench", "loss=cross_entropy,focal", *SHAPE, "trainer.threads=1", "--rounds", "1", cwd=tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    lines = output.splitlines()
    assert lines[0].startswith("64 positions, width 16, 512 outputs, 32-true, 1 threads")
    rows = {line[:30].strip(): line[30:].split() for line in lines[2:]}
    assert set(rows) - {""} >= {FLOOR, "cross_entropy", "focal"}
    for name in ("cross_entropy", "focal"):
        assert all(float(cell) > 0 for cell in rows[name][1:3])  # of dense, of its own
    assert rows[FLOOR][2] == "–"


def test_the_table_gives_ratios_round_by_round() -> None:
    """A slow round slows both sides of a ratio, and so changes no median of ratios."""
    own, dense = Variant("focal", {}), Variant("focal", {}, dense=True)
    found = {
        Variant(FLOOR): [Measurement(1.0, 1.0)] * 3,
        Variant(DENSE): [Measurement(2.0, 80.0), Measurement(20.0, 80.0), Measurement(2.0, 80.0)],
        own: [Measurement(1.0, 8.0), Measurement(10.0, 8.0), Measurement(1.0, 8.0)],
        dense: [Measurement(4.0, 160.0), Measurement(40.0, 160.0), Measurement(4.0, 160.0)],
    }
    row = table([Variant(FLOOR), Variant(DENSE), own, dense], found)[-1].split()
    assert row == ["focal", "1.000", "0.50", "0.25", "8", "0.10", "0.05"]


@pytest.mark.parametrize(
    ("overrides", "rounds", "named"),
    [
        (["loss=focl"], 1, "focal"),
        (["loss=focal", "loss.gamma=-1"], 1, "gamma"),
        (["loss=focal", "loss.gama=1"], 1, "gamma"),
        (["loss=focal"], 0, "--rounds"),
        (["loss=focal,mse"], 1, "MSE is for values, not for one class of a vocabulary"),
        (["loss=focal", "data.vocab_size=0"], 1, "vocab_size"),
    ],
)
def test_wrong_use_is_answered_in_a_sentence(
    overrides: list[str], rounds: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named):
        bench(overrides, rounds=rounds)
