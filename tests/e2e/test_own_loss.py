"""docs/own_loss.md, walked through: its files are written, its commands run."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from losslab.records import read
from runs import TINY, find_runs, losslab, make_text

PAGE = (Path(__file__).parents[2] / "docs/own_loss.md").read_text(encoding="utf-8")
SMALL = ["data.vocab_size=64", "model.width=16", "model.num_heads=2", "model.context=32", "data.batch_size=2"]


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)]


def place(block: str) -> Path:
    """The file that its first line names."""
    return Path(block.partition("\n")[0].removeprefix("# "))


def run(command: str, *options: str, cwd: Path) -> tuple[int, str]:
    words = shlex.split(command, comments=True)
    assert words.pop(0) == "losslab"
    process = losslab(*words, *options, cwd=cwd)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_the_page_leads_from_a_class_to_a_comparison(tmp_path: Path) -> None:
    written, mended = blocks("python")
    (yaml,) = blocks("yaml")
    check, bench, *compare = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(written.splitlines()) < 20
    module = tmp_path / place(written)
    module.write_text(written)
    code, output = run(check, cwd=tmp_path)
    assert code == 1
    assert [line for line in output.splitlines() if line.startswith("FAILED")] == re.findall("^FAILED.*", PAGE, re.M)

    options = "        super().__init__()\n"
    module.write_text(written.replace(options, options + textwrap.indent(mended, 8 * " ")))
    code, output = run(check, cwd=tmp_path)
    assert code == 0, output

    file = tmp_path / place(yaml)
    file.parent.mkdir(parents=True)
    file.write_text(yaml)
    (tmp_path / "book.txt").write_text(make_text())
    code, output = run(bench, *SMALL, cwd=tmp_path)
    assert code == 0, output
    assert re.search("^taylor +[0-9.]+", output, re.M)

    train, table = compare
    code, output = run(train, *TINY, cwd=tmp_path)
    assert code == 0, output
    runs = find_runs(tmp_path / "outputs/own")
    assert sorted(read(path).provenance["choices"]["loss"] for path in runs) == 3 * ["cross_entropy"] + 3 * ["taylor"]
    code, output = run(table, cwd=tmp_path)
    assert code == 0, output
    assert re.search("taylor.* 3 ", output)


@pytest.mark.parametrize("function", ["from_log_prob", "from_statistics", "position_loss", "from_logits", "values"])
def test_the_table_names_the_functions_that_there_are(function: str) -> None:
    from losslab.losses.base import _WAYS

    assert function in _WAYS
    assert f"| `{function}(" in PAGE
