"""New runs under an old name, and a warm-up as long as the run: told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslab.commands.forgotten import Forgotten, find_forgotten
from losslab.commands.train import train
from losslab.config.check import check_run, check_warmup, resolve_budget
from losslab.config.compose import compose_job
from losslab.errors import UserError
from losslab.records import Record, write_config

EARLIER = ["name=first", "trainer.max_steps=120", "optimizer.lr=1e-3", "data.vocab_size=512"]


def checked(*typed: str) -> tuple[dict[str, Any], dict[str, str]]:
    config, choices = compose_job(list(typed))
    return check_run(config), choices


def find(*typed: str) -> Forgotten | None:
    return find_forgotten([checked(*typed)], [word.partition("=")[0] for word in typed])


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of 120 steps, and one that came to nothing."""
    monkeypatch.chdir(tmp_path)
    for seed, status in ((1, "completed"), (2, "interrupted"), (3, "failed")):
        typed = [*EARLIER, f"seed={seed}"] if status != "failed" else ["name=first"]
        config, choices = checked(*typed)
        folder = tmp_path / "outputs" / "first" / f"run{seed}"
        folder.mkdir(parents=True)
        config["trainer"]["max_steps"] = config["trainer"]["max_steps"] or 1000
        config["model"]["tie_embeddings"] = True  # which null means here
        write_config(folder, config)
        Record(identity=str(seed), name="first", status=status, provenance={"choices": choices}).write(folder)
    return tmp_path / "outputs" / "first"


def test_forgotten_flags_are_named_with_both_values(sweep: Path) -> None:
    found = find("name=first", "seed=3")
    assert found is not None
    assert found.sentence == (
        "all 2 runs in outputs/first have other values than the new ones for data.vocab_size (512; now 4096), "
        "optimizer.lr (0.001; now 0.003), trainer.max_steps (120; now 1000)"
    )
    assert found.way_out.endswith("another name=…, or --yes if you mean it")
    assert find("name=first", "trainer=gpu", "data=python_docs", "optimizer.lr=1") is not None, "max_steps is forgotten"


@pytest.mark.parametrize(
    "more",
    [
        ["seed=7"],
        ["loss=focal", "loss.gamma=1"],
        ["trainer.max_steps=240"],
        ["optimizer.lr=3e-3"],
        ["model/size=micro"],
        ["model.dropout=0.1", "regularizers.z_loss=1e-4"],
        ["trainer.threads=2", "loggers=none"],
    ],
    ids=" ".join,
)
def test_what_is_typed_is_meant(sweep: Path, more: list[str]) -> None:
    keys = [word.partition("=")[0] for word in more]
    assert find(*(word for word in EARLIER if word.partition("=")[0] not in keys), *more) is None


def test_a_sweep_with_some_run_like_the_earlier_ones_goes_on(sweep: Path) -> None:
    new = [checked(*EARLIER), checked("name=first", "trainer.max_steps=120")]
    assert find_forgotten(new, ["name", "seed"]) is None


def test_folders_without_a_name_of_their_own_hold_anything(sweep: Path) -> None:
    sweep.rename(sweep.with_name("runs"))
    assert find("seed=3") is None
    assert find("name=second") is None


def test_forgotten_flags_are_refused_without_yes(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.commands.train._run_job", lambda *arguments: "completed")
    with pytest.raises(UserError, match=r"trainer\.max_steps \(120; now 1000\): give the same again"):
        train(["name=first"])
    assert train(["name=first", "--yes"]) == 0
    assert train(EARLIER) == 0


@pytest.mark.parametrize("scheduler", ["cosine", "constant"])
def test_a_typed_warm_up_ends_before_the_run_does(scheduler: str) -> None:
    def check(*typed: str) -> str | None:
        words = [f"scheduler={scheduler}", *typed]
        return check_warmup(checked(*words)[0], words)

    for typed in (["scheduler.warmup_steps=1001"], ["scheduler.warmup_steps=51", "trainer.max_steps=50"]):
        with pytest.raises(UserError, match=r"scheduler\.warmup_steps=\d+ is beyond the budget of \d+ optimizer"):
            check(*typed)
    with pytest.raises(UserError, match="budget of 2 optimizer steps"):
        check("scheduler.warmup_steps=3", "trainer.max_tokens=4096")
    assert check("scheduler.warmup_steps=50", "trainer.max_steps=50") is None
    assert check("scheduler.warmup_steps=0", "trainer.max_steps=1") is None
    note = check("trainer.max_steps=19")
    assert (note is None) == (scheduler == "constant")
    assert note is None or "a run of 19 optimizer steps ends within its warm-up of 20" in note


def test_a_value_that_follows_from_data_without_a_context_is_not_forgotten(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["name=first", "experiment=copying"]
    config, choices = checked(*typed)
    folder = tmp_path / "outputs/first/run1"
    folder.mkdir(parents=True)
    write_config(folder, resolve_budget(config))
    Record(identity="1", name="first", status="completed", provenance={"choices": choices}).write(folder)
    assert find(*typed, "seed=2") is None
