"""Lightning's flags of a Trainer: values, lengths in passes, identity, and what serves instead of those we lack."""

from __future__ import annotations

import inspect
from dataclasses import asdict, fields
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from losslab.choices import conf_dir
from losslab.config.check import check_run
from losslab.config.compose import compose_plain, group_choices
from losslab.config.flags import check_flags, debug_of, describe_passes, needs_passes, resolve_passes
from losslab.config.identity import fingerprint, folder_name
from losslab.config.schema import TrainerConfig
from losslab.config.trust import check_trusted, foreign_targets
from losslab.errors import UserError

WRONG = [
    ({"limit_train_batches": 0}, "trainer.limit_train_batches must be a whole number of batches above 0, or a share"),
    ({"limit_train_batches": -1}, "or a share of them up to 1.0, not -1"),
    ({"limit_train_batches": 1.5}, "not 1.5"),
    ({"limit_val_batches": "x"}, "trainer.limit_val_batches must be a whole number of batches above 0"),
    ({"limit_test_batches": True}, "not True"),
    ({"overfit_batches": float("nan")}, "trainer.overfit_batches must be"),
    ({"overfit_batches": 2, "limit_val_batches": 3}, "leave out trainer.limit_val_batches=3"),
    ({"overfit_batches": 2, "limit_train_batches": 0.5}, "leave out trainer.limit_train_batches=0.5"),
    (
        {"fast_dev_run": True, "overfit_batches": 3},
        "trainer.fast_dev_run has limits of its own: leave out",
    ),
    ({"fast_dev_run": 0}, "trainer.fast_dev_run must be true, or a number of optimizer steps above 0, not 0"),
    ({"fast_dev_run": 2.5}, "not 2.5"),
    ({"fast_dev_run": "yes"}, "not 'yes'"),
    ({"fast_dev_run": float("inf")}, "not inf"),
    (
        {"val_check_interval": 1.5},
        "a share of a pass over train up to 1.0, not 1.5",
    ),
    ({"val_check_interval": -0.5}, "trainer.val_check_interval must be above 0, not -0.5"),
    ({"val_check_interval": "often"}, "not 'often'"),
    ({"profiler": "smple"}, "trainer.profiler cannot be 'smple': did you mean 'simple'?"),
    ({"profiler": {"dirpath": "x"}}, "trainer.profiler has no _target_"),
    ({"detect_anomaly": True, "precision": "16-mixed"}, "trainer.detect_anomaly does not go with trainer.precision"),
    ({"max_epochs": 3, "max_steps": 4}, "give trainer.max_steps or trainer.max_epochs, not both"),
    ({"max_tokens": 3, "max_steps": 4}, "give trainer.max_steps or trainer.max_tokens, not both"),
]
BATCHES = {"train": 228.4, "val": 40.0, "test": 1.5}
LATE_GROUPS = sorted(
    {path.parent.name for path in conf_dir().glob("*/*.yaml") if "_target_" in path.read_text(encoding="utf-8")}
)
"""Groups of conf/ whose files name code."""


def flags(**given: Any) -> dict[str, Any]:
    mistakes: list[str] = []
    checked = check_flags(asdict(TrainerConfig(**given)), mistakes)
    assert not mistakes
    return checked


@pytest.mark.parametrize(("given", "answer"), WRONG, ids=str)
def test_a_wrong_value_of_a_flag_is_one_sentence(given: dict[str, Any], answer: str) -> None:
    mistakes: list[str] = []
    check_flags(asdict(TrainerConfig(**given)), mistakes)
    (said,) = mistakes
    assert answer in said


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"fast_dev_run": True}, "fast_dev_run", 1),
        ({"fast_dev_run": False}, "fast_dev_run", None),
        ({"fast_dev_run": 3.0}, "fast_dev_run", 3),
        ({"limit_val_batches": 1.0}, "limit_val_batches", None),
        ({"limit_val_batches": 1}, "limit_val_batches", 1),
        ({"limit_val_batches": 1e3}, "limit_val_batches", 1000),
        ({"overfit_batches": 1.0}, "overfit_batches", 1.0),
        ({"val_check_interval": 1e3}, "val_check_interval", 1000),
        ({"val_check_interval": 1.0}, "val_check_interval", 1.0),
    ],
    ids=str,
)
def test_a_flag_has_one_spelling(given: dict[str, Any], key: str, value: object) -> None:
    found = flags(**given)[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_epochs": 3}, {"max_steps": 686, "max_epochs": None}),
        ({"max_epochs": 3, "limit_train_batches": 0.1}, {"max_steps": 66, "limit_train_batches": 22}),
        ({"max_epochs": 20, "overfit_batches": 3}, {"max_steps": 60}),
        ({"val_check_interval": 0.25}, {"val_check_interval": 57}),
        ({"val_check_interval": 0.5, "limit_train_batches": 10}, {"val_check_interval": 5}),
        ({"limit_val_batches": 0.1, "limit_test_batches": 2}, {"limit_val_batches": 4, "limit_test_batches": None}),
        ({"limit_train_batches": 228}, {"limit_train_batches": 228}),
        ({"limit_train_batches": 229}, {"limit_train_batches": None}),
        ({"overfit_batches": 1.0}, {"overfit_batches": 228}),
        ({"overfit_batches": 500}, {"overfit_batches": 228}),
    ],
    ids=str,
)
def test_shares_and_passes_become_batches_and_steps(given: dict[str, Any], expected: dict[str, Any]) -> None:
    trainer = flags(**given)
    assert needs_passes(trainer)
    config, worked_out = resolve_passes({"trainer": trainer}, BATCHES)
    assert {key: config["trainer"][key] for key in expected} == expected
    assert len(describe_passes(worked_out)) == len(worked_out)
    again, nothing = resolve_passes(config, BATCHES)
    assert (again, nothing) == (config, {})


