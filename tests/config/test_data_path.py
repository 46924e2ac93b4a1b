"""Data without files is refused in the words of the yaml that was chosen."""

from pathlib import Path
from typing import Any

import pytest

from losslab.choices import conf_dir
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.data_path import check_path
from losslab.config.schema import register
from losslab.errors import UserError

SETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if "data.path=" in path.read_text())
TOLD = {
    "trec": "data=trec data.path=FOLDER task=classification. FOLDER holds train.label and test.label, lines such as "
    '"NUM:date When was Ozzy Osbourne born ?"; docs/data_sets.md says where they are',
    "tinyshakespeare": "task=lm data=tinyshakespeare data.path=FOLDER, with input.txt in it. docs/data_sets.md says "
    "where it is",
    "jsonl": "data=jsonl data.path=FILE|DIR|GLOB (.csv, .tsv, .jsonl, .parquet, also .gz and .zst)",
    "text": "data=text data.path=FILE|DIR|GLOB, or data=python_docs",
}


def refusal(words: list[str], config_dir: Path | None = None) -> str:
    register()
    composed, choices = compose_job(words, config_dir)
    with pytest.raises(UserError) as caught:
        check_path(check_run(composed), choices, config_dir)
    return str(caught.value)


@pytest.mark.parametrize(("name", "told"), TOLD.items(), ids=TOLD)
def test_the_sentence_is_that_of_the_yaml(name: str, told: str) -> None:
    assert refusal([f"data={name}"]) == f"data.path is missing: {told}"


def config_of(name: str, **keys: Any) -> dict[str, Any]:
    target = "losslab.data.module.TextDataModule" if name == "text" else "losslab.data.rows.RowsDataModule"
    return {"data": {"_target_": target, "path": None} | keys}


@pytest.mark.parametrize("name", SETS)
def test_every_yaml_that_wants_files_names_itself(name: str) -> None:
    with pytest.raises(UserError, match=rf"^data.path is missing: .*data={name} .*data\.path="):
        check_path(config_of(name), {"data": name})


def test_data_with_files_or_without_need_of_them_passes() -> None:
    check_path(config_of("trec", path="questions"), {"data": "trec"})
    check_path(config_of("python_packages", source={"_target_": "x.Y"}), {"data": "python_packages"})
    check_path(config_of("text", corpus="python_docs"), {"data": "python_docs"})
    check_path({"data": {"_target_": "mine.Data", "path": None}}, {"data": "mine"})


def test_a_yaml_of_ones_own_says_what_it_wants(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letters.yaml").write_text(
        "# Our letters: data=letters data.path=FOLDER, with letters.csv in it.\ndefaults:\n  - csv\n  - _self_\n"
    )
    assert refusal(["data=letters"], tmp_path) == (
        "data.path is missing: data=letters data.path=FOLDER, with letters.csv in it"
    )
    (tmp_path / "data" / "letters.yaml").write_text("defaults:\n  - csv\n  - _self_\n")
    assert refusal(["data=letters"], tmp_path).startswith(
        "data.path is missing: data=letters data.path=FILE|DIR|GLOB ("
    )
