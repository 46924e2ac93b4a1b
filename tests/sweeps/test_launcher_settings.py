"""The keys of hydra.launcher: what is allowed, and one sentence for everything else."""

from __future__ import annotations

from typing import Any

import pytest

from losslab.config.jobs import open_multirun
from losslab.errors import UserError
from losslab.sweeps.settings import LocalSettings

DEFAULTS = {"slots": "auto", "on_error": "continue", "retries": 0, "time_limit": None}


def of(**changes: Any) -> LocalSettings:
    return LocalSettings.of(DEFAULTS | changes)


def test_the_shipped_settings_are_the_defaults() -> None:
    opened = open_multirun(["seed=1,2"])
    assert opened.launcher == "local"
    assert opened.settings == DEFAULTS
    assert of() == LocalSettings(slots=None, on_error="continue", retries=0, time_limit=None)


@pytest.mark.parametrize("slots", [1, 2, 1024])
def test_slots_may_be_a_number(slots: int) -> None:
    assert of(slots=slots).slots == slots


@pytest.mark.parametrize("retries", [0, 1, 100])
def test_retries_may_be_a_number(retries: int) -> None:
    assert of(retries=retries).retries == retries


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (None, None),
        (90, 90.0),
        (1.5, 1.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("90m", 5400.0),
        ("1.5h", 5400.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        (" 10m ", 600.0),
    ],
)
def test_a_time_limit_may_be_spelt_in_many_ways(limit: Any, seconds: float | None) -> None:
    assert of(time_limit=limit).time_limit == seconds


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        *(
            ({"slots": value}, "auto or a number from 1 to 1024")
            for value in (0, -1, 1025, True, 2.0, "2", "all", None)
        ),
        *(({"retries": value}, "a number from 0 to 100") for value in (-1, 101, True, 1.0, "1", None)),
        *(({"on_error": value}, "did you mean 'continue'?") for value in ("contineu", "Continue")),
        *(({"on_error": value}, "there are continue, stop") for value in (None, 0, "abort", ["stop", "continue"])),
        *(
            ({"time_limit": value}, "seconds, or such as 90m or 2h")
            for value in (0, -1, "0m", "h", "2 h", "2w", "1h30m", "90 minutes", "", "1e3", True, "nan", [1])
        ),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_with_its_key_and_what_is_allowed(changes: dict[str, Any], allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        of(**changes)
    told = str(caught.value)
    ((key, value),) = changes.items()
    assert told.startswith(f"hydra.launcher.{key} ")
    assert repr(value) in told and allowed in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("+hydra.launcher.slot=2", "did you mean 'hydra.launcher.slots'?"),
        ("+hydra.launcher.memory=2", "hydra.launcher.memory"),
        ("hydra.launcher.slot=2", "slot"),
        ("~hydra.launcher.slots", "hydra.launcher.slots cannot be taken away"),
    ],
)
def test_a_key_too_many_and_one_too_few_are_told(typed: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        LocalSettings.of(open_multirun(["seed=1,2", typed]).settings)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
