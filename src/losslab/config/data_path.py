"""The path of a data set, which losslab ships none of, in the words of the yaml that was chosen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from losslab.choices import conf_dir
from losslab.errors import UserError

_OURS = ("losslab.data.rows.RowsDataModule", "losslab.data.module.TextDataModule")
_INSTEAD = ("path", "source", "corpus")
_PAGE = "docs/data_sets.md"


def check_path(config: dict[str, Any], choices: dict[str, str], config_dir: Path | None = None) -> None:
    """Refuse data without files, before any class is imported.

    Args:
        config: after `check_run`.
        choices: group → the file chosen in it.
        config_dir: a person's own yaml files.

    Raises:
        UserError: naming the choice, and what its yaml says of the files that it wants.
    """
    data, choice = config["data"], choices.get("data", "")
    if data["_target_"] not in _OURS or any(data.get(key) is not None for key in _INSTEAD):
        return
    of_set = _said(choice, config_dir)
    raise UserError(f"data.path is missing: {of_set}" if of_set else f"data.path is missing: {_any_file(choice)}")


def _any_file(choice: str) -> str:
    if choice == "text":
        return "data=text data.path=FILE|DIR|GLOB, or data=python_docs"
    return f"data={choice} data.path=FILE|DIR|GLOB (.csv, .tsv, .jsonl, .parquet, also .gz and .zst)"


def _said(choice: str, config_dir: Path | None) -> str:
    """The head of a yaml from where it says how it is used, up to where it says where its files are; nothing of a yaml
    for files of any name, and of one that does not say."""
    folders = [conf_dir(), *([] if config_dir is None else [config_dir])]
    path = next((path for folder in folders if (path := folder / "data" / f"{choice}.yaml").is_file()), None)
    text = "" if path is None else path.read_text(encoding="utf-8")
    if not re.search(r"^defaults:", text, re.MULTILINE):
        return ""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    head = " ".join(lines)
    start = re.search(r"\b(task|data)=", head)
    if start is None or "data.path=" not in head:
        return ""
    sentences = re.split(r"(?<=\.) (?=[A-Z]|data\.|docs/)", head[start.start() :])
    last = next((place for place, sentence in enumerate(sentences) if _PAGE in sentence), len(sentences) - 1)
    return " ".join(sentences[: last + 1]).removesuffix(".")
