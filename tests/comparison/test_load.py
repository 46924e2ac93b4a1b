"""Which runs belong together, and which must not be compared."""

import pytest

from losslab.comparison.load import Group, group_runs, load_runs
from losslab.config.identity import NOT_IDENTITY
from losslab.errors import UserError


def groups_of(sweep) -> dict[str, Group]:
    return {group.label: group for group in group_runs(load_runs(sweep.folder))}


def test_one_group_for_each_loss_with_a_run_for_each_seed(paired_sweep) -> None:
    groups = groups_of(paired_sweep)
    assert list(groups) == ["cross_entropy", "square"]
    for label, group in groups.items():
        assert sorted(group.runs) == [1, 2, 3, 4, 5, 6]
        assert {run.loss for run in group.runs.values()} == {label}
        assert all(run.seed == seed for seed, run in group.runs.items())
        assert not group.others
        assert not group.repeated


def test_a_run_out_of_an_older_record_is_called_by_its_class(sweep) -> None:
    folder = sweep.add("square", 1, 3.0)
    path = folder / "run.json"
    path.write_text(path.read_text().replace('"choices"', '"unknown"'))
    assert list(groups_of(sweep)) == ["Square"]


OTHER = {
    **dict.fromkeys(("name", "output_dir", "trainer.accelerator", "trainer.strategy"), "something"),
    **dict.fromkeys(("fresh", "trainer.compile"), True),
    **dict.fromkeys(("trainer.enable_progress_bar", "logger.enabled"), False),
    "trainer.max_tokens": None,
}


@pytest.mark.parametrize("key", [key for key in NOT_IDENTITY if key != "logger"] + ["logger.enabled", "data.path"])
def test_what_does_not_belong_to_the_identity_parts_no_runs(key: str, sweep) -> None:
    sweep.add("square", 1, 3.0)
    sweep.add("square", 2, 3.0, changes={key: OTHER.get(key, 7)})
    groups = groups_of(sweep)
    assert list(groups) == ["square"]
    assert sorted(groups["square"].runs) == [1, 2]


def test_the_same_tokenizer_in_another_place_is_the_same_tokenizer(sweep) -> None:
    for seed, path in ((1, "/here/tokenizer.json"), (2, "/there/tokenizer.json")):
        sweep.add("square", seed, 3.0, changes={"data.tokenizer": path}, hashes={"tokenizer": "t" * 64})
    assert sorted(groups_of(sweep)["square"].runs) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "hashes", "named"),
    [
        ({}, {"data": "e" * 64}, "data.content"),
        ({"data.batch_size": 8}, {}, "data.batch_size (16, 8)"),
        ({"data.tokenizer": "bytes"}, {}, "data.tokenizer ('bpe', 'bytes')"),
        ({"trainer.max_steps": 200}, {}, "trainer.max_steps (100, 200)"),
        ({"trainer.precision": "bf16-mixed"}, {}, "trainer.precision ('32-true', 'bf16-mixed')"),
        ({"task._target_": "mine.Task"}, {}, "task._target_"),
    ],
)
def test_runs_that_answer_different_questions_are_refused(changes, hashes, named: str, sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.0, changes=changes, hashes=hashes)
    with pytest.raises(UserError) as caught:
        groups_of(sweep)
    assert named in str(caught.value)
    assert "cannot be compared" in str(caught.value)
    assert "name=" in str(caught.value)


def test_a_grid_over_learning_rates_is_labelled(sweep) -> None:
    for lr in (0.01, 0.003):
        for loss in ("square", "cross_entropy"):
            sweep.add(loss, 1, 3.0, changes={"optimizer.lr": lr})
    groups = groups_of(sweep)
    assert list(groups) == ["cross_entropy lr=0.003", "cross_entropy lr=0.01", "square lr=0.003", "square lr=0.01"]
    assert [group.context for group in groups.values()] == [(("optimizer.lr", 0.003),), (("optimizer.lr", 0.01),)] * 2


def test_a_grid_inside_one_loss_labels_that_loss_alone(sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    for k in (1.0, 15.0):
        sweep.add("square", 1, 3.0, changes={"loss.k": k})
    groups = groups_of(sweep)
    assert list(groups) == ["cross_entropy", "square k=1.0", "square k=15.0"]
    assert {group.context for group in groups.values()} == {()}


def test_of_repeated_runs_the_newest_completed_one_counts(sweep) -> None:
    for value, started in ((3.2, "2026-01-02"), (3.3, "2026-01-03"), (3.1, "2026-01-01")):
        sweep.add("square", 1, value, started=started)
    sweep.add("square", 1, status="failed", started="2026-01-04")
    group = groups_of(sweep)["square"]
    assert group.runs[1].record.yardsticks["best"]["test/nll_scaled"] == 3.3
    assert group.repeated == 2
    assert group.others == {"failed": 1}


def test_a_curve_has_the_steps_with_a_value(sweep) -> None:
    folder = sweep.add("square", 1, 3.0)
    (run,) = load_runs(sweep.folder)
    assert run.folder == folder
    assert run.curve("val/nll_scaled") == {50: 4.0, 100: 3.5}
    assert run.curve("val/no_such_column") == {}
    (folder / "metrics.csv").unlink()
    assert run.curve("val/nll_scaled") == {}


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "holds no config.yaml"),
        (lambda folder: (folder / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
        (lambda folder: (folder / "config.yaml").write_text(""), "config.yaml cannot be read"),
        (lambda folder: (folder / "run.json").write_text("{"), "run.json cannot be read"),
        (lambda folder: (folder / "run.json").unlink(), "holds no runs"),
    ],
    ids=["no config", "half a config", "an empty config", "half a record", "no record"],
)
def test_a_damaged_folder_is_told_in_one_sentence(break_it, reason: str, sweep) -> None:
    break_it(sweep.add("square", 1, 3.0))
    with pytest.raises(UserError) as caught:
        load_runs(sweep.folder)
    assert reason in str(caught.value)
    assert str(sweep.folder) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda p: None, "is not a folder"), (lambda p: p.touch(), "is not a folder"), (lambda p: p.mkdir(), "no runs")],
    ids=["missing", "a file", "empty"],
)
def test_a_folder_without_runs_is_told(make, reason: str, tmp_path) -> None:
    make(tmp_path / "first")
    with pytest.raises(UserError, match=reason):
        load_runs(tmp_path / "first")
