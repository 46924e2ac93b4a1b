"""Which runs belong together, which are kept apart, and which must not be compared."""

from typing import Any

import pytest
from made_runs import Sweep, comparison_of, read, rows_of

from losslab.comparison.runs.contenders import Contender, find_baselines, group_runs, shown
from losslab.comparison.runs.load import load_runs
from losslab.config.identity import NOT_IDENTITY
from losslab.errors import UserError


def contenders_of(sweep: Sweep, **options: Any) -> dict[str, Contender]:
    return {c.label: c for c in group_runs(load_runs(sweep.folder).runs, **options)}


def test_one_contender_for_each_loss_with_a_run_for_each_seed(paired_sweep: Sweep) -> None:
    found = contenders_of(paired_sweep)
    assert list(found) == ["cross_entropy", "square"]
    for label, c in found.items():
        assert sorted(c.runs) == [1, 2, 3, 4, 5, 6]
        assert {run.loss for run in c.runs.values()} == {c.loss} == {label}
        assert all(run.seed == seed for seed, run in c.runs.items())
        assert len(c.groups) == 1 and c.chosen is c.groups[0]
        assert not c.chosen.others and not c.chosen.repeated and not c.chosen.setting and not c.stratum


OTHER = {
    **dict.fromkeys(("name", "output_dir", "continue_from", "trainer.accelerator", "trainer.strategy"), "something"),
    **dict.fromkeys(("fresh", "trainer.compile", "trainer.activation_checkpointing", "trainer.detect_anomaly"), True),
    **dict.fromkeys(("trainer.enable_progress_bar", "logger.enabled"), False),
    **dict.fromkeys(("trainer.max_tokens", "trainer.max_epochs")),
    "trainer.profiler": "simple",
}


@pytest.mark.parametrize(
    "key",
    [key for key in NOT_IDENTITY if key not in ("logger", "loggers")]
    + ["logger.enabled", "data.path", "checkpoints.every_n_steps", "continue_from"],
)
def test_what_does_not_belong_to_the_identity_parts_no_runs(key: str, sweep: Sweep) -> None:
    sweep.add("square", 1, 3.0)
    sweep.add("square", 2, 3.0, changes={key: OTHER.get(key, 7)})
    found = contenders_of(sweep)
    assert list(found) == ["square"]
    assert len(found["square"].groups) == 1 and sorted(found["square"].runs) == [1, 2]


def test_the_same_tokenizer_in_another_place_is_the_same_tokenizer(sweep: Sweep) -> None:
    for seed, path in ((1, "/here/tokenizer.json"), (2, "/there/tokenizer.json")):
        sweep.add("square", seed, 3.0, changes={"data.tokenizer": path}, hashes={"tokenizer": "t" * 64})
    assert sorted(contenders_of(sweep)["square"].runs) == [1, 2]


CLASHES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "data": ({}, {"data": "e" * 64}, "data.content"),
    "batch size": ({"data.batch_size": 8}, {}, "data.batch_size"),
    "tokenizer": ({"data.tokenizer": "bytes"}, {}, "data.tokenizer"),
    "budget": ({"trainer.max_steps": 200}, {}, "trainer.max_steps"),
    "precision": ({"trainer.precision": "bf16-mixed"}, {}, "trainer.precision"),
    "trained weights to begin with": ({"init_from": "source"}, {"init_from": "f" * 64}, "init_from"),
    "task": ({"task._target_": "mine.Task"}, {}, "task._target_"),
}


@pytest.fixture(params=CLASHES.values(), ids=CLASHES)
def clash(request: pytest.FixtureRequest, sweep: Sweep) -> str:
    """A sweep with two answers to two questions; the setting in which they differ."""
    changes, hashes, key = request.param
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed)
        sweep.add("cross_entropy", seed, 5.0 + seed, changes=changes, hashes=hashes)
        sweep.add("square", seed, 5.1 + seed, changes=changes, hashes=hashes)
    sweep.add("hinge", 1, 3.0)
    return str(key)


