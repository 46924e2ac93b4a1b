"""`losslab plan`: from a pilot, or from noise figures, to seeds, hours and commands."""

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_figures import NANO
from made_runs import Sweep, comparison_of, edit_record

import losslab
from losslab.commands import preset_plan as command
from losslab.commands.plan import make_plan, plan
from losslab.comparison.claim_cost import Deviation, seeds_for
from losslab.comparison.growing import Growing
from losslab.comparison.planning import plan_of_folder
from losslab.comparison.simultaneous import sidak
from losslab.errors import UserError
from losslab.sequential.ledger import Terms

TYPED = "losslab train -m name=first 'loss=cross_entropy,focal(gamma=1)' seed=1,2 hydra.launcher.slots=2"
START = datetime(2026, 1, 1, tzinfo=UTC)


def pilot(
    folder: Path,
    losses: dict[str, float],
    seeds: int,
    *,
    typed: str = "",
    words: dict[str, list[str]] | None = None,
    diverged: tuple[str, int] | None = None,
) -> Sweep:
    """Runs of 30 s, one after the other. Each loss has exactly this deviation of its differences to cross-entropy.

    Args:
        typed: the command of all of them.
        words: the overrides of a loss; else loss=NAME alone.
    """
    sweep, random, clock = Sweep(folder), np.random.default_rng(5), START
    levels = 3 + 0.1 * random.standard_normal(seeds)
    noise = {loss: random.standard_normal(seeds) for loss in losses}
    for i in range(seeds):
        for loss, std in {"cross_entropy": 0.0, **losses}.items():
            value = levels[i] + (std and 0.02 + std * noise[loss][i] / noise[loss].std(ddof=1))
            lost = diverged == (loss, i + 1)
            own = [f"name={folder.name}", *(words or {}).get(loss, [f"loss={loss}"]), f"seed={i + 1}"]
            status = "diverged" if lost else "completed"
            run = sweep.add(loss, i + 1, None if lost else value, status=status, overrides=own)
            ended = clock + timedelta(seconds=30)
            provenance = {"choices": {"loss": loss}, "command": typed}
            edit_record(run, timing={"started": clock.isoformat(), "updated": ended.isoformat()}, provenance=provenance)
            clock = ended
    return sweep


def test_a_pilot_of_eight_seeds_makes_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot(tmp_path / "first", {"square": 0.02, "focal": 0.02}, 8)
    made = make_plan([str(tmp_path / "first")])
    square, _, baseline = made.losses
    assert made.pooled == 2 and square.cost is not None and 7 < square.cost.deviation.df <= 14
    level = square.cost.level
    assert sidak(2).level <= level < 0.05, "the joint level of the table of eight seeds"
    upper = Deviation(0.02, square.cost.deviation.df).upper()
    assert square.seeds == seeds_for(0.01 / upper, level=level) == baseline.seeds
    assert square.missing == square.seeds - 8 and square.seconds == pytest.approx(30 * square.missing)
    assert made.seconds == pytest.approx(90 * square.missing)
    seeds = f"range(1,{square.seeds + 1})"
    assert made.commands == [f"losslab train -m name=first loss=cross_entropy,focal,square 'seed={seeds}'"]
    assert plan([str(tmp_path / "first")]) == 0
    printed = capsys.readouterr().out
    assert f"| square        | 8     | 0.0200    | {upper:.4f}  | {square.seeds} " in printed
    assert made.commands[0] in printed.splitlines()


def test_the_table_as_a_whole_goes_by_own_deviations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot(tmp_path / "first", {"square": 0.02, "focal": 0.015}, 8)
    made = make_plan([str(tmp_path / "first")])
    assert made.pooled == 2 and made.together is not None and made.together.limit == pytest.approx(0.9)
    level = sidak(2).level
    seeds = {
        loss: seeds_for(0.01 / Deviation(std, 7).upper(0.9), level=level)
        for loss, std in (("focal", 0.015), ("square", 0.02))
    }
    assert seeds["focal"] < seeds["square"], "unequal seeds have no joint level"
    assert made.together.seeds == {**seeds, "cross_entropy": seeds["square"]}
    assert all(seeds[one.loss] > (one.seeds or 0) for one in made.losses[:2])
    assert losslab.plan(tmp_path / "first").seeds_together == made.together.seeds
    assert made.together.missing == 2 * seeds["square"] + seeds["focal"] - 24
    assert made.together.seconds == pytest.approx(30 * made.together.missing)
    assert plan([str(tmp_path / "first")]) == 0
    printed = capsys.readouterr().out
    assert (
        "Each loss by itself: " in printed
        and "they suffice for a loss in four of five such pilots, if these" in printed
    )
    told = "in four of five such pilots, however noisy each loss is, all 2 losses have power 0.8, each of them, with "
    assert (
        f"{told}{seeds['focal']} seeds of focal and {seeds['square']} seeds of square, cross_entropy (by own" in printed
    )
    assert printed.splitlines()[-2:] == made.together.commands


