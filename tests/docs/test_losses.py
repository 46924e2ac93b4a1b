"""docs/losses.md and its plots are what scripts/docs makes of the losses as they are."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from losslab.choices import conf_dir
from losslab.config.schema import RegularizersConfig
from losslab.conformance.catalogue import SECTIONS, Entry, catalogue

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
ENTRIES = {entry.name: entry for entry in catalogue()}
NAMES = {path.stem for path in (conf_dir() / "loss").glob("*.yaml")}
OWN = {"taylor", "A", "B"}
"""Losses that the docs tell a person to write, and letters that stand for any."""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/docs.py."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    monkeypatch.delitem(sys.modules, "docs", raising=False)  # tests/docs, perhaps
    return importlib.import_module("docs")


def test_the_page_is_what_the_script_makes(scripts: ModuleType) -> None:
    assert scripts.page(list(ENTRIES.values())) == PAGE, "run scripts/docs"


def test_the_plots_are_what_the_script_draws(scripts: ModuleType) -> None:
    """By the points of their curves, for fonts differ between machines; in points, 72 to an inch."""
    assert {path.stem for path in (ROOT / "docs" / "losses").iterdir()} == NAMES
    for entry in ENTRIES.values():
        stored = points(scripts.plot_path(entry).read_text(encoding="utf-8"))
        drawn = points(scripts.draw(entry))
        assert stored.keys() == drawn.keys()
        for name in drawn:
            assert len(drawn[name]) > 200
            assert stored[name] == pytest.approx(drawn[name], abs=0.05), f"run scripts/docs: {entry.name} has changed"


def points(svg: str) -> dict[str, list[float]]:
    """The coordinates of each curve, by its name; of SVG that nothing makes differ between two calls."""
    assert "<dc:date>" not in svg
    found = re.findall(r'<g id="((?:loss|gradient)-\d)">\s*<path d="([^"]*)"', svg)
    assert {name.partition("-")[0] for name, _ in found} == {"loss", "gradient"}
    return {name: [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)] for name, path in found}


def test_a_second_drawing_is_the_same(scripts: ModuleType) -> None:
    assert scripts.draw(ENTRIES["focal"]) == scripts.draw(ENTRIES["focal"])


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_loss_says_everything_of_itself(entry: Entry) -> None:
    assert list(entry.sections) == list(SECTIONS) and all(entry.sections.values())
    assert entry.idea[:1].islower() and not entry.about, "one line, Name: the idea in a sentence; then the sections"
    assert [key.name for key in entry.keys if not key.meaning] == [], "Args says what each key is"
    assert f"[`{entry.name}`](#{entry.name})" in PAGE and f"\n### {entry.name}\n" in PAGE


def test_the_catalogue_is_complete() -> None:
    assert ENTRIES.keys() == NAMES
    node = yaml.safe_load((conf_dir() / "loss" / "square.yaml").read_text(encoding="utf-8"))
    assert {key.name: key.default for key in ENTRIES["square"].keys} == {"k": node["k"], "m": node["m"]}
    assert all(f"`regularizers.{field.name}`" in PAGE for field in fields(RegularizersConfig))
    assert "(maximum-likelihood.md)" in PAGE


def test_no_line_of_a_paragraph_begins_like_a_list() -> None:
    """Two lines of one paragraph: what follows the break would be read as Markdown's own."""
    second = [b for a, b in pairwise(PAGE.splitlines()) if a and not a.startswith("- ")]
    assert [line for line in second if re.match(r"\s*([=+>*#]|\d+\.)\s", line)] == []


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_the_losses_that_the_docs_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for names in re.findall(r"\bloss=([\w,]+)\b(?!\()", text) for name in names.split(",") if name}
    named |= set(re.findall(r"\bloss@loss\.\w+=(\w+)", text))
    named |= set(re.findall(r"losslab losses ([a-z]\w+)\b(?!\.)", text))
    assert named - NAMES - OWN == set()