def test_runs_that_answer_different_questions_are_refused(clash: str, sweep: Sweep) -> None:
    with pytest.raises(UserError) as caught:
        contenders_of(sweep)
    told = str(caught.value)
    assert f"these runs differ in {clash} and cannot be compared: " in told and "\n" not in told
    assert ("nll counts tokens, and theirs are not the same" in told) == (clash == "data.tokenizer")
    assert "(5 runs)" in told and "(4 runs, cross_entropy-seed1-0000000003)" in told, "the strays are named"
    assert f"--where {clash}=" in told and "--mixed" in told


def test_where_takes_one_kind_and_mixed_each_on_its_own(clash: str, sweep: Sweep) -> None:
    with pytest.raises(UserError) as caught:
        contenders_of(sweep)
    where = str(caught.value).partition("--where ")[2].partition(",")[0]
    kept = rows_of(sweep, where=(where,))
    assert kept["square"].paired.mean == pytest.approx(0.5), "the advice of the sentence works"
    c = comparison_of(sweep, mixed=True)
    read(c)
    assert len(c.baselines) == 2
    differences = {row.label: row.paired.mean for row in c.rows if row.paired is not None and "square" in row.label}
    assert sorted(differences.values()) == pytest.approx([0.1, 0.5])
    name = clash.removesuffix("._target_").rpartition(".")[2]
    assert all(f"square {name}=" in label for label in differences)
    assert all(len(label) < 60 for label in differences), "of a hash the first digits do"


def test_an_attempt_that_came_to_nothing_does_not_keep_the_others_from_being_compared(sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed)
    sweep.add("square", 3, status="interrupted", changes={"trainer.max_steps": 7, "model.width": 16})
    assert list(contenders_of(sweep)) == ["cross_entropy", "square"]
    assert rows_of(sweep)["square"].n == 2


def test_without_validation_a_grid_is_kept_apart_and_compared_within_each_setting(sweep: Sweep) -> None:
    for lr, shift in ((0.01, 0.5), (0.003, 0.0)):
        for seed in (1, 2):
            sweep.add("cross_entropy", seed, 3.0 + seed + shift, changes={"optimizer.lr": lr})
            sweep.add("square", seed, 3.1 + seed + 2 * shift, changes={"optimizer.lr": lr})
    c = comparison_of(sweep)
    assert [x.label for x in c.contenders] == [
        "cross_entropy lr=0.003",
        "cross_entropy lr=0.01",
        "square lr=0.003",
        "square lr=0.01",
    ]
    rows = {row.label: row for row in c.rows}
    assert rows["cross_entropy lr=0.003"].verdict.word == rows["cross_entropy lr=0.01"].verdict.word == "baseline"
    assert rows["square lr=0.003"].paired.mean == pytest.approx(0.1)
    assert rows["square lr=0.01"].paired.mean == pytest.approx(0.6)
    assert c.baseline == "cross_entropy"
    assert "| at" not in read(c), "nothing was chosen"