@pytest.mark.parametrize(
    ("given", "batches", "answer"),
    [
        (
            {"limit_train_batches": 0.004},
            {},
            "of the 228.4 batches of train is not one batch: give a whole number, or 0.00",
        ),
        ({"limit_test_batches": 0.5}, {}, "trainer.limit_test_batches=0.5 of the 1.5 batches of test is not one batch"),
        ({"val_check_interval": 0.25, "overfit_batches": 3}, {}, "is not one optimizer step"),
        ({"val_check_interval": 0.25}, {"train": None}, "this data does not say how many samples one has"),
        ({"max_epochs": 2}, {"train": None}, "give trainer.max_steps"),
        ({"limit_train_batches": 0.5}, {"train": None}, "give a whole number"),
        ({"overfit_batches": 0.5}, {"train": 0.9}, "or a smaller data.batch_size"),
    ],
    ids=str,
)
def test_a_length_that_is_none_is_refused(given: dict[str, Any], batches: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_passes({"trainer": flags(**given)}, BATCHES | batches)
    assert answer in str(caught.value)


def test_only_flags_that_change_numbers_are_in_the_identity(settle) -> None:
    inputs = {"data.corpus": "c" * 64}
    plain = fingerprint(settle(), inputs)
    for typed in ("trainer.profiler=simple", "trainer.detect_anomaly=true", "trainer.limit_val_batches=1.0"):
        assert fingerprint(settle(typed), inputs) == plain, typed
        assert not debug_of(settle(typed))
    changing = [f"trainer.{key}=2" for key in ("fast_dev_run", "overfit_batches", "limit_val_batches")]
    assert len({fingerprint(settle(typed), inputs) for typed in changing} - {plain}) == len(changing)
    assert debug_of(settle(changing[0])) == {"trainer.fast_dev_run": 2}
    trainer = settle(changing[0], "trainer.max_steps=100")["trainer"]
    assert (trainer["max_steps"], trainer["val_check_interval"]) == (2, 2)


@pytest.mark.parametrize("path", sorted((conf_dir() / "debug").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_is_small_and_says_itself_in_the_name_of_the_folder(path, settle) -> None:
    typed = f"debug={path.stem}"
    config = settle(typed)
    assert config["name"] == "debug"
    assert config["trainer"]["max_steps"] <= 60
    preset = yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]
    name = folder_name(config, compose_plain(group_choices([typed])), {"loss": "cross_entropy"}, "f" * 64)
    assert next(iter(preset)) in name or path.stem == "profiler"


@pytest.mark.parametrize("key", [key for key in inspect.signature(Trainer.__init__).parameters if key != "self"])
def test_every_key_of_lightnings_trainer_is_ours_or_has_a_sentence(key: str) -> None:
    if key in {field.name for field in fields(TrainerConfig)}:
        return
    for typed in (f"trainer.{key}=1", f"+trainer.{key}=1"):
        with pytest.raises(UserError) as caught:
            check_run(compose_plain([typed]))
        said = str(caught.value)
        assert said.startswith(f"there is no key 'trainer.{key}': ")
        assert "trainer has" not in said
        assert "did you mean" not in said


@pytest.mark.parametrize("group", [*LATE_GROUPS, "trainer.profiler"])
@pytest.mark.parametrize("target", ["my_package.Mine", "os.system"])
def test_a_stored_configuration_runs_no_foreign_code_of_any_group(group: str, target: str, settle) -> None:
    config = settle()
    node = {"_target_": target}
    if group == "trainer.profiler":
        config["trainer"]["profiler"] = node
    else:
        named = isinstance(config.get(group), dict) and "_target_" not in config[group]
        config[group] = {"mine": node} if named else node
    answer = "--trust my_package.Mine" if target != "os.system" else "os.system"
    with pytest.raises(UserError, match=answer):
        check_trusted(config, [])
    if target != "os.system":
        check_trusted(config, [target])
        assert foreign_targets(config) == [target]
