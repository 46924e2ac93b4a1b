"""`losslab compare` on runs whose differences are known."""

import csv
import subprocess
import sys

import pytest
from scipy import stats

from losslab.comparison.compare import CURVES, TABLE, compare
from losslab.comparison.load import group_runs, load_runs
from losslab.comparison.table import ONE_LEARNING_RATE, make_rows, notes, to_csv
from losslab.errors import UserError

WRITTEN = ("comparison.md", TABLE, f"{CURVES}.svg", f"{CURVES}.png")


def rows_of(sweep, baseline: str = "cross_entropy", metric: str = "test/nll_scaled"):
    return {row.label: row for row in make_rows(group_runs(load_runs(sweep.folder)), baseline=baseline, metric=metric)}


def notes_of(sweep, baseline: str = "cross_entropy") -> list[str]:
    return notes(group_runs(load_runs(sweep.folder)), baseline=baseline, metric="test/nll_scaled")


def test_a_known_effect_is_covered_by_an_interval_narrower_than_the_unpaired_one(paired_sweep) -> None:
    result = rows_of(paired_sweep)["square"].paired
    assert result.n == 6
    assert result.mean == pytest.approx(0.05 + 0.0005 / 6)
    assert result.low < 0.05 < result.high
    assert result.low > 0.04
    groups = group_runs(load_runs(paired_sweep.folder))
    values = [[run.record.yardsticks["best"]["test/nll_scaled"] for run in group.runs.values()] for group in groups]
    unpaired = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert unpaired.low < 0 < unpaired.high, "seeds differ more than losses"
    assert result.high - result.low < (unpaired.high - unpaired.low) / 50


def test_the_report_says_it_in_words(paired_sweep, compared, capsys) -> None:
    report = compared(paired_sweep)
    lines = [line for line in report.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["cross_entropy", "square"], "best first"
    assert lines[2].rstrip(" |").endswith("baseline")
    assert lines[3].rstrip(" |").endswith("worse")
    assert "+0.0501 [+0.0486, +0.0516]" in lines[3]
    assert len({len(line) for line in lines}) == 1, "aligned"
    assert report.startswith("# first\n")
    assert "best checkpoint" in report
    assert f"{CURVES}.png" in report
    printed = capsys.readouterr().out
    assert all(line in printed for line in lines)


def test_the_csv_has_every_number(paired_sweep, compared) -> None:
    compared(paired_sweep)
    with (paired_sweep.folder / TABLE).open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["loss"], first["n"], first["verdict"]) == ("cross_entropy", "6", "baseline")
    assert first["pairs"] == first["difference"] == first["p_holm"] == first["p_sign_flip"] == ""
    row = rows_of(paired_sweep)["square"]
    expected = {
        "metric": "test/nll_scaled",
        "n": 6,
        "mean": row.mean,
        "std": row.std,
        "pairs": 6,
        "difference": row.paired.mean,
        "low": row.paired.low,
        "high": row.paired.high,
        "p_t": row.paired.p_t,
        "p_holm": row.paired.p_t,
        "p_sign_flip": 2 / 2**6,
        "verdict": "worse",
    }
    assert second == {"loss": "square"} | {key: str(value) for key, value in expected.items()}


def test_the_best_checkpoint_counts_and_not_the_last(paired_sweep) -> None:
    assert rows_of(paired_sweep)["cross_entropy"].mean == pytest.approx(3.2)


def test_three_seeds_are_a_hint(sweep) -> None:
    for seed, level in enumerate([3.0, 3.4, 2.9], start=1):
        sweep.add("cross_entropy", seed, level)
        sweep.add("square", seed, level - 0.05 + seed * 1e-4)
    assert rows_of(sweep)["square"].verdict == "better (3 seeds: a hint, not a claim)"
    assert rows_of(sweep, baseline="square")["cross_entropy"].verdict == "worse (3 seeds: a hint, not a claim)"


def test_several_losses_are_adjusted_together(sweep) -> None:
    effects = {"square": 0.02, "hinge": 0.01, "focal": 0.0}
    for seed, level in enumerate([3.0, 3.4, 2.9, 3.2, 3.6, 3.1], start=1):
        sweep.add("cross_entropy", seed, level)
        for i, (loss, effect) in enumerate(effects.items()):
            sweep.add(loss, seed, level + effect + 0.01 * (-1) ** (seed * (i + 1)) * ((seed + i) % 3))
    rows = rows_of(sweep)
    first, second, third = sorted((rows[loss] for loss in effects), key=lambda row: row.paired.p_t)
    adjusted = [min(1.0, factor * row.paired.p_t) for factor, row in ((3, first), (2, second), (1, third))]
    running = [adjusted[0], max(adjusted[:2]), max(adjusted)]
    assert [row.p_adjusted for row in (first, second, third)] == pytest.approx(running)
    assert list(rows) == sorted(rows, key=lambda label: rows[label].mean)


