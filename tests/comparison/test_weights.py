"""`losslab compare --weights last`: runs compared at their last step, instead of at their best checkpoint."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_runs import Sweep, page_text, read, write_scores

import losslab
from losslab.commands.compare import compare
from losslab.comparison import Comparison, analyse, load_runs
from losslab.comparison.output.figure_list import pictures
from losslab.comparison.runs.weights import with_weights
from losslab.errors import UserError

SEEDS = (1, 2, 3)
LEFT_OUT = "two noises, calibration, results by class and residuals are left out"


def at_last(source: Sweep | Path, **options: str | float | bool) -> Comparison:
    path = source.folder if isinstance(source, Sweep) else source
    return analyse(with_weights(load_runs(path), "last"), **options)


@pytest.fixture
def memorised(sweep: Sweep) -> Sweep:
    """Cross-entropy is better at the best checkpoint, square at the last step."""
    for seed in SEEDS:
        noise = seed / 100
        for loss, best, last in (("cross_entropy", 3.0, 5.0), ("square", 3.2, 4.0)):
            final = {
                "test/nll_scaled": last + seed + noise * (loss == "square"),
                "test/top1": 0.1,
                "val/nll_scaled": last,
            }
            folder = sweep.add(loss, seed, best + seed, val=best, metrics={"test/top1": 0.2}, final=final)
            write_scores(folder, np.ones((4, 6)))
    return sweep


def test_every_number_is_of_the_last_step(memorised: Sweep) -> None:
    c = at_last(memorised)
    rows = {row.label: row for row in c.rows}
    assert rows["cross_entropy"].values == pytest.approx({1: 6.0, 2: 7.0, 3: 8.0})
    assert rows["square"].differences == pytest.approx({1: -0.99, 2: -0.98, 3: -0.97})
    assert rows["square"].verdict.word == "better"
    assert [row.mean for row in c.also["test/top1"]] == pytest.approx([0.1, 0.1])
    best = {row.label: row for row in analyse(load_runs(memorised.folder)).rows}
    assert best["square"].differences == pytest.approx({1: 0.2, 2: 0.2, 3: 0.2}), "as it was"


def test_words_say_the_last_step(memorised: Sweep) -> None:
    c = at_last(memorised, all_pairs=True)
    summary, page = read(c), page_text(c)
    assert "at the last step?" in summary.splitlines()[2]
    assert "square is better than cross_entropy at the last step: -0.98" in summary
    assert "test/nll_scaled after each run's last step; differences" in summary
    assert "The weights after the last step count, whatever validation said of earlier ones; test chose" in summary
    assert "test/nll_scaled at the last step: the first loss less the second" in summary
    assert "best checkpoint" not in summary.replace("instead of its best checkpoint", "").replace(LEFT_OUT, "").replace(
        "(test_scores.npz) of the best checkpoint alone", ""
    )
    assert "last step run" in " ".join(page.split()) and "best at step" not in page
    drawn = next(picture for picture in pictures(c) if picture.file == "differences-test-nll_scaled")
    assert "(nll after one temperature) at the last step?" in drawn.caption
    (axes,) = drawn.draw().axes
    assert "test/nll_scaled at the last step, nats per token" in " ".join(axes.get_xlabel().split())


def test_scores_of_the_best_checkpoint_are_left_out_and_it_is_said(memorised: Sweep) -> None:
    both = analyse(load_runs(memorised.folder)), at_last(memorised)
    assert [bool(c.noises or c.reliability) for c in both] == [True, False]
    assert [sum(LEFT_OUT in text for text in c.caveats) for c in both] == [0, 1]
    for path in memorised.folder.glob("*/test_scores.npz"):
        path.unlink()
    assert not any(LEFT_OUT in text for text in at_last(memorised).caveats), "there was nothing to leave out"


def test_settings_are_chosen_by_validation_at_the_same_step(sweep: Sweep) -> None:
    for seed in SEEDS:
        for loss in ("cross_entropy", "square"):
            for rate, best, last in ((0.001, 3.0, 6.0), (0.003, 3.5, 4.0), (0.01, 4.0, 5.0)):
                final = {"val/nll_scaled": last, "test/nll_scaled": last + seed / 10}
                sweep.add(loss, seed, best, val=best, changes={"optimizer.lr": rate}, final=final)
    c = at_last(sweep)
    assert {row.setting for row in c.rows} == {"lr=0.003"}
    assert {row.setting for row in analyse(load_runs(sweep.folder)).rows} == {"lr=0.001"}
    assert c.rows[0].mean == pytest.approx(4.2)
    assert "Each loss took its best lr of 0.001, 0.003, 0.01 by the mean of val/nll_scaled at the last step" in read(c)
    assert [tried.mean for tried in c.axes[0].tried] == pytest.approx([6.0, 4.0, 5.0])
    assert c.expected[0].mean[-1] == pytest.approx(4.0)


def test_it_has_a_folder_and_a_column(memorised: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(memorised.folder, metric="test/top1", weights="last") == 0
    assert "top-1 accuracy) at the last step?" in capsys.readouterr().out
    with (memorised.folder / "comparison-test-top1-weights=last" / "summary.csv").open() as file:
        assert {line["weights"] for line in csv.DictReader(file)} == {"last"}


def test_python_takes_it_too(memorised: Sweep) -> None:
    found = losslab.compare(memorised.folder, weights="last")
    assert found.verdicts["square"].startswith("better") and "at the last step" in str(found)
    assert losslab.runs(memorised.folder).compare(weights="last").verdicts == found.verdicts


def test_caveats_about_best_checkpoints_are_not_said(memorised: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        memorised.add(loss, 4, 3.0, changes={"trainer.val_check_interval": 50}, final={"test/nll_scaled": 4.0})
    assert any("a better best checkpoint" in text for text in analyse(load_runs(memorised.folder)).caveats)
    assert not any("best checkpoint" in text and LEFT_OUT not in text for text in at_last(memorised).caveats)


def test_a_run_without_metrics_of_its_last_step_is_said(memorised: Sweep) -> None:
    memorised.add("square", 4, 3.0, final={"val/nll_scaled": 4.0})
    memorised.add("cross_entropy", 4, 3.0, final={"test/nll_scaled": 4.0})
    assert any(
        "square: no test/nll_scaled (missing or not finite) for seed 4" in text for text in at_last(memorised).caveats
    )


WORDS: dict[str, tuple[str, str]] = {
    "the record's word": ("final", "--weights final: did you mean 'last'? Choose best (each run's best checkpoint"),
    "a slip": ("lst", "did you mean 'last'?"),
    "of export": (
        "ema",
        "choose best (each run's best checkpoint by validation) or last (the weights after its last step); av",
    ),
    "nothing like it": ("middle", "--weights middle: choose best ("),
}


@pytest.mark.parametrize(("word", "told"), WORDS.values(), ids=WORDS)
def test_another_word_is_refused(word: str, told: str, memorised: Sweep) -> None:
    with pytest.raises(UserError) as caught:
        compare(memorised.folder, weights=word)
    assert told in str(caught.value)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "the column's name": (
        lambda folder: compare(folder, metric="final/test/top1"),
        "--metric final/test/top1: write --metric test/top1 --weights last",
    ),
    "tokens": (
        lambda folder: compare(folder, weights="last", tokens=("cross_entropy", "square")),
        "--tokens scores the best checkpoints: leave out --weights for it",
    ),
    "evaluations of the best": (
        lambda folder: compare(folder, weights="last", evaluations="other.txt"),
        "no run has an evaluation of its last step on it; losslab evaluate RUN --checkpoint last data.path=other.txt",
    ),
}


@pytest.mark.parametrize(("call", "told"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_last_step_is_refused(call: Callable[[Path], object], told: str, memorised: Sweep) -> None:
    with pytest.raises(UserError) as caught:
        call(memorised.folder)
    assert told in str(caught.value)


TABLE = """loss,seed,test/top1,final/test/top1
cross_entropy,1,0.8,0.5
cross_entropy,2,0.7,0.4
mae,1,0.7,0.6
mae,2,0.6,0.7
"""


def test_a_table_has_columns_of_the_last_step(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(TABLE)
    c = at_last(path, metric="test/top1")
    assert {row.label: row.mean for row in c.rows} == pytest.approx({"mae": 0.65, "cross_entropy": 0.45})
    assert "test/top1 after each run's last step" in read(c)
    best = analyse(load_runs(path), metric="test/top1")
    assert best.rows[0].label == "cross_entropy" and not best.also, "a column of the last step is no metric beside it"


def test_a_table_of_one_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(TABLE.replace("final/test/top1", "val/top1"))
    with pytest.raises(UserError, match=r"results.csv has no column final/… \(final/test/top1, say\)"):
        at_last(path, metric="test/top1")
    path.write_text("\n".join(",".join(line.split(",")[i] for i in (0, 1, 3)) for line in TABLE.splitlines()))
    with pytest.raises(UserError, match="no metric that is finite; after the last step there are some: --weights last"):
        analyse(load_runs(path))
    assert at_last(path).rows[0].label == "mae"
