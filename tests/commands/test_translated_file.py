"""A file of translations that is cut short and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from losslab.commands.translated_file import TranslatedFile
from losslab.errors import UserError

SOURCES = ["a", "", "c c", "d", "é"]


class Upper:
    """Translates to upper case, until `most` blocks are done."""

    def __init__(self, most: int = 99) -> None:
        self.left = most
        self.seen: list[str] = []

    def __call__(self, part: list[str]) -> list[str]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen += part
        return [text.upper() for text in part]


def cut_short(path: Path, about: dict[str, int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        TranslatedFile(path, about, ("de", "en")).write(SOURCES, 2, Upper(1))
    assert not path.exists()
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(part.read_bytes() + b"hal")  # a line that a kill cut in two


@pytest.mark.parametrize("name", ["x.en", "x.jsonl"])
def test_a_file_goes_on_behind_its_whole_lines_and_is_described(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    cut_short(path, {"beams": 5})
    rest = Upper()
    assert TranslatedFile(path, {"beams": 5}, ("de", "en")).write(SOURCES, 2, rest) == 1
    assert rest.seen == SOURCES[2:]
    lines = path.read_text(encoding="utf-8").splitlines()
    if name == "x.en":
        assert lines == ["A", "", "C C", "D", "É"]
    else:
        assert [json.loads(line) for line in lines] == [{"de": text, "en": text.upper()} for text in SOURCES]
    told = json.loads((tmp_path / f"{name}.json").read_text())
    assert (told["beams"], told["lines"], told["empty"]) == (5, 5, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"{name}.json"]
    with pytest.raises(UserError, match="is there already"):
        TranslatedFile(path, {}, ("de", "en"))


def test_a_part_that_was_made_otherwise_is_written_again(tmp_path: Path) -> None:
    cut_short(tmp_path / "x.en", {"beams": 5})
    rest = Upper()
    TranslatedFile(tmp_path / "x.en", {"beams": 1}, ("de", "en")).write(SOURCES, 2, rest)
    assert rest.seen == SOURCES