def test_the_pilot_is_enough_for_losses_together_and_not_for_each(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"square": 0.02, "focal": 0.02, "poly1": 0.02, "hinge": 0.02}, 5)
    made = make_plan([str(tmp_path / "first")])
    assert made.is_enough and made.pooled == 4
    assert made.together is not None and made.together.seeds is None
    assert str(losslab.plan(tmp_path / "first")).endswith("own deviations, for which 8 seeds are needed.")
    pilot(tmp_path / "one", {"square": 0.02}, 8)
    assert make_plan([str(tmp_path / "one")]).together is None


def test_unequal_seeds_are_planned_at_the_level_that_their_table_has(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"square": 0.06, "focal": 0.01}, 8)
    made = make_plan([str(tmp_path / "first")])
    assert made.level == sidak(2).level
    own = {"square": Deviation(0.06, 7), "focal": Deviation(0.01, 7)}
    for one in made.losses[:2]:
        assert one.seeds == seeds_for(0.01 / own[one.loss].upper(), level=sidak(2).level)


def test_few_seeds_ask_for_a_pilot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot(tmp_path / "first", {"square": 0.02}, 4)
    made = make_plan([str(tmp_path / "first")])
    low, high = made.losses[0].interval
    assert not made.is_enough and made.seconds is None
    assert 30 < high / low < 44, "43-fold, but for the t of the smaller number"
    assert plan([str(tmp_path / "first")]) == 0
    printed = capsys.readouterr().out
    assert "This is too little for a number. 8 seeds make a pilot:" in printed
    assert printed.splitlines()[-1] == "losslab train -m name=first loss=cross_entropy,square seed=1,2,3,4,5,6,7,8"


def test_a_larger_difference_takes_fewer_and_at_last_none_are_missing(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"square": 0.02}, 9)
    folder = [str(tmp_path / "first")]
    seeds = [make_plan(folder, detect=detect).losses[0].seeds or 0 for detect in (0.01, 0.02, 1.0)]
    assert seeds[0] > seeds[1] > seeds[2] == 6
    assert (make_plan(folder, power=0.95).losses[0].seeds or 0) > seeds[0]
    enough = make_plan(folder, detect=1.0)
    assert enough.commands == [] and enough.seconds == 0
    assert "Nothing is missing" in str(losslab.plan(tmp_path / "first", detect=1.0))


def test_the_command_is_the_sweeps_own(tmp_path: Path) -> None:
    words = {"focal": ["loss=focal", "loss.gamma=1"]}
    pilot(tmp_path / "first", {"focal": 0.02}, 4, typed=TYPED, words=words)
    (told,) = make_plan([str(tmp_path / "first")]).commands
    assert shlex.split(told) == [*shlex.split(TYPED)[:5], "seed=1,2,3,4,5,6,7,8", "hydra.launcher.slots=2"]


def test_a_grown_sweep_trains_no_further_twins(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"focal": 0.02}, 4, typed=f"{TYPED} seeds.twin=null,1")
    (told,) = make_plan([str(tmp_path / "first")]).commands
    assert "seed=1,2,3,4,5,6,7,8" in shlex.split(told) and "twin" not in told


