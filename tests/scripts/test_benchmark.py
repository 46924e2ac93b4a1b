"""The words of scripts/benchmark: a kind has its own options and no others, and written commands are taken."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmark

ROOT = Path(__file__).parents[2]

OWN = {
    "sweeps": {"--rounds", "--sizes"},
    "compare": set[str](),
    "scoring": {"--rounds", "--threads", "--json"},
    "warm_cache": {"--megabytes", "--rounds"},
    "tokenise": {"--megabytes", "--rows"},
    "padding": {"--rounds", "--data"},
    "other_loops": {"--rounds"},
    "step": {"--rounds", "--threads", "--device", "--vocab", "--only", "--peers", "--json"},
    "heads": {"--rounds", "--threads", "--vocab", "--only", "--apart", "--json"},
    "loop": {"--rounds", "--threads", "--only", "--json"},
    "scaling": {"--rounds", "--threads", "--only", "--json", "--plot"},
    "statistics": {"--families"},
    "sequential": {"--families"},
    "plan": {"--pilots"},
    "many": {"--rounds", "--threads", "--only", "--json", "--device", "--slots", "--seeds", "--seconds", "--steps"},
    "noise": {"--folder", "--seeds", "--texts", "--dropout", "--with", "--publish"},
}


def end(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(words)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_help_has_a_line_for_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert dict(lines).items() >= benchmark.KINDS.items()
    files = {path.stem for path in (ROOT / "scripts/benchmarks").glob("*.py")}
    helpers = {"__init__", "noise_numbers", "scaling_runs"}
    assert files - helpers == benchmark.KINDS.keys() == OWN.keys()


@pytest.mark.parametrize("kind", OWN)
def test_a_kind_has_its_own_options_alone(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end([kind, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: scripts/benchmark {kind} [-h]")
    assert set(re.findall(r"^  (--\w+)", told, re.MULTILINE)) == OWN[kind]
    assert sys.modules[f"benchmarks.{kind}"].__doc__.splitlines()[0] in told  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("swepes", "scripts/benchmark: error: argument KIND: invalid choice: 'swepes' (choose from"),
        ("plan --families 3", "scripts/benchmark plan: error: unrecognized arguments: --families 3"),
        ("--seeds 3", "scripts/benchmark sweeps: error: unrecognized arguments: --seeds 3"),
        ("sweeps --sizes nano,mikro", "argument --sizes: 'mikro' is none of nano, micro, small"),
        ("plan --pilots 0", "argument --pilots: '0' is no whole number above 0"),
        ("heads --vocab 8192,many", "argument --vocab: 'many' is no whole number above 0"),
        ("loop --only drift,stop", "argument --only: no name holds 'stop'; there are: start; beside; sweep; drift"),
        ("scoring --json no/such.json", "argument --json: there is no folder no"),
        ("many --seconds 0", "argument --seconds: '0' is no number of seconds above 0 and below 60"),
        ("noise --seeds 3", "scripts/benchmark noise: error: the following arguments are required: --folder"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(
    words: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert end(words.split()) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_configuration_is_answered_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["padding", "--data", "data=nonsense"]) == 2
    assert capsys.readouterr().err.startswith("scripts/benchmark padding: there is no data named 'nonsense'")


def test_without_a_kind_it_is_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sweeps as benchmark_sweeps

    asked = []
    monkeypatch.setattr(benchmark_sweeps, "main", lambda arguments: asked.append(arguments) or 7)
    assert [benchmark.main(words) for words in ([], ["--rounds", "3"], ["sweeps", "--sizes", "small"])] == [7, 7, 7]
    assert [(given.rounds, given.sizes) for given in asked] == [
        (2, ["nano", "micro", "small"]),
        (3, ["nano", "micro", "small"]),
        (2, ["small"]),
    ]


def test_only_takes_the_parts_that_hold_a_word() -> None:
    parser = benchmark.make_parser(["scaling"])
    assert parser.parse_args(["scaling", "--only", "width,len"]).only == ["width", "length"]
    assert parser.parse_args(["scaling"]).only == ["tokens", "vocabulary", "width", "length", "sweep", "compare"]


def written() -> Iterator[str]:
    """Commands of scripts/benchmark in the pages and in the package."""
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "src").rglob("*.py")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        yield from re.findall(r"(?:^|`)scripts/benchmark((?: [^`\n]+)?)(?:`|$)", text, re.MULTILINE)


def test_every_written_command_is_one_that_it_takes() -> None:
    commands = sorted({command.strip() for command in written()} - {"KIND", "KIND --help", "--help", ""})
    assert len(commands) > 15
    parser = benchmark.make_parser(benchmark.KINDS)
    for command in commands:
        words = shlex.split(command)
        named = ["--folder", "outputs"] if words[0] == "noise" and "--folder" not in words else []
        assert parser.parse_args([*words, *named]).kind == words[0]