def test_more_top1_is_better(sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, metrics={"test/top1": 0.4 + seed / 100})
        sweep.add("square", seed, metrics={"test/top1": 0.5 + seed / 100 + seed**2 * 1e-4})
    rows = rows_of(sweep, metric="test/top1")
    assert list(rows) == ["square", "cross_entropy"]
    assert rows["square"].verdict == "better"


def test_a_seed_that_one_loss_lacks_is_told_and_left_out_of_the_pairs(sweep) -> None:
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed)
    for seed in (2, 3):
        sweep.add("square", seed, 2.5 + seed)
    row = rows_of(sweep)["square"]
    assert (row.n, row.paired.n, row.paired.mean) == (2, 2, -0.5)
    unequal = "means over unequal seeds are not comparable, the differences are"
    assert f"square: no completed run for seed 1; {unequal}" in notes_of(sweep)


def test_runs_without_a_result_are_counted(sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0)
        sweep.add("square", seed, 3.0 + seed)
    sweep.add("square", 3, status="diverged")
    sweep.add("square", 4, status="diverged")
    sweep.add("square", 5, status="failed")
    sweep.add("hinge", 1, status="interrupted")
    found = notes_of(sweep)
    assert "square: 2 diverged, 1 failed, not in these means" in found
    assert "hinge: 1 interrupted, not in these means" in found
    assert not any("hinge: no completed run" in note for note in found), "said already"
    assert set(rows_of(sweep)) == {"cross_entropy", "square"}
    assert rows_of(sweep)["square"].n == 2


@pytest.mark.parametrize("missing", [{}, {"test/nll": 2.0}], ids=["no yardsticks", "another yardstick"])
def test_a_completed_run_without_the_metric_is_told(missing: dict[str, float], sweep, compared) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed)
    sweep.add("cross_entropy", 3, 6.0)
    sweep.add("square", 3, metrics=missing)
    report = compared(sweep)
    remarks = [line for line in report.splitlines() if line.startswith("- square")]
    assert any("3" in remark for remark in remarks), "a NaN, which is null in the record, vanished without a word"


def test_the_newest_of_repeated_runs_is_used_and_told(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 4.0, started="2026-01-01")
    sweep.add("square", 1, 2.0, started="2026-01-02")
    assert rows_of(sweep)["square"].mean == 2.0
    assert "square: of repeated runs the newest counts (1 older left out)" in notes_of(sweep)


def test_pairs_that_did_not_start_alike_are_told(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.0, hashes={"batches": "others"})
    sweep.add("hinge", 1, 3.0, hashes={"backbone_init": "x", "batches": "y"})
    found = notes_of(sweep)
    assert "square, seed 1: batches differ from the baseline's" in found
    assert "hinge, seed 1: backbone_init and batches differ from the baseline's" in found


def test_pairs_that_started_alike_need_no_note(paired_sweep) -> None:
    assert notes_of(paired_sweep) == [ONE_LEARNING_RATE]


def test_one_learning_rate_for_all_is_told(paired_sweep, compared) -> None:
    assert ONE_LEARNING_RATE == "one learning rate for all losses: this ranks settings, not losses"
    assert ONE_LEARNING_RATE in compared(paired_sweep)


@pytest.fixture
def grid(sweep):
    """Two losses under two learning rates, two seeds each."""
    for lr, shift in ((0.003, 0.0), (0.01, 0.5)):
        for seed in (1, 2):
            sweep.add("cross_entropy", seed, 3.0 + seed + shift, changes={"optimizer.lr": lr})
            sweep.add("square", seed, 3.1 + seed + 2 * shift, changes={"optimizer.lr": lr})
    return sweep


def test_a_grid_is_compared_within_each_learning_rate(grid) -> None:
    assert ONE_LEARNING_RATE not in notes_of(grid)
    rows = rows_of(grid)
    assert rows["cross_entropy lr=0.003"].verdict == rows["cross_entropy lr=0.01"].verdict == "baseline"
    assert rows["square lr=0.003"].paired.mean == pytest.approx(0.1)
    assert rows["square lr=0.01"].paired.mean == pytest.approx(0.6)


def test_a_baseline_may_be_one_setting_of_many(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 2.0, changes={"loss.k": 1.0})
    sweep.add("square", 1, 2.5, changes={"loss.k": 15.0})
    rows = rows_of(sweep, baseline="square k=15.0")
    assert rows["square k=15.0"].verdict == "baseline"
    assert rows["square k=1.0"].paired.mean == -0.5
    with pytest.raises(UserError, match=r"several settings are called 'square'.*'square k=1.0', 'square k=15.0'"):
        rows_of(sweep, baseline="square")


