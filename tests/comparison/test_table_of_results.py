"""Results that were made elsewhere: a .csv of loss, seed and metrics."""

from pathlib import Path

import pytest
from made_runs import comparison_of, page_text, read, rows_of

from losslab.comparison import load_runs
from losslab.comparison.runs.naming import target_of
from losslab.errors import UserError

GOOD = "loss,seed,nll\ncross_entropy,1,3.0\ncross_entropy,2,3.5\nsquare,1,2.9\nsquare,2,3.3\n"


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "results.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_table_of_one_metric_is_compared_by_it(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    c = comparison_of(path)
    summary = read(c)
    row = next(row for row in c.rows if row.label == "square")
    assert (c.metric, row.n, row.paired.mean) == ("nll", 2, pytest.approx(-0.15))
    assert summary.startswith("# results.csv\n\nWhich final loss gives the smallest nll (nats per token)?\n")
    assert "Results of a table, results.csv; how they were made, it does not say." in summary
    assert "nll; differences to cross_entropy on shared seeds" in summary and "best checkpoint" not in summary
    assert "2 shared seeds: too few for a claim" in summary
    assert "one learning rate" not in summary and "these runs differ" not in summary
    assert target_of(path, {"metric": [c.metric]}).name == "results-comparison-nll"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GOOD, "utf-8-sig"),
        (GOOD.replace("\n", "\r\n"), "utf-8"),
        (GOOD.replace(",", ", "), "utf-8"),
        (GOOD.replace("square,", " square ,"), "utf-8"),
        ("\n".join(f"{i},{line}" for i, line in enumerate(GOOD.splitlines())).replace("0,loss", ",loss"), "utf-8"),
    ],
    ids=["a mark of Windows", "lines of Windows", "blanks", "blanks around a name", "numbered lines of pandas"],
)
def test_tables_as_programs_write_them(text: str, encoding: str, tmp_path: Path) -> None:
    c = comparison_of(write(tmp_path, text, encoding))
    assert {row.label: row.mean for row in c.rows} == {"square": pytest.approx(3.1), "cross_entropy": 3.25}
    assert c.metric == "nll" and not c.also
    read(c)


BAD: dict[str, tuple[str, str]] = {
    "no seed": ("loss,nll\nsquare,1\n", "has no column 'seed': a table needs loss, seed, and one column a metric"),
    "no loss": ("seed,nll\n1,1\n", "has no column 'loss'"),
    "nothing": ("", "has no column 'loss'"),
    "no lines": ("loss,seed,nll\n", "holds no results"),
    "no metric": ("loss,seed\nsquare,1\n", "holds no column of a metric beside loss and seed"),
    "a word for a number": (GOOD + "square,3,good\n", "line 6: 'good' is no number for 'nll'"),
    "a word for a seed": (GOOD + "square,first,3\n", "line 6: needs a loss, a seed (a whole number), and a cell a col"),
    "a raised seed": (GOOD + "square,²,3\n", "line 6: needs a loss, a seed"),
    "half a seed": (GOOD + "square,1.5,3\n", "line 6: needs a loss, a seed"),
    "no loss in a line": (GOOD + ",3,3\n", "line 6: needs a loss"),
    "a cell too many": (GOOD + "square,3,3,3\n", "line 6: needs a loss"),
    "a torn line": (GOOD + "square\n", "line 6: needs a loss"),
    "no status": ("loss,seed,nll,status\nsquare,1,2,well\n", "line 2: 'well' is no status; completed, failed or div"),
    "nothing completed": ("loss,seed,nll,status\nsquare,1,2,failed\n", "no run is completed yet (square: 1 failed)"),
    "no number at all": ("loss,seed,nll\nsquare,1,\n", "hold no metric that is finite"),
    "no such baseline": (GOOD.replace("cross_entropy", "ce"), "there is no baseline 'cross_entropy' among these runs"),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD)
def test_a_bad_table_is_told_in_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        comparison_of(write(tmp_path, text))
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.CSV"
    path.write_bytes(b"loss,seed,nll\n\xff\xfe,1,1\n")
    with pytest.raises(UserError, match="cannot be read as a table"):
        load_runs(path)


