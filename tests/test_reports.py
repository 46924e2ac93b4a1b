"""Processes speak in typed reports; whatever else they print is not taken for one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from losslab import console
from losslab.reports import Cause, Note, Progress, Report, from_line, to_line
from losslab.training.process import worker
from losslab.training.process.torchrun import Ended, _relay
from losslab.training.process.worker_command import REPORTS

REPORTED = [
    Note("two of 9 val documents are in train as well"),
    Progress(17, "objective 2.3  1,000 tokens/s"),
    Cause("no luck", 3),
    Cause("a sentence\nof two lines, with a “quotation”"),
]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    reports: list[Report] = []
    monkeypatch.setattr(console, "listener", reports.append)
    return reports


@pytest.mark.parametrize("report", REPORTED)
def test_a_report_is_one_line_and_comes_back(report: Report) -> None:
    line = to_line(report)
    assert len(line.splitlines()) == 1 and line.isascii()
    assert from_line(line) == from_line(f"{line}\n") == report


@pytest.mark.parametrize(
    "line",
    [
        *("", "losslab: note: said by hand", "[1, 2]", "null", "17", "{", "[" * 100_000, '{"step": 3}'),
        '{"losslab": "note"}',
        '{"losslab": "note", "message": 3}',
        '{"losslab": "news", "message": "x"}',
        '{"losslab": ["note"], "message": "x"}',
        '{"losslab": "progress", "step": true, "text": "x"}',
        '{"losslab": "cause", "message": "x", "rank": 0, "more": 1}',
        json.dumps({"message": "x", "rank": 0}),
    ],
    ids=lambda line: line[:30],
)
def test_what_a_persons_own_code_prints_is_no_report(line: str) -> None:
    assert from_line(line) is None


def relay(tmp_path: Path, *lines: str) -> tuple[Ended, str]:
    """How ranks that print these lines end, and the log."""
    ended, log = Ended(), tmp_path / "train.log"
    _relay(io.StringIO("".join(f"{line}\n" for line in lines)), log, ended)
    return ended, log.read_text() if log.exists() else ""


def test_the_first_cause_counts_and_what_follows_it_goes_to_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    causes = [to_line(Cause("no luck", 1)), to_line(Cause("connection lost", 0))]
    ended, log = relay(tmp_path, "a warning", *causes, "torchrun: a rank has failed")
    assert ended.cause == "rank 1: no luck"
    assert capsys.readouterr().err == "a warning\n"
    assert log.splitlines() == [
        "losslab: rank 1: no luck",
        "losslab: rank 0: connection lost",
        "torchrun: a rank has failed",
    ]


def test_a_cause_of_rank_0_is_told_as_that_of_the_run(tmp_path: Path) -> None:
    assert relay(tmp_path, to_line(Cause("no luck", 0)))[0].cause == "no luck"


def test_notes_and_progress_of_ranks_reach_the_launcher(
    tmp_path: Path, heard: list[Report], capsys: pytest.CaptureFixture[str]
) -> None:
    ended, log = relay(tmp_path, *map(to_line, REPORTED[:2]))
    assert heard == REPORTED[:2]
    assert (ended.cause, log, capsys.readouterr().err) == (None, "", "")


def test_notes_of_ranks_are_shown_where_there_is_no_launcher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay(tmp_path, *map(to_line, REPORTED[:2]))
    assert capsys.readouterr().err == f"losslab: note: {REPORTED[0].message}\n"  # type: ignore[union-attr]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_ranks_beyond_0_only_the_cause_is_reported(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setenv(REPORTS, str(writing))
    monkeypatch.setenv("RANK", rank)
    for report in REPORTED:
        worker._report(report)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        found = [from_line(line) for line in lines]
    assert found == (REPORTED if rank == "0" else REPORTED[2:])


def test_a_reader_that_has_gone_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setenv(REPORTS, str(writing))
    worker._report(REPORTED[0])
    os.close(writing)
