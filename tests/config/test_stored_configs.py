"""Configurations of runs made before a key was there."""

from pathlib import Path

import pytest

from losslab.config import stored
from losslab.config.compose import typed
from losslab.config.stored import filled, override
from losslab.config.words import ready


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
