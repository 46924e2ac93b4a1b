"""Components are called as people choose them."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import losslab
from losslab.choices import chosen, conf_dir
from losslab.data.rows import RowsDataModule
from losslab.errors import UserError
from losslab.losses.class_balanced import ClassBalanced
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.distillation import Distillation
from losslab.losses.mae import MAE
from losslab.losses.sum import Sum
from losslab.tasks.classification import Classification
from losslab.tasks.lm import LanguageModeling
from losslab.tasks.regression import Regression
from losslab.training.fitting import check_kinds

FILES = [path for group in ("loss", "model", "task") for path in sorted((conf_dir() / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_class_is_called_by_its_file(path) -> None:
    module, _, name = yaml.safe_load(path.read_text())["_target_"].rpartition(".")
    assert chosen(path.parent.name, getattr(import_module(module), name)) == f"{path.parent.name}={path.stem}"


def test_others_are_called_by_their_class() -> None:
    class Mine(LanguageModeling):
        pass

    assert chosen("task", Mine()) == "task=Mine"
    assert chosen("data", RowsDataModule) == "data=RowsDataModule", "several files name it"
    assert chosen("loss.inner", CrossEntropy()) == "loss.inner=cross_entropy"


@pytest.mark.parametrize(
    ("refuse", "told"),
    [
        (
            lambda: check_kinds(CrossEntropy(), Regression()),
            "loss=cross_entropy needs classes .* task=regression has",
        ),
        (lambda: check_kinds(MAE(), Classification()), "loss=mae needs values as targets, and task=classification has"),
        (lambda: ClassBalanced(inner=MAE()), "loss.inner=mae needs values as targets"),
        (lambda: Sum(first=CrossEntropy(), second=Distillation()), "loss.second=distillation has a teacher"),
    ],
    ids=["a task", "values", "within", "a term"],
)
def test_refusals_say_what_was_chosen(refuse, told: str) -> None:
    with pytest.raises(UserError, match=told):
        refuse()


def test_no_sentence_spells_a_class_behind_a_group() -> None:
    spelled = re.compile(r"(loss|model|task)=\{(type\(|name\}|kind\.)")
    sources = {path: path.read_text() for path in Path(losslab.__file__).parent.rglob("*.py")}
    assert len(sources) > 300
    assert [str(path) for path, text in sources.items() if spelled.search(text)] == []