def test_without_a_shared_seed_there_is_no_verdict(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 2, 3.0)
    row = rows_of(sweep)["square"]
    assert row.paired is None
    assert row.verdict == "no shared seed with a baseline of the same setting"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"baseline": "cross_entrpy"}, "there is no baseline 'cross_entrpy' among these runs"),
        ({"metric": "test/nothing"}, "no run has the metric 'test/nothing': there are test/nll_scaled"),
    ],
)
def test_an_unknown_word_is_one_sentence_and_writes_nothing(asked: dict[str, str], answer: str, paired_sweep) -> None:
    with pytest.raises(UserError) as caught:
        compare(paired_sweep.folder, **{"baseline": "cross_entropy", "metric": "test/nll_scaled"} | asked)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in paired_sweep.folder.iterdir() if path.is_file()] == []


def test_an_unfinished_sweep_says_how_to_go_on(sweep) -> None:
    sweep.add("cross_entropy", 1, status="interrupted")
    with pytest.raises(UserError, match=r"no run is completed yet \(cross_entropy: 1 interrupted\)"):
        rows_of(sweep)


def test_one_run_is_a_table_too(sweep, compared) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    report = compared(sweep)
    assert "baseline" in report
    assert "nan" not in report
    assert "nan" not in (sweep.folder / TABLE).read_text()
    assert ONE_LEARNING_RATE not in report


def test_the_same_runs_give_the_same_bytes(paired_sweep, compared) -> None:
    compared(paired_sweep)
    first = {name: (paired_sweep.folder / name).read_bytes() for name in WRITTEN}
    compared(paired_sweep)
    assert {name: (paired_sweep.folder / name).read_bytes() for name in WRITTEN} == first
    assert all(first.values())


def test_another_process_writes_the_same_bytes_and_needs_no_torch(paired_sweep, compared) -> None:
    compared(paired_sweep)
    first = {name: (paired_sweep.folder / name).read_bytes() for name in WRITTEN}
    program = (
        "import sys\nfrom pathlib import Path\nfrom losslab.comparison.compare import compare\n"
        f"compare(Path({str(paired_sweep.folder)!r}), baseline='cross_entropy', metric='test/nll_scaled')\n"
        "assert not {'torch', 'lightning', 'hydra'} & set(sys.modules)"
    )
    for name in WRITTEN:
        (paired_sweep.folder / name).unlink()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert {name: (paired_sweep.folder / name).read_bytes() for name in WRITTEN} == first


def test_the_figure_names_each_loss_and_how_many_seeds(paired_sweep, compared) -> None:
    paired_sweep.add("hinge", 1, status="failed")
    compared(paired_sweep)
    picture = (paired_sweep.folder / f"{CURVES}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    drawing = (paired_sweep.folder / f"{CURVES}.svg").read_text()
    assert "<!-- cross_entropy (n = 6) -->" in drawing
    assert "<!-- square (n = 6) -->" in drawing
    assert "hinge" not in drawing


def test_a_folder_that_cannot_be_written_is_told(paired_sweep, monkeypatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("losslab.comparison.compare.write_atomic", fail)
    with pytest.raises(UserError, match=r"cannot be written to .*first: Read-only file system"):
        compare(paired_sweep.folder, baseline="cross_entropy", metric="test/nll_scaled")


def test_a_label_with_a_comma_stays_one_cell(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    for name in ('a "quoted", name', "other"):
        sweep.add("own", 1, 3.0, changes={"loss.name": name})
    parsed = list(csv.DictReader(to_csv(list(rows_of(sweep).values()), "test/nll_scaled").splitlines()))
    assert {row["loss"] for row in parsed} == {"cross_entropy", 'own name=a "quoted", name', "own name=other"}
    assert {row["n"] for row in parsed} == {"1"}


def test_another_metric_has_files_of_its_own(paired_sweep) -> None:
    compare(paired_sweep.folder, baseline="cross_entropy", metric="test/nll_scaled")
    before = (paired_sweep.folder / "comparison.md").read_bytes()
    for run in load_runs(paired_sweep.folder):
        run.record.yardsticks["best"]["test/top1"] = 0.1 * run.seed
        run.record.write(run.folder)
    compare(paired_sweep.folder, baseline="cross_entropy", metric="test/top1")
    assert (paired_sweep.folder / "comparison.md").read_bytes() == before
    assert "test/top1" in (paired_sweep.folder / "comparison-test-top1.md").read_text()


def test_an_attempt_that_came_to_nothing_does_not_keep_the_others_from_being_compared(sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed)
    sweep.add("square", 3, status="interrupted", changes={"trainer.max_steps": 7})
    assert rows_of(sweep)["square"].n == 2