def test_a_sweep_of_several_commands_grows_by_the_words_of_its_runs(tmp_path: Path) -> None:
    words = {"focal": ["loss=focal", "loss.gamma=1"], "cross_entropy": ["loss=cross_entropy", "optimizer.lr=0.1"]}
    words["square"] = ["loss=square", "optimizer.lr=0.1"]
    typed = "losslab train --config-dir mine loss=square hydra/launcher=slurm"
    pilot(tmp_path / "first", {"focal": 0.02, "square": 0.02}, 3, typed=typed, words=words)
    told = make_plan([str(tmp_path / "first")]).commands
    start = "losslab train -m --config-dir mine hydra/launcher=slurm name=first"
    assert told == [
        f"{start} loss=cross_entropy,square optimizer.lr=0.1 seed=1,2,3,4,5,6,7,8",
        f"{start} loss=focal loss.gamma=1 seed=1,2,3,4,5,6,7,8",
    ]


def started(folder: Path, where: Path, config: dict[str, str] | None = None) -> None:
    """Let these runs have been started in a folder, with these keys of their configuration."""
    for path in folder.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["provenance"]["started_in"] = str(where)
        path.write_text(json.dumps(record))
        stored = yaml.safe_load(path.with_name("config.yaml").read_text())
        path.with_name("config.yaml").write_text(yaml.safe_dump(stored | (config or {})))


def test_the_command_holds_from_where_a_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, folder = tmp_path / "my work", tmp_path / "my work" / "outputs" / "first"
    pilot(folder, {"focal": 0.02}, 4, typed=TYPED, words={"focal": ["loss=focal", "loss.gamma=1"]})
    started(folder, home, {"name": "first"})
    words = [*shlex.split(TYPED)[:5], "seed=1,2,3,4,5,6,7,8", "hydra.launcher.slots=2"]
    made = make_plan([str(folder)])
    assert shlex.split(made.commands[0]) == ["cd", str(home), "&&", *words] and made.notes == []
    monkeypatch.chdir(home)
    made = make_plan(["outputs/first"])
    assert shlex.split(made.commands[0]) == words
    moved = tmp_path / "elsewhere" / "second"
    moved.parent.mkdir()
    folder.rename(moved)
    made = make_plan([str(moved)])
    placed = [word.replace("name=first", "name=second") for word in words]
    assert shlex.split(made.commands[0]) == [*placed, f"output_dir={moved.parent}"], "where its runs are now"
    started(moved, tmp_path / "gone")
    made = make_plan([str(moved)])
    assert made.commands[0].startswith("losslab train")
    assert made.notes == [
        f"The runs were started in {tmp_path / 'gone'}, which is not here: a command's relative paths hold there."
    ]


def test_a_diverged_run_is_replaced_by_another_seed(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"square": 0.02}, 4, diverged=("square", 2))
    (told,) = make_plan([str(tmp_path / "first")]).commands
    assert told.endswith("seed=1,2,3,4,5,6,7,8,9")


def test_unequal_noise_takes_unequal_seeds(tmp_path: Path) -> None:
    pilot(tmp_path / "first", {"square": 0.06, "focal": 0.01}, 8)
    made = make_plan([str(tmp_path / "first")])
    seeds = {one.loss: one.seeds or 0 for one in made.losses}
    assert made.pooled == 0 and seeds["focal"] < seeds["square"] == seeds["cross_entropy"]
    assert made.commands == [
        f"losslab train -m name=first loss=cross_entropy,square 'seed=range(1,{seeds['square'] + 1})'",
        f"losslab train -m name=first loss=focal seed={','.join(map(str, range(1, seeds['focal'] + 1)))}",
    ]