def test_of_two_metrics_one_must_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "loss,seed,nll,accuracy\ncross_entropy,1,3.0,0.4\ncross_entropy,2,3.1,0.5\nsquare,1,3.2,0.5\nsquare,2,3.4,0.7\n",
    )
    with pytest.raises(UserError) as caught:
        comparison_of(path)
    assert str(caught.value) == (
        "no run has the metric 'test/nll_scaled'; choose another --metric: there are accuracy, nll"
    )
    c = comparison_of(path, metric="accuracy")
    assert [row.label for row in c.rows] == ["square", "cross_entropy"], "more is better"
    assert "Which final loss gives the largest accuracy" in read(c)
    assert list(c.also) == ["nll"]


def test_a_column_with_a_dot_is_a_setting(tmp_path: Path) -> None:
    lines = ["loss,seed,optimizer.lr,nll,val/nll"]
    for loss, base in (("cross_entropy", 3.0), ("square", 3.2)):
        for lr, val in ((0.001, 0.3), (0.01, 0.1), (0.1, 0.2)):
            lines += [f"{loss},{seed},{lr},{base + val + seed / 10},{base + val}" for seed in (1, 2)]
    c = comparison_of(write(tmp_path, "\n".join(lines)), metric="nll")
    assert {row.label: row.setting for row in c.rows} == {"cross_entropy": "lr=0.01", "square": "lr=0.01"}
    assert "each loss at its best setting by val/nll" in read(c)
    without = write(tmp_path, "\n".join(line.rpartition(",")[0] for line in lines))
    assert len(comparison_of(without).rows) == 6, "without validation each setting is on its own"
    with pytest.raises(UserError, match=r"--tune all: settings are chosen on validation"):
        comparison_of(without, tune="all")


def test_an_empty_setting_is_spelled(tmp_path: Path) -> None:
    text = "loss,seed,optimizer.lr,nll\ncross_entropy,1,,3\nsquare,1,,3\nsquare,2,nan,3\nsquare,1,0.1,3\n"
    c = comparison_of(write(tmp_path, text))
    assert {row.label for row in c.rows} == {"cross_entropy lr=null", "square lr=null", "square lr=0.1"}
    read(c)


def test_the_status_says_what_has_no_result(tmp_path: Path) -> None:
    text = "loss,seed,nll,status\ncross_entropy,1,3,completed\ncross_entropy,2,3,\nsquare,1,2,completed\n"
    c = comparison_of(write(tmp_path, text + "square,2,9,diverged\nsquare,3,9,failed\n"))
    row = next(row for row in c.rows if row.label == "square")
    assert (row.n, row.mean, row.lost) == (1, 2.0, "1 diverged, 1 failed")
    assert "- square: 1 diverged, seed 2: a result, but not in these means\n" in read(c)


def test_empty_and_infinite_cells_are_missing_values(tmp_path: Path) -> None:
    c = comparison_of(write(tmp_path, GOOD + "square,3,inf\nsquare,4,nan\nsquare,5,\n"))
    assert "- square: no nll (missing or not finite) for seed 3, 4, 5\n" in read(c)
    assert next(row for row in c.rows if row.label == "square").n == 2


def test_without_pairs_there_is_no_verdict(tmp_path: Path) -> None:
    c = comparison_of(write(tmp_path, "loss,seed,nll\ncross_entropy,1,3\nsquare,2,2\n"))
    assert rows_of(write(tmp_path, "loss,seed,nll\ncross_entropy,1,3\nsquare,2,2\n"))["square"].paired is None
    assert "no seed in common with the baseline" in read(c)
    assert "There is nothing to compare the baseline with." in page_text(c)
    assert "- square: no completed run for seed 1; means over unequal seeds are not comparable" in read(c)


def test_a_setting_without_a_dot_is_no_second_result_of_a_seed(tmp_path: Path) -> None:
    text = "loss,seed,lr,accuracy\nce,1,0.1,0.5\nce,1,0.2,0.6\n"
    with pytest.raises(
        UserError, match=r"line 3: it repeats the loss and seed of line 2; a setting's column needs a dot"
    ):
        comparison_of(write(tmp_path, text), baseline="ce")


@pytest.mark.parametrize(
    ("name", "better"), [("auc", "b"), ("val_accuracy", "b"), ("rouge1", "b"), ("error_rate", "a")]
)
def test_the_name_of_a_metric_says_which_side_is_better(tmp_path: Path, name: str, better: str) -> None:
    c = comparison_of(write(tmp_path, f"loss,seed,{name}\na,1,0.1\nb,1,0.2\n"), baseline="a")
    assert c.rows[0].label == better


def test_a_name_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is more of 'glue' better, or less"):
        comparison_of(write(tmp_path, "loss,seed,glue\na,1,0.1\nb,1,0.2\n"), baseline="a")