def test_a_grid_inside_one_loss_labels_that_loss_alone(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    for k in (1.0, 15.0, None, True):
        sweep.add("square", 1, 3.0, changes={"loss.k": k})
    found = contenders_of(sweep)
    assert list(found) == ["cross_entropy", "square k=1", "square k=15", "square k=null", "square k=true"]
    assert {c.stratum for c in found.values()} == {()}


def test_two_widths_are_two_questions(sweep: Sweep) -> None:
    for width, shift in ((64, 0.0), (128, -1.0)):
        for seed in (1, 2, 3):
            changes = {"model.width": width}
            hashes = {"backbone_init": f"w{seed} of {width}"}
            sweep.add("cross_entropy", seed, 3.0 + seed + shift, val=3.0 + shift, changes=changes, hashes=hashes)
            sweep.add("square", seed, 3.2 + seed + 1.5 * shift, val=3.2, changes=changes, hashes=hashes)
    c = comparison_of(sweep)
    summary = read(c)
    assert {row.label: round(row.paired.mean, 6) for row in c.rows if row.paired is not None} == {
        "square width=64": 0.2,
        "square width=128": -0.3,
    }
    assert "it is no pair" not in summary
    assert [row.verdict.text for row in c.rows if "cross_entropy" in row.label] == ["baseline"] * 2
    assert "12 runs, 12 of them completed: 2 losses, 3 seeds (1–3)." in summary
    assert "64 or 128 wide" in summary or "128 or 64 wide" in summary
    tuned = comparison_of(sweep, tune="all")
    assert {x.label for x in tuned.contenders} == {"cross_entropy", "square"}


def test_a_width_that_only_one_loss_has_is_told_to_have_no_baseline(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.1)
    sweep.add("square", 1, 2.0, changes={"model.width": 128})
    row = rows_of(sweep)["square width=128"]
    assert (row.paired, row.verdict.text) == (None, "no baseline of this setting")
    assert "no baseline of this setting" in read(comparison_of(sweep))


def test_of_repeated_runs_the_newest_completed_one_counts(sweep: Sweep) -> None:
    for value, started in ((3.2, "2026-01-02"), (3.3, "2026-01-03"), (3.1, "2026-01-01")):
        sweep.add("square", 1, value, started=started)
    sweep.add("square", 1, status="failed", started="2026-01-04")
    (group,) = contenders_of(sweep)["square"].groups
    assert group.runs[1].value("test/nll_scaled") == 3.3
    assert group.repeated == 2
    assert group.counts == {"failed": 1}


def test_of_several_cross_entropies_the_plain_one_is_the_baseline(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0, changes={"loss.label_smoothing": 0.0})
    sweep.add(
        "cross_entropy",
        1,
        2.9,
        changes={"loss.label_smoothing": 0.1},
        overrides=["loss=cross_entropy", "loss.label_smoothing=0.1"],
    )
    sweep.add("square", 1, 3.5)
    rows = rows_of(sweep)
    assert rows["cross_entropy label_smoothing=0"].is_baseline
    assert rows["cross_entropy label_smoothing=0.1"].paired.mean == pytest.approx(-0.1)
    other = rows_of(sweep, baseline="cross_entropy label_smoothing=0.1")
    assert other["square"].paired.mean == pytest.approx(0.6)


def test_a_baseline_may_be_one_setting_of_many(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    for k, value in ((2.0, 2.0), (10.0, 2.5)):
        sweep.add("square", 1, value, changes={"loss.k": k}, overrides=[f"loss.k={k}"])
    rows = rows_of(sweep, baseline="square k=10.0")
    assert rows["square k=10"].verdict.word == "baseline"
    assert rows["square k=2"].paired.mean == -0.5
    with pytest.raises(UserError, match=r"several settings are called 'square'.*'square k=2', 'square k=10'"):
        rows_of(sweep, baseline="square")


def test_an_unknown_baseline_is_told_with_the_labels_there_are(paired_sweep: Sweep) -> None:
    contenders = list(contenders_of(paired_sweep).values())
    with pytest.raises(UserError) as caught:
        find_baselines(contenders, "cross_entrpy")
    assert str(caught.value) == (
        "there is no baseline 'cross_entrpy' among these runs; choose --baseline from 'cross_entropy', 'square'"
    )


def test_tune_none_keeps_apart_and_a_key_tunes_over_it_alone(grid: Sweep) -> None:
    assert len(contenders_of(grid, tune="none")) == 8
    assert list(contenders_of(grid, tune="optimizer.lr")) == ["cross_entropy", "square"]
    for seed in (1, 2):
        grid.add("square", seed, 3.0, val=2.9, changes={"model.dropout": 0.1, "optimizer.lr": 0.01})
    both = contenders_of(grid, tune="auto")
    assert list(both) == ["cross_entropy", "square"], "dropout is no shape of the model"
    one = contenders_of(grid, tune="optimizer.lr")
    assert list(one) == ["cross_entropy", "square", "square dropout=0.1"]


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ("optimizer.rl", "no run has such a setting: did you mean 'optimizer.lr'?"),
        ("lr", "no run has such a setting: did you mean 'optimizer.lr'?"),
        ("nothing like it", "no run has such a setting; they differ in optimizer.lr"),
        ("model.width", "the runs of each loss have one value of it; they differ in optimizer.lr"),
        ("loss.k", "the runs of each loss have one value of it; they differ in optimizer.lr"),
        ("optimizer.lr,loss._target_", "--tune loss._target_: the runs of each loss have one value of it"),
    ],
)
def test_a_key_that_cannot_be_tuned_over_is_told_with_the_one_that_was_meant(tune: str, told: str, grid: Sweep) -> None:
    for seed in (1, 2):
        grid.add("hinge", seed, 3.0, changes={"loss.k": 2})
    with pytest.raises(UserError, match=r"^--tune ") as caught:
        contenders_of(grid, tune=tune)
    assert told in str(caught.value)