def test_json_holds_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot(tmp_path / "first", {"square": 0.02}, 8)
    assert plan([str(tmp_path / "first")], as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    made = losslab.plan(tmp_path / "first")
    assert {one["loss"]: one["seeds"] for one in told["losses"]} == made.seeds
    assert (told["seconds"], told["commands"], told["margin"]) == (made.seconds, made.commands, 0.01)
    assert told["losses"][0]["deviation"] == pytest.approx(0.02) and told["losses"][-1]["deviation"] is None


FIGURE = replace(NANO, std=0.012)
FIGURES = [FIGURE, replace(FIGURE, loss="poly1", std=0.02)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_figures", lambda: FIGURES)


@pytest.mark.usefixtures("measured")
def test_before_any_run_the_noise_figures_plan() -> None:
    made = make_plan(["experiment=quickstart", "loss=cross_entropy,focal,poly1", "name=mine"])
    level = sidak(2).level
    seeds = {own.loss: seeds_for(0.01 / own.deviation.upper(), level=level) for own in FIGURES}
    assert {one.loss: one.seeds for one in made.losses[:2]} == seeds
    most = max(seeds.values())
    assert made.losses[-1].seeds == most and made.seconds == pytest.approx(15.0 * (sum(seeds.values()) + most))
    start = "losslab train -m experiment=quickstart name=mine"
    assert made.commands == [
        f"{start} loss=focal seed={','.join(map(str, range(1, seeds['focal'] + 1)))}",
        f"{start} loss=poly1,cross_entropy 'seed=range(1,{most + 1})'",
    ]
    assert made.notes == [
        "Noise of experiment=quickstart, as scripts/benchmark noise measured it on 2026-11-28 from 24 seeds (2 cores); "
        "another machine takes another time."
    ]


@pytest.mark.usefixtures("measured")
def test_what_was_not_measured_is_said() -> None:
    made = make_plan(["experiment=quickstart", "loss=hinge", "trainer.max_steps=10"])
    (hinge, _) = made.losses
    assert hinge.seeds == seeds_for(0.01 / FIGURES[1].deviation.upper())
    assert made.notes[1].startswith(
        "The figures are not of these runs, but of nano: here trainer.max_steps=10 instead of 240, which may change"
    )
    assert made.notes[2] == "hinge was not measured: it is planned with the deviation of poly1, the largest that was"
    assert [one.loss for one in make_plan([], preset="nano").losses] == ["focal", "poly1", "cross_entropy"]


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("words", "options", "told"),
    [
        ([], {}, "needs one folder of runs, or words of losslab train"),
        (["nowhere"], {}, "nowhere is neither a folder of runs nor a .csv table"),
        (["nowhere", "loss=focal"], {}, "nowhere: a plan is of a folder alone, or of words"),
        (["data=text"], {}, r"no noise figures for data=text: there are nano \(experiment=quickstart\); others need"),
        ([], {"preset": "huge"}, "no noise figures for --preset huge"),
        ([], {"preset": "nao"}, "no noise figures for --preset nao: did you mean 'nano'"),
        (["experiment=quickstart", "loss=focl"], {}, "no loss named 'focl': did you mean 'focal'"),
        (["experiment=quikstart", "loss=focal"], {}, "no experiment named 'quikstart': did you mean 'quickstart'"),
        (["experiment=quickstart", "model.widht=8"], {}, "no key 'model.widht': did you mean 'model.width'"),
        (["experiment=quickstart", "loss=cross_entropy"], {}, "loss=cross_entropy is what others are compared with"),
        (["experiment=quickstart", "loss=focal", "loss.gamma=1"], {}, "with its own, loss=NAME:gamma=1"),
        (["experiment=quickstart", "seeds.data_ordr=1"], {}, "no key 'seeds.data_ordr': did you mean"),
        (["experiment=quickstart", "seeds.data_order=1"], {}, "seeds.data_order=1: noise figures are of whole seeds"),
        (["experiment=quickstart", "seed=auto"], {}, "seed=auto adds seeds until each loss is decided"),
        (["experiment=quickstart", "loss=focal", "optimizer.lr=1,2"], {}, "give losses several settings: before any"),
        (["experiment=quickstart", "zip=[loss,optimizer.lr]"], {}, "a plan has one setting for all losses"),
        (
            [],
            {"preset": "nano", "metric": "test/top1"},
            "--metric test/top1: the noise figures of nano are of test",
        ),
        ([], {"preset": "nano", "baseline": "square"}, "--baseline square: the noise figures of nano are of cross_ent"),
        ([], {"preset": "nano", "where": ["a=b"]}, "--where and --tune choose among runs"),
        ([], {"preset": "nano", "power": 1.0}, "--power must be from 0.5 to below 1, not 1"),
        ([], {"preset": "nano", "detect": -1.0}, "--detect must be above 0, and finite, not -1"),
        ([], {"preset": "nano", "detect": float("inf")}, "--detect must be above 0, and finite, not inf"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(words: list[str], options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_plan(words, **options)  # type: ignore[arg-type]


def test_a_loss_is_found_however_it_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(FIGURE, loss="focal:gamma=1", std=0.03)
    monkeypatch.setattr(command, "read_figures", lambda: [own, FIGURES[1]])
    for word in ("focal:gamma=1", "focal(gamma=1.0)"):
        made = make_plan(["experiment=quickstart", f"loss=cross_entropy,{word}", "trainer.max_steps=240", "seed=3"])
        assert made.losses[0].seeds == seeds_for(0.01 / own.deviation.upper()) and made.losses[0].loss == word
        assert made.notes[1:] == ["seed=3 is left out: the plan says which seeds"], "240 steps are the preset's"
    assert "focal was not measured: it is planned with the deviation of focal:gamma=1, the largest that was" in (
        make_plan(["experiment=quickstart", "loss=focal"]).notes
    )


@pytest.mark.parametrize("word", ["loss=focl", "model.widht=8"])
def test_a_misspelt_word_is_answered_before_missing_figures(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_figures", list)
    with pytest.raises(UserError, match="did you mean"):
        make_plan(["experiment=quickstart", word])


def test_without_figures_one_sentence_says_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_figures", list)
    pilot = r"losslab train -m experiment=quickstart loss=cross_entropy,focal seed=1,2,3,4,5,6,7,8 && losslab plan"
    with pytest.raises(UserError, match=rf"they come from scripts/benchmark noise, .* {pilot} outputs/quickstart$"):
        make_plan(["experiment=quickstart", "loss=focal"])


def test_what_cannot_be_planned_says_why(tmp_path: Path) -> None:
    one = Sweep(tmp_path / "one")
    for seed in (1, 2, 3):
        one.add("cross_entropy", seed, 3.0 + seed)
    with pytest.raises(UserError, match=r"holds one loss, cross_entropy, .* loss=cross_entropy,OTHER"):
        make_plan([str(tmp_path / "one")])
    one.add("square", 4, 3.0)
    with pytest.raises(UserError, match=r"no seed that a loss shares with cross_entropy: .* give each loss 8 seeds"):
        make_plan([str(tmp_path / "one")])
    sweep = Sweep(tmp_path / "other")
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed, metrics={"test/error": 0.1 * seed})
        sweep.add("square", seed, 3.5 + seed, metrics={"test/error": 0.3 * seed})
    with pytest.raises(UserError, match="do not vary from seed to seed"):
        make_plan([str(tmp_path / "other")])
    with pytest.raises(UserError, match=r"no difference of test/error is customary .* --detect 0.01"):
        make_plan([str(tmp_path / "other")], metric="test/error")


def test_a_sweep_that_grows_by_itself_and_seeds_of_single_streams_have_no_plan(tmp_path: Path) -> None:
    c = comparison_of(pilot(tmp_path / "whole", {"square": 0.02}, 3))
    terms = Terms(
        metric=c.metric,
        higher_is_better=False,
        margin=0.01,
        level=0.05,
        max_seeds=40,
        first_seed=1,
        baseline="cross_entropy",
        losses={"cross_entropy": {}, "square": {}},
        threads=1,
    )
    with pytest.raises(UserError, match="adds seeds by itself until each loss is decided"):
        plan_of_folder(replace(c, growing=Growing(terms, {}, {})), power=0.8)
    sweep = Sweep(tmp_path / "streams")
    for order in (1, 2, 3):
        for loss, value in (("cross_entropy", 3.0), ("square", 3.1)):
            sweep.add(loss, 1, value + 0.01 * order**2 * (loss == "square"), changes={"seeds.data_order": order})
    with pytest.raises(UserError, match=r"vary the seeds of single streams \(data_order\)"):
        plan_of_folder(comparison_of(sweep), power=0.8)


def test_a_table_of_results_has_seeds_and_no_command(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).standard_normal(8)
    lines = [f"cross_entropy,{i},3.0\nsquare,{i},{3.1 + 0.02 * own}" for i, own in enumerate(noise)]
    table = tmp_path / "results.csv"
    table.write_text("\n".join(["loss,seed,test/nll_scaled", *lines]))
    made = losslab.plan(table)
    assert made.seeds["square"] and made.seconds is None and made.commands == []
    assert str(made).endswith("nothing says how these runs were made, and so there is no command.")
