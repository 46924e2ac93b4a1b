"""Names of losses, the order in which they stand, and the folder of a comparison."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, read
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab.commands.answer import to_summary
from losslab.commands.compare import compare
from losslab.comparison.output.tables import answer_cells
from losslab.comparison.runs.naming import parse_labels, target_of
from losslab.errors import UserError

KNOWN = ["cross_entropy", "focal gamma=1", "focal gamma=2"]


@pytest.fixture
def gammas(sweep: Sweep) -> Sweep:
    for seed in (1, 2, 3):
        metrics = {"test/nll": 4.0 + seed / 10, "test/top1": 0.1 * seed}
        sweep.add("cross_entropy", seed, 3.0 + seed / 10, metrics=metrics)
        for gamma in (2.0, 10.0, 0.5):
            value = 3.5 - gamma / 100 + seed / 9
            sweep.add("focal", seed, value, changes={"loss.gamma": gamma}, metrics=metrics)
    return sweep


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["cross_entropy=CE"], {"cross_entropy": "CE"}),
        (["focal gamma=2=Focal (2)"], {"focal gamma=2": "Focal (2)"}),
        (
            ["cross_entropy=CE, smoothed,focal gamma=1=F = 1"],
            {"cross_entropy": "CE, smoothed", "focal gamma=1": "F = 1"},
        ),
        (["cross_entropy=A", "focal gamma=1=B"], {"cross_entropy": "A", "focal gamma=1": "B"}),
    ],
)
def test_labels_are_read_whatever_they_hold(texts: list[str], found: dict[str, str]) -> None:
    assert parse_labels(texts, KNOWN) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cross_entrpy=CE", "did you mean 'cross_entropy'"),
        ("CE", "write LOSS=NAME, such as cross_entropy=MINE"),
        ("cross_entropy=", "is given no name"),
        ("cross_entropy=focal gamma=1", "two losses would be called 'focal gamma=1'"),
    ],
)
def test_a_wrong_label_is_one_sentence(text: str, told: str) -> None:
    with pytest.raises(UserError, match="--labels") as caught:
        parse_labels([text], KNOWN)
    assert told in str(caught.value)


def test_a_label_stands_everywhere_in_place_of_the_loss(gammas: Sweep) -> None:
    c = comparison_of(gammas, labels=["focal gamma=2=FL", "cross_entropy=CE"], baseline="CE")
    summary = read(c)
    assert c.baseline == "CE" and "differences to CE" in summary and "| FL " in summary
    assert "focal gamma=2" not in summary and "| cross_entropy" not in summary
    assert "CE" in c.curves and "FL" in c.curves


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("value", ["cross_entropy", "focal gamma=10", "focal gamma=2", "focal gamma=0.5"]),
        ("name", ["cross_entropy", "focal gamma=0.5", "focal gamma=2", "focal gamma=10"]),
        ("focal gamma=2,FL", ["focal gamma=2", "FL", "cross_entropy", "focal gamma=0.5"]),
        ("focal gamma=10", ["FL", "cross_entropy", "focal gamma=0.5", "focal gamma=2"]),
    ],
)
def test_rows_stand_in_the_order_that_was_asked_for(order: str, rows: list[str], gammas: Sweep) -> None:
    labels = ["focal gamma=10=FL"] if "FL" in rows else []
    c = comparison_of(gammas, order=order, labels=labels)
    assert [row.label for row in c.rows] == rows
    assert order == "value" or [x.label for x in c.contenders] == rows


def test_an_order_of_an_unknown_loss_is_told(gammas: Sweep) -> None:
    with pytest.raises(UserError, match=r"'focal gama=2' here \(did you mean '.*'\?\); value and name are"):
        comparison_of(gammas, order="focal gama=2")


def test_several_metrics_make_one_table(gammas: Sweep) -> None:
    c = comparison_of(gammas, metric="test/nll_scaled", further=["test/top1"])
    header, *body = answer_cells(c)
    assert header[:5] == ["metric", "loss", "n", "mean", "std"]
    assert [line[0] for line in body] == ["test/nll_scaled"] * 4 + ["test/top1"] * 4
    assert [line[1] for line in body[:4]] == [row.label for row in c.rows]
    assert body[4][3] == "0.2000"
    summary = to_summary(c)
    assert "the smallest test/nll_scaled" in summary and "and the largest test/top1" in summary
    assert "test/top1: focal gamma=2" in summary
    with pytest.raises(UserError, match="no run has the metric 'test/nothing'"):
        comparison_of(gammas, further=["test/nothing"])


CHOICES: list[tuple[dict[str, Any], str]] = [
    ({}, "comparison"),
    ({"labels": ["cross_entropy=CE"], "order": "name"}, "comparison"),
    ({"baseline": "focal gamma=2"}, "comparison-baseline=focal-gamma=2"),
    ({"margin": 0.02}, "comparison-margin=0.02"),
    ({"tune": "none"}, "comparison-tune=none"),
    ({"mixed": True}, "comparison-mixed"),
    ({"metric": "test/top1"}, "comparison-test-top1"),
    ({"metric": ["test/nll_scaled", "test/top1"]}, "comparison-test-nll_scaled-test-top1"),
    ({"where": ["seed=2,3"]}, "comparison-seed=2,3"),
]


def test_every_choice_that_gives_other_numbers_has_a_folder_of_its_own(
    gammas: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    monkeypatch.setattr("losslab.commands.answer._write", lambda c, target: written.append(target.name))
    for choice, name in CHOICES:
        assert compare(gammas.folder, **choice) == 0
        assert written[-1] == name
        assert f"written: {gammas.folder / name}/report.html" in capsys.readouterr().out
    with pytest.raises(UserError, match="--margin is in the unit of one metric"):
        compare(gammas.folder, metric=["test/nll_scaled", "test/top1"], margin=0.1)


def test_a_long_choice_has_a_short_name_of_its_own(tmp_path: Path) -> None:
    first, second = (target_of(tmp_path, {"where": ["seed=" + "1," * 200 + last]}).name for last in "23")
    assert first != second and len(first.encode()) < 140


def events_below(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.rglob("events.out.tfevents.*")}


def test_tensorboard_shows_the_comparison_of_the_last_command_alone(gammas: Sweep) -> None:
    compare(gammas.folder)
    assert "comparison/losses/focal gamma=2" in events_below(gammas.folder)
    compare(gammas.folder, baseline="focal gamma=2")
    found = events_below(gammas.folder)
    assert found and all(name.startswith("comparison-baseline=focal-gamma=2") for name in found)
    assert (gammas.folder / "comparison" / "report.html").exists()


def test_a_comparison_of_many_losses_is_below_what_tensorboard_selects(sweep: Sweep) -> None:
    for gamma in range(50):
        sweep.add("focal", 1, 3.0 + gamma / 100, changes={"loss.gamma": gamma})
    sweep.add("cross_entropy", 1, 9.0)
    compare(sweep.folder)
    found = events_below(sweep.folder)
    assert len(found) < 40 and "comparison/losses/cross_entropy" in found and "comparison/losses/focal gamma=0" in found
    assert np.isfinite(EventAccumulator(str(sweep.folder / "comparison")).Reload().most_recent_step)
