"""Declarations of metrics in a record: those that it keeps, and those that it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from losslab.console import figure
from losslab.errors import UserError
from losslab.metric import Metric, better, from_info, to_info
from losslab.metrics.table import METRICS, PRIMARY
from losslab.migrations import migrate
from losslab.records import FILE, Record, read

RMSE = Metric(
    "rmse", "root mean squared error", "cm", higher_is_better=False, margin=0.1, shown=frozenset({"terminal"})
)
BIAS = Metric("bias", "mean error", "cm", higher_is_better=None)


def test_declarations_come_back_from_the_file_in_their_order(tmp_path: Path) -> None:
    record = Record(identity="a", name="first")
    record.declare([RMSE, BIAS], "rmse")
    record.write(tmp_path)
    found = read(tmp_path)
    assert list(found.declared.values()) == [RMSE, BIAS], "not by their names"
    assert (found.primary, found.primary_metric) == ("rmse", RMSE)
    assert json.loads((tmp_path / FILE).read_text())["metrics_info"]["rmse"] == {
        "label": "root mean squared error",
        "unit": "cm",
        "higher_is_better": False,
        "margin": 0.1,
        "shown": ["terminal"],
    }


def test_a_place_shows_the_metrics_with_its_tag_and_the_primary_one() -> None:
    record = Record(identity="a", name="first")
    record.declare([BIAS, RMSE._replace(shown=frozenset()), RMSE._replace(name="mae")], "rmse")
    assert record.names_shown("terminal") == ["rmse", "mae"]
    assert record.names_shown("curves") == ["rmse"]


@pytest.mark.parametrize(
    ("metrics", "primary", "reason"),
    [
        ([RMSE], "mae", "task: its primary metric 'mae' is not among its metrics: rmse"),
        ([RMSE, BIAS], "bias", "task: its primary metric 'bias' needs a better side: higher_is_better=True or False"),
        ([RMSE, RMSE], "rmse", "task: it declares the metric 'rmse' twice"),
        ([RMSE._replace(name="test/rmse")], "test/rmse", "task: 'test/rmse' cannot name a metric"),
        ([RMSE, RMSE._replace(name="step")], "rmse", "task: 'step' cannot name a metric"),
        (
            [RMSE._replace(shown=frozenset({"termnal"}))],
            "rmse",
            "task: its metric rmse has the tag 'termnal'; there are ",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_in_one_sentence(metrics: list[Metric], primary: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        Record(identity="a", name="first").declare(metrics, primary)
    assert str(caught.value).startswith(reason) and "\n" not in str(caught.value)


def test_a_run_that_has_begun_keeps_what_it_chose_its_best_checkpoint_by() -> None:
    record = Record(identity="a", name="first")
    record.declare([RMSE, BIAS], "rmse")
    record.declare([RMSE._replace(higher_is_better=True)], "rmse")
    record.step = 100
    record.declare([RMSE._replace(higher_is_better=True, label="skill"), BIAS], "rmse")
    assert record.primary_metric.label == "skill", "words may change"
    with pytest.raises(
        UserError, match="by the largest rmse up to step 100, and would now choose it by the smallest rmse"
    ):
        record.declare([RMSE], "rmse")
    with pytest.raises(UserError, match="by the smallest mae"):
        record.declare([RMSE._replace(name="mae")], "mae")


@pytest.mark.parametrize(
    "damage",
    [
        {"metrics_info": {"rmse": 1}},
        {"metrics_info": {"rmse": {"label": "x"}}},
        {"metrics_info": to_info([RMSE], "rmse"), "primary": "mae"},
        {"metrics_info": to_info([RMSE, BIAS], "rmse"), "primary": "bias"},
        *(
            {"metrics_info": {"rmse": to_info([RMSE], "rmse")["rmse"] | wrong}, "primary": "rmse"}
            for wrong in (
                {"unit": 1},
                {"higher_is_better": "yes"},
                {"margin": 10**400},
                {"shown": [1]},
                {"shown": "no"},
            )
        ),
    ],
)
def test_damaged_declarations_are_refused_in_one_sentence(damage: dict[str, Any], tmp_path: Path) -> None:
    Record(identity="a", name="first").write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | damage))
    with pytest.raises(UserError, match="metrics_info that declares no metrics; move it away") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_runs_from_before_declare_what_a_language_model_had_and_compare_with_runs_of_today() -> None:
    """Whoever changes a label, unit or side in the table lets no old run be compared with a new one."""
    old = migrate({"schema": 4, "identity": "a", "name": "first", "yardsticks": {}})
    assert old["primary"] == "nll_scaled"
    today = from_info(to_info(METRICS, PRIMARY))
    assert len(old["metrics_info"]) == 25
    for name, metric in from_info(old["metrics_info"]).items():
        assert metric[:4] == today[name][:4]


def test_better_follows_the_side() -> None:
    assert better(RMSE, 1.0, 2.0) and not better(RMSE, 2.0, 1.0) and not better(RMSE, 1.0, 1.0)
    assert better(RMSE._replace(higher_is_better=True), 2.0, 1.0)


def test_a_number_is_better_than_nan_and_nan_than_nothing() -> None:
    lower, higher = (Metric("m", "m", "", side) for side in (False, True))
    for metric, good, bad in ((lower, 1.0, 2.0), (higher, 2.0, 1.0)):
        assert better(metric, good, bad) and not better(metric, bad, good) and not better(metric, good, good)
        assert better(metric, bad, math.nan)
        assert not better(metric, math.nan, bad) and not better(metric, math.nan, math.nan)


def test_a_value_that_is_not_defined_is_shown_as_a_dash() -> None:
    assert figure(math.nan).strip() == figure(None).strip() == "—"
