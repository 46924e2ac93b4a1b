"""`losslab losses`: the table, the cards, and what a person's own class gets."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from losslab import cli, console
from losslab.choices import conf_dir
from losslab.conformance.catalogue import SECTIONS, catalogue, find
from losslab.conformance.docstrings import arguments, read_docstring
from losslab.errors import UserError

NAMES = {path.stem for path in (conf_dir() / "loss").glob("*.yaml")}
OWN = '''
from losslab.losses.base import Loss


class Taylor(Loss):
    """Cross-entropy's series in 1 - p_y, cut off (Feng et al. 2020)."""

    def __init__(self, *, order: int = 2):
        super().__init__()
        self.order = order

    def from_log_prob(self, log_p_y):
        return sum((-log_p_y.expm1()) ** i / i for i in range(1, self.order + 1))


class Wanting(Loss):
    def __init__(self, *, power: float, other: int = 3):
        super().__init__()

    def position_loss(self, logits, target):
        return logits.sum(dim=-1)


class NoLoss:
    pass
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """my_own.py in the current folder, and own_conf/loss/taylor.yaml."""
    (tmp_path / "my_own.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "own_conf" / "loss").mkdir(parents=True)
    (tmp_path / "own_conf" / "loss" / "taylor.yaml").write_text("_target_: my_own.Taylor\norder: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    return tmp_path


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`losslab losses` with arguments, in this process: exit code, standard output and error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["losslab", "losses", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return stopped.value.code or 0, said.out, said.err

    return call


def test_the_table_has_a_whole_line_for_each_loss(losses) -> None:
    code, out, _ = losses()
    rows = {line.split()[0]: line for line in out.splitlines()[1:] if line}
    assert code == 0 and rows.keys() >= NAMES
    for entry in catalogue():
        assert entry.paper in rows[entry.name] and rows[entry.name].endswith(entry.idea)
        assert entry.target_kind.value in rows[entry.name]
    assert rows["square"].split()[1:4] == ["classes", "F5", "no"] and rows["mse"].split()[1:4] == ["values", "–", "–"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_the_table_is_as_wide_as_it(width: int, losses, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=width, color_system=None, soft_wrap=True)
    monkeypatch.setattr(console, "out", terminal)
    assert losses()[0] == 0
    lines = terminal.file.getvalue().splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= width
    assert all(any(line.startswith(f"{name} ") for line in table) for name in NAMES)
    assert "…" not in "".join(table)


@pytest.mark.parametrize("name", ["focal", "sum", "mse", "distillation"])
def test_a_card_says_all_of_it(name: str, losses) -> None:
    code, out, _ = losses(name)
    entry = find(name)
    assert code == 0 and out.startswith(f"{name}  {entry.title}: {entry.idea}")
    assert all(f"{heading} " in out and text in out for heading, text in entry.sections.items())
    assert all(f"{key.name}: " in out and key.meaning in out for key in entry.keys)
    assert f"losslab check {name}" in out and "Written" in out
    assert ("losslab train task=regression" if name == "mse" else f"losslab train loss={name}") in out
    assert "loss.teacher=RUN_DIR" in out or name != "distillation"


def test_a_name_that_there_is_not_is_answered_by_the_nearest(losses) -> None:
    code, out, err = losses("focl")
    assert (code, out) == (2, "")
    assert err.strip() == "losslab: there is no loss named 'focl': did you mean 'focal'?"


def test_programs_get_the_same(losses) -> None:
    code, out, _ = losses("--json")
    rows = {row["name"]: row for row in json.loads(out)["losses"]}
    assert code == 0 and rows.keys() == NAMES
    assert list(rows["brier"]["sections"]) == list(SECTIONS) and rows["brier"]["is_proper"] is True
    focal = json.loads(losses("focal", "--json")[1])
    assert focal == rows["focal"]
    meaning = "γ, 0 or above; 0 is cross-entropy."
    assert focal["keys"][0] == {"name": "gamma", "default": 2.0, "meaning": meaning, "required": False}
    assert focal["commands"] == [
        "losslab check focal",
        "losslab bench loss=cross_entropy,focal",
        "losslab train loss=focal",
    ]


def test_a_class_of_one_s_own_gets_a_card_of_what_there_is(own: Path, losses) -> None:
    code, out, _ = losses("my_own.Taylor")
    assert code == 0 and "series in 1 - p_y" in out and "order: 2" in out and "losslab check my_own.Taylor" in out
    assert "F1" in out and "from_log_prob" in out and "Formula" not in out
    code, out, _ = losses("my_own.Wanting")
    assert code == 0 and "power: required" in out and "losslab check my_own.Wanting loss.power=VALUE" in out


def test_a_card_says_which_function_holds_the_loss(own: Path) -> None:
    (own / "my_forward.py").write_text(
        "from losslab.losses.base import Loss\n\n\nclass Sampled(Loss):\n    def forward(self, features, projection):\n"
        "        return self.draw(features, projection)\n",
        encoding="utf-8",
    )
    sys.path.append(str(own))
    entries = [find(name) for name in ("focal", "square", "logit_adjustment", "my_own.Taylor", "my_forward.Sampled")]
    ways = ["from_log_prob", "position_loss", "position_loss", "from_log_prob", "forward"]
    assert [entry.written_as for entry in entries] == ways
    assert [entry.own_forward for entry in entries] == [False, True, False, False, True]


def test_a_folder_of_one_s_own_joins_the_table(own: Path, losses) -> None:
    assert "\ntaylor " in losses("--config-dir", "own_conf")[1]
    code, out, _ = losses("taylor", "--config-dir", "own_conf")
    assert code == 0 and "order: 3" in out and "losslab train loss=taylor --config-dir own_conf" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_own.Tailor", "did you mean 'Taylor'?"),
        ("my_own.NoLoss", "must derive from losslab.losses.base.Loss"),
        ("nowhere.Loss", "No module named 'nowhere'"),
        ("tailor", "did you mean 'taylor'?"),
    ],
)
def test_what_is_no_loss_is_refused(name: str, said: str, own: Path) -> None:
    sys.path.append(str(own))
    with pytest.raises(UserError) as refused:
        find(name, own / "own_conf")
    assert said in str(refused.value)


def test_a_docstring_is_read_in_sections() -> None:
    class Some:
        """Name: what it is.

        More of it,
        in two lines.

        Formula:
            a =
            b
        Args:
            first: one,
                and more.
            second (int): two.
        """

    title, idea, about, sections = read_docstring(Some)
    assert (title, idea, about) == ("Name", "what it is", "More of it, in two lines.")
    assert list(sections) == ["Formula", "Args"] and sections["Formula"].split() == ["a", "=", "b"]
    assert arguments(sections["Args"]) == {"first": "one, and more.", "second": "two."}
    assert read_docstring(type("Bare", (), {})) == ("Bare", "", "", {})