def test_a_setting_of_another_optimizer_is_not_named(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        sweep.add(loss, 1, 3.0, val=3.0)
        sweep.add(loss, 1, 2.9, val=2.9, changes={"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9})
    c = comparison_of(sweep)
    assert {row.setting for row in c.rows} == {"optimizer=SGD momentum=0.9"}
    adam = next(group for group in c.contenders[0].groups if group is not c.contenders[0].chosen)
    assert shown(adam.setting) == "optimizer=AdamW"
    read(c)


def test_a_setting_that_only_diverged_is_a_setting_of_its_own(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        sweep.add(loss, 1, 3.0, val=3.0, changes={"optimizer.lr": 0.003})
        sweep.add(loss, 1, status="diverged", changes={"optimizer.lr": 0.3})
    c = comparison_of(sweep)
    assert {row.lost for row in c.rows} == {""}, "nothing was lost at the chosen one"
    assert {row.setting for row in c.rows} == {"lr=0.003"}
    assert "cross_entropy: 1 diverged at lr=0.3, seed 1: a result, but not in these means" in read(c)


def test_names_are_as_short_as_they_can_be() -> None:
    assert shown((("optimizer.lr", 0.003), ("model.width", 64))) == "lr=0.003 width=64"
    assert shown((("a.k", 1), ("b.k", 2), ("c.d", "—"))) == "a.k=1 b.k=2"
    assert shown((("data.content", "0123456789abcdef" * 4),)) == "content=0123456789"
    assert shown((("loss.name", "two\nlines"),)) == "name=two lines"
    assert shown(()) == ""


def test_where_takes_any_of_several_values_and_the_report_says_so(grid: Sweep) -> None:
    c = comparison_of(grid, where=("optimizer.lr=0.003,0.01", "seed=2"))
    assert {run.seed for run in c.runs} == {2} and len(c.runs) == 4
    assert "Asked for: only runs with optimizer.lr=0.003,0.01 and seed=2, 4 of 16." in read(c)
    assert "Asked for: no tuning, every setting is a row." in read(comparison_of(grid, tune="none"))


def test_of_losses_that_were_all_typed_the_one_with_the_values_of_its_file_is_the_baseline(sweep: Sweep) -> None:
    """As -m loss.label_smoothing=0,0.1 types them."""
    for smoothing, value in ((0.0, 3.0), (0.1, 2.9)):
        typed = ["loss=cross_entropy", f"loss.label_smoothing={smoothing:g}"]
        sweep.add("cross_entropy", 1, value, changes={"loss.label_smoothing": smoothing}, overrides=typed)
    sweep.add("cross_entropy", 1, 2.8, changes={"loss.label_smoothing": 0.0, "regularizers": {"z_loss": 1e-4}})
    rows = rows_of(sweep)
    assert [label for label, row in rows.items() if row.is_baseline] == ["cross_entropy label_smoothing=0 z_loss=0"]


def test_losses_stand_in_the_order_of_their_numbers(sweep: Sweep) -> None:
    for gamma in (10.0, 2.0, 0.5):
        sweep.add("focal", 1, 3.0, changes={"loss.gamma": gamma})
    assert list(contenders_of(sweep)) == ["focal gamma=0.5", "focal gamma=2", "focal gamma=10"]
