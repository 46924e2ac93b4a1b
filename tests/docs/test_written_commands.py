"""Commands on the pages about data, tasks and models: each reads as a person types it, with choices that there are."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from losslab.choices import conf_dir
from losslab.config.words import ready

ROOT = Path(__file__).parents[2]
PAGES = (
    "data_sets",
    "question_answering",
    "own-table",
    "own-text",
    "tasks",
    "models",
    "augmentation",
    "regularisation",
    "finetuning",
    "transcription",
)


def written(page: str) -> list[str]:
    """Lines of commands, and settings that stand between backticks."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^losslab train (.*?)(?: +#.*)?$", text, re.MULTILINE)
    settings = re.findall(
        r"`('?(?:data|task|model|loss)[\w./]*=[^`…|A-Z]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    return commands + settings


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_can_be_typed(page: str) -> None:
    lines = written(page)
    assert lines
    parser = OverridesParser.create()
    for line in lines:
        words = [word for word in shlex.split(line) if "=" in word and "…" not in word and word[:2] != "--"]
        for override in parser.parse_overrides([ready(word) for word in words]):
            group = conf_dir() / override.key_or_group
            if group.is_dir():
                value = override.value()
                choices = [str(value)] if isinstance(value, str) else [str(each) for each in override.sweep_iterator()]
                missing = [choice for choice in choices if not (group / f"{choice}.yaml").is_file()]
                assert missing == [], line
