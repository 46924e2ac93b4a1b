"""Noise figures of presets: written, read and chosen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_figures import NANO

from losslab.comparison.noise_figures import FILE, figures_of, read_figures, write_figures
from losslab.errors import UserError

MICRO = replace(NANO, preset="micro", words=["experiment=quickstart", "model/size=micro"], std=0.03)


def test_the_shipped_file_can_be_read() -> None:
    assert FILE.is_file() == bool(read_figures())


def test_a_preset_is_measured_again_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert read_figures(path) == []
    write_figures([NANO, MICRO], path)
    again = replace(NANO, std=0.012, machine="4 cores")
    write_figures([again], path)
    assert read_figures(path) == [MICRO, again]
    assert again.deviation.std == 0.012 and again.deviation.df == 23


def test_words_choose_the_preset_with_the_most_of_them() -> None:
    known = [NANO, MICRO, replace(MICRO, loss="poly1")]
    assert figures_of(known, words=["experiment=quickstart", "trainer.max_steps=100"]) == [NANO]
    assert figures_of(known, words=["model/size=micro", "experiment=quickstart"]) == known[1:]
    assert figures_of(known, words=["model/size=micro"]) == []
    assert figures_of(known, preset="micro") == known[1:] and figures_of(known, preset="huge") == []


@pytest.mark.parametrize("changed", [{"std": 0}, {"std": "0.1"}, {"words": "experiment=quickstart"}, {"df": None}])
def test_a_damaged_file_is_named(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "figures.json"
    write_figures([NANO], path)
    content = json.loads(path.read_text())
    content["figures"][0] |= changed
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"figures.json cannot be read.*{next(iter(changed))}"):
        read_figures(path)
