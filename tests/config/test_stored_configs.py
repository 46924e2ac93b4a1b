"""Configurations of runs made before a key was there."""

from pathlib import Path

import pytest

from losslab.config import stored
from losslab.config.compose import typed
from losslab.config.identity import fingerprint
from losslab.config.stored import filled, moved_inputs, override
from losslab.config.words import ready
from losslab.errors import UserError


def test_a_key_that_a_stored_configuration_lacks_has_its_old_value(settle, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settle()
    del config["trainer"]["threads"], config["trainer"]["deterministic"]
    monkeypatch.setattr(stored, "ADDED_LATER", {"trainer.threads": 7})
    found = filled(config, Path("config.yaml"))["trainer"]
    assert (found["threads"], found["deterministic"]) == (7, False)


def test_a_text_from_before_rules_were_there_is_cut_as_it_was(settle) -> None:
    from losslab.config.binding import bind_components

    config = settle("data=text", "data.path=book.txt")
    assert config["data"]["rules"] == 2
    for key in ("rules", "separator", "val_path", "test_path", "val_fraction", "test_fraction"):
        del config["data"][key]
    found = bind_components(filled(config, Path("config.yaml")))["data"]
    assert (found["rules"], found["separator"], found["val_path"], found["val_fraction"]) == (1, None, None, None)


@pytest.mark.parametrize("separator", ["<|endoftext|>", "</s>", "---", r"\n\n", "a,b", "x=1", "it's", r"re:^Ch \d+$"])
def test_a_separator_of_any_characters_is_read_as_it_is_typed(separator: str) -> None:
    assert typed(ready(f"data.separator={separator}")) == ("data.separator", separator)
    assert (
        override({"data": {}}, [f"data.separator={separator}"], ("data.separator",))["data"]["separator"] == separator
    )


@pytest.mark.parametrize("written", ["null", ""])
def test_a_separator_can_be_taken_away(written: str) -> None:
    assert override({"data": {}}, [f"data.separator={written}"], ("data.separator",))["data"]["separator"] is None


TENSORBOARD = {"tensorboard": {"_target_": "losslab.loggers.tensorboard.TensorBoard"}}


@pytest.mark.parametrize(
    ("before", "loggers"), [({"enabled": True}, TENSORBOARD), ({"enabled": False}, {}), (None, TENSORBOARD)]
)
def test_a_run_from_before_there_were_several_loggers_keeps_its_own(settle, before, loggers) -> None:
    config = settle("data=text", "data.path=book.txt")
    del config["loggers"]
    found = filled(config | ({} if before is None else {"logger": before}), Path("config.yaml"))
    assert found["loggers"] == loggers and "logger" not in found
    inputs = {"data.path": "0" * 64}
    assert fingerprint(found, inputs) == fingerprint(config | {"logger": before}, inputs)


@pytest.mark.parametrize(("before", "said"), [("yes", "not 'yes'"), ({"enabled": 3}, "not {'enabled': 3}")])
def test_a_logger_from_before_that_losslab_did_not_write_is_refused(settle, before, said: str) -> None:
    config = settle() | {"logger": before}
    del config["loggers"]
    with pytest.raises(UserError, match="logger must hold keys of its own") as caught:
        filled(config, Path("config.yaml"))
    assert said in str(caught.value)


def test_other_loggers_can_be_given_to_a_run_that_goes_on(settle) -> None:
    config, allowed = settle(), ("loggers",)
    several = override(config, ["loggers=[csv,mlflow]", "loggers.csv.flush_logs_every_n_steps=2"], allowed)["loggers"]
    assert several["csv"]["flush_logs_every_n_steps"] == 2 and several.keys() == {"csv", "mlflow"}
    assert override(config, ["loggers=none"], allowed)["loggers"] == {}
    with pytest.raises(UserError, match="there is no loggers named 'tensorbord': did you mean 'tensorboard'"):
        override(config, ["loggers=tensorbord"], allowed)
    with pytest.raises(UserError, match="no key 'logger': write loggers="):
        override(config, ["logger=none"], allowed)
    assert config["loggers"].keys() == {"tensorboard"}


def test_a_list_of_files_is_found_where_it_was_moved_to(settle, tmp_path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    old = [f"/gone/{name}" for name in ("a.csv", "b.csv")]
    config = settle("task=classification", "data=csv", "data.path=x.csv")
    config["data"]["path"] = old
    moved = moved_inputs(config, tmp_path / "run", "/gone/run", [])
    assert moved["data"]["path"] == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    with pytest.raises(UserError, match=r"/gone/a.csv, from which this run was made, is not there: .*data.path="):
        moved_inputs(config, tmp_path / "run", "/elsewhere/run", [])
    given = override(config, ["data.path=[a.csv, ~/b.csv]"], ("data.path",))
    assert given["data"]["path"] == [str(Path("a.csv").absolute()), str(Path("~/b.csv").expanduser())]


def test_a_table_elsewhere_takes_the_place_of_no_corpus() -> None:
    moved = override({"data": {"path": "a.csv"}}, ["data.path=b.csv"], ("data.path",))
    assert moved["data"].keys() == {"path"}, "rows have no key `corpus`, which is then refused"
    text = override({"data": {"path": None, "corpus": "python_docs"}}, ["data.path=b.txt"], ("data.path",))
    assert text["data"]["corpus"] is None
