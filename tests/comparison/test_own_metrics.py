"""Runs of a task of somebody's own: its metrics are shown and compared as its records declare them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import Sweep, comparison_of, edit_record, page_text, printed, read
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab.commands.compare import compare
from losslab.comparison.output.figure_list import pictures
from losslab.comparison.output.prose import caption, question
from losslab.comparison.output.protocol import protocol
from losslab.comparison.output.tables import to_latex
from losslab.errors import UserError
from losslab.metric import Metric

RMSE = Metric("rmse", "root mean squared error", "cm", False, 0.1, frozenset({"terminal"}))
SKILL = Metric("skill_loss", "skill over the climatology", "%", True, 2.0)
"""The name alone says that smaller is better."""
BIAS = Metric("bias", "mean error", "cm", None)
LOSSES = {"cross_entropy": 0.0, "mse": -1.0, "huber": 0.01}


def heights(folder: Path, primary: Metric, *, sign: float = 1.0) -> Sweep:
    """Six seeds of three losses, two of which differ from the baseline by a centimetre less and by next to nothing."""
    sweep = Sweep(folder, [RMSE, SKILL, BIAS], primary.name)
    for seed in range(1, 7):
        for loss, shift in LOSSES.items():
            gain = sign * shift * (1 + 0.01 * (seed % 3))
            value, other = 20 + seed / 10 + gain, (SKILL if primary is RMSE else RMSE).name
            metrics = {"test/bias": 0.5, f"test/{other}": 40 + seed - 5 * gain}
            sweep.add(loss, seed, value, val=value, metrics=metrics, curve={50: value + 1, 100: value})
    return sweep


def test_an_own_metric_is_compared_by_its_own_side_unit_and_margin(tmp_path: Path) -> None:
    c = comparison_of(heights(tmp_path / "heights", RMSE))
    assert (c.metric, c.margin, c.selection) == ("test/rmse", 0.1, "val/rmse")
    verdicts = {row.label: row.verdict.text for row in c.rows}
    assert verdicts["mse"] == "better" and verdicts["huber"] == "worse, but equivalent (within ±0.1)"
    assert [row.label for row in c.rows] == ["mse", "cross_entropy", "huber"], "the smallest comes first"
    assert list(c.also) == ["test/skill_loss"], "of a bias neither side is better"
    assert {row.label: row.verdict.word for row in c.also["test/skill_loss"]}["mse"] == "better"
    assert c.margin_of("test/skill_loss") == 2.0


def test_it_is_shown_with_its_label_unit_and_side(tmp_path: Path) -> None:
    c = comparison_of(heights(tmp_path / "heights", RMSE))
    asked = "Which final loss gives the smallest test/rmse (root mean squared error, cm)?"
    assert question(c) == asked
    summary = read(c)
    assert asked in summary and asked in page_text(c)
    for told in ("mse is better than cross_entropy: -1.0100 cm [", "(smallest val/rmse)", "inside ±0.1"):
        assert told in summary and told in page_text(c)
    assert "rmse\n" not in printed(c) and "rmse" in printed(c)
    latex = to_latex(c, caption(c))
    assert "& test/rmse & std" in latex and "smallest val/rmse" in latex
    everything = " ".join([summary, page_text(c), *protocol(c), latex])
    assert "nats" not in everything and "nll" not in everything


def test_the_largest_is_the_best_where_the_record_says_so(tmp_path: Path) -> None:
    c = comparison_of(heights(tmp_path / "heights", SKILL, sign=-1.0))
    assert [row.label for row in c.rows] == ["mse", "cross_entropy", "huber"]
    assert {row.label: row.verdict.word for row in c.rows}["mse"] == "better"
    assert question(c) == "Which final loss gives the largest test/skill_loss (skill over the climatology, %)?"
    assert "The checkpoint with the largest val/skill_loss counts" in " ".join(protocol(c))
    assert comparison_of(heights(tmp_path / "pairs", SKILL, sign=-1.0), all_pairs=True).pairs[0].first == "mse"


def test_settings_are_chosen_by_the_side_of_the_record(tmp_path: Path) -> None:
    for primary, best in ((RMSE, "lr=0.01"), (SKILL, "lr=0.1")):
        sweep = Sweep(tmp_path / primary.name, [RMSE, SKILL], primary.name)
        for loss in ("cross_entropy", "mse"):
            sweep.add_grid(loss, {0.01: 20.0, 0.1: 30.0, 0.001: 25.0})
        c = comparison_of(sweep)
        assert {row.label: row.setting for row in c.rows} == {"cross_entropy": best, "mse": best}
        largest = primary is SKILL
        assert [item.mean[-1] for item in c.expected] == pytest.approx([30.015 if largest else 20.015] * 2)
        assert f"its best lr of 0.001, 0.01, 0.1 by the mean of val/{primary.name} over seeds" in read(c)


def test_figures_have_its_unit_and_its_words(tmp_path: Path) -> None:
    found = {picture.file: picture for picture in pictures(comparison_of(heights(tmp_path / "heights", RMSE)))}
    assert list(found) == ["differences-test-rmse", "curves"]
    assert "in test/rmse (root mean squared error)?" in found["differences-test-rmse"].caption
    assert "val/rmse, root mean squared error." in found["curves"].caption
    figure = found["differences-test-rmse"].draw()
    texts = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    assert "test/rmse, cm" in " ".join(texts.split()) and "← better" in texts
    assert "val/rmse, cm" in found["curves"].draw().axes[0].get_ylabel()


def test_tensorboard_charts_it_and_the_folder_is_that_of_no_choice(tmp_path: Path, capsys) -> None:
    sweep = heights(tmp_path / "heights", RMSE)
    assert compare(sweep.folder, baseline="cross_entropy") == 0
    assert compare(sweep.folder, baseline="cross_entropy", metric="test/rmse") == 0
    assert [path.name for path in sweep.folder.glob("comparison*")] == ["comparison"]
    events = EventAccumulator(str(sweep.folder / "comparison" / "losses" / "mse")).Reload()
    assert [event.value for event in events.Scalars("val/rmse/mean")] == pytest.approx([20.34, 19.34], abs=1e-3)
    assert "root mean squared error, cm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            RMSE._replace(unit="mm"),
            "about the unit of rmse: cm (2 runs), mm (1, such as mse-seed1-0000000003)",
        ),
        (RMSE._replace(label="error"), "about the label of rmse: root mean squared error (2 runs), error (1, "),
        (RMSE._replace(higher_is_better=True), "the side of rmse: smaller is better (2 runs), larger is better (1, "),
    ],
)
def test_records_that_disagree_about_a_metric_are_refused(changed: Metric, reason: str, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "heights", [RMSE], "rmse")
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 20.0 + seed)
    sweep.add("mse", 1, 20.0, declared=[changed])
    with pytest.raises(UserError) as caught:
        compare(sweep.folder)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    sweep.add("mse", 2, status="failed", declared=[RMSE])
    assert comparison_of(sweep, where=("loss=cross_entropy",)).metric == "test/rmse"


def test_runs_that_chose_by_different_metrics_are_refused(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "mixed", [RMSE, SKILL], "rmse")
    sweep.add("cross_entropy", 1, 20.0)
    sweep.primary = "skill_loss"
    sweep.add("mse", 1, 20.0)
    with pytest.raises(UserError, match=r"disagree about their primary metric: rmse.*skill_loss"):
        comparison_of(sweep)


def test_of_unequal_margins_the_smallest_counts(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "heights", [RMSE], "rmse")
    sweep.add("cross_entropy", 1, 20.0)
    sweep.add("mse", 1, 20.0, declared=[RMSE._replace(margin=0.05)])
    sweep.add("huber", 1, 20.0, declared=[RMSE._replace(margin=None)])
    assert comparison_of(sweep).margin == 0.05


def test_a_metric_that_no_record_declares_is_judged_by_its_name(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "heights", [RMSE], "rmse")
    for loss in ("cross_entropy", "mse"):
        sweep.add(loss, 1, 20.0, metrics={"test/accuracy": 0.5, "test/glue": 1.0})
    assert list(comparison_of(sweep).also) == ["test/accuracy"]
    with pytest.raises(UserError, match="is more of 'test/glue' better, or less"):
        comparison_of(sweep, metric="test/glue")
    with pytest.raises(UserError, match="no run has the metric 'test/nll_scaled'"):
        comparison_of(sweep, metric="test/nll_scaled")


def test_runs_that_have_not_begun_declare_nothing_and_disturb_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "heights", [RMSE], "rmse")
    sweep.add("cross_entropy", 1, 20.0)
    planned = sweep.add("mse", 1, status="planned")
    edit_record(planned, metrics_info={}, primary="")
    assert comparison_of(sweep).metric == "test/rmse"
