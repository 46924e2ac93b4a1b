"""The runs of a sweep that adds seeds: which come, when they end, and that nothing but their results decides."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from made_sequential import LOSSES, MOST, Command, make_terms, value_of

from losslab.run_folder import RunFolder
from losslab.sequential.told import told_standing
from losslab.sweeps.followed_run import Run
from losslab.sweeps.local import Sweep
from losslab.sweeps.settings import LocalSettings
from losslab.sweeps.slots import Slot


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """One slot, undisturbed."""
    command = Command(tmp_path_factory.mktemp("alone"))
    command.work(1)
    return command


def statuses(folder: Path) -> dict[str, str]:
    return {path.parent.name: RunFolder(path.parent).record().status for path in folder.glob("*/run.json")}


def test_decided_losses_stop_and_the_others_go_on_with_the_baseline(alone: Command) -> None:
    verdicts = alone.verdicts()
    assert {label: word for label, (word, _) in verdicts.items()} == {
        "square": "worse",
        "focal": "undecided",
        "kl_divergence": "equivalent",
    }
    assert verdicts["square"][1] < verdicts["focal"][1] == MOST
    for label, (_, seeds) in verdicts.items():
        assert [name for name in alone.started if name.startswith(label)] == [
            f"{label}-seed={seed}" for seed in range(1, seeds + 1)
        ]
    assert sum(name.startswith("cross_entropy") for name in alone.started) == MOST
    assert alone.source.is_spent and alone.source.next() == []
    assert alone.source.expected == len(alone.started), "it shrinks as losses are decided"


@pytest.mark.parametrize("draw", range(6))
def test_verdicts_do_not_depend_on_the_order_of_ends_slots_or_kills(draw: int, alone: Command, tmp_path: Path) -> None:
    order = random.Random(draw)
    for kill_after in (order.randrange(2, 8), order.randrange(4, 14), None):
        command = Command(tmp_path)
        command.work(order.randrange(1, 9), order, kill_after)
    assert command.verdicts() == alone.verdicts()
    for label, one in command.source.standings.items():
        assert one == alone.source.standings[label], "differences and interval to the last bit"
    needed = set(alone.started)
    assert {name for name, status in statuses(tmp_path).items() if name in needed and status != "completed"} == set()
    assert set(statuses(tmp_path).values()) <= {"completed", "pruned"}, "nothing is left that looks unfinished"
    assert Command(tmp_path).source.next()[0].status == "completed"
    again = Command(tmp_path)
    again.work(3)
    assert again.started == [] and again.verdicts() == alone.verdicts()


def test_a_run_beyond_the_verdict_is_ended_and_counts_for_nothing(tmp_path: Path) -> None:
    terms = make_terms(losses={"cross_entropy": {}, "square": {}})
    command = Command(tmp_path, terms)
    command.fill(2 * MOST)
    late = {run.label: run for run in command.running}
    for run in [run for run in command.running if not run.label.endswith(f"={MOST}")]:
        command.end(run)
    at = command.source.standings["square"].seeds
    assert command.source.standings["square"].verdict == "worse" and at < MOST
    reason = command.source.unneeded(late[f"square-seed={MOST}"])
    assert reason == f"square is worse than cross_entropy after {at} seeds"
    assert command.source.unneeded(late[f"cross_entropy-seed={MOST}"]).startswith("every loss is decided")
    before = command.source.standings["square"]
    command.end(late[f"square-seed={MOST}"])
    assert command.source.standings["square"] == before and command.source.is_spent


def test_a_failed_run_leaves_its_loss_where_it_is_until_the_command_comes_again(tmp_path: Path) -> None:
    def once(label: str, seed: int) -> tuple[str, float]:
        return ("failed" if (label, seed) == ("focal", 2) else "completed", value_of(label, seed))

    first = Command(tmp_path, ends=once)
    first.work(2)
    assert first.verdicts()["focal"] == ("", 1) and first.verdicts()["square"][0] == "worse"
    assert first.source.stuck == {"focal": 2} and "focal seed 2" in first.source.waits_for("focal")
    assert not any(name.startswith(f"focal-seed={MOST}") for name in first.started)
    second = Command(tmp_path)
    second.work(2)
    assert second.verdicts()["focal"] == ("undecided", MOST) and second.started[0] == "focal-seed=2"


def test_a_failed_baseline_ends_the_command(tmp_path: Path) -> None:
    command = Command(tmp_path, ends=lambda label, seed: ("failed" if label == LOSSES[0] else "completed", 4.0))
    command.work(1)
    assert command.started == ["cross_entropy-seed=1"] and not command.source.is_decided
    assert "cross_entropy seed 1" in command.source.waits_for("square")


def test_diverged_seeds_are_left_out_and_a_loss_with_three_of_them_is_lost(tmp_path: Path) -> None:
    def diverging(label: str, seed: int) -> tuple[str, float]:
        gone = label == "focal" or (label == "square" and seed == 2)
        return ("diverged" if gone else "completed", value_of(label, seed))

    command = Command(tmp_path, ends=diverging)
    command.work(2)
    standings = command.source.standings
    assert (standings["focal"].verdict, standings["focal"].seeds) == ("lost", 3)
    square = standings["square"]
    assert square.verdict == "worse" and square.left_out == ((2, "diverged"),)
    assert len(square.differences) == square.seeds - 1


def test_a_wrong_configuration_is_said_once_and_blocks_its_loss_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(tmp_path)
    opened = command.source._open_run
    command.source._open_run = lambda label, seed, number: (
        "focal is wrong" if label == "focal" else opened(label, seed, number)
    )
    command.work(2)
    assert command.source.refused == ["focal is wrong"]
    assert "refused: focal is wrong" in capsys.readouterr().err
    assert command.verdicts()["square"][0] == "worse" and command.verdicts()["focal"] == ("", 0)


def test_each_seed_says_what_it_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = make_terms(losses={"cross_entropy": {}, "square": {}})
    command = Command(tmp_path, terms)
    command.work(1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("square: undecided after 1 seed: +0.") and "(first look at " in lines[0]
    assert lines[-1].startswith(f"square: worse than cross_entropy after {len(lines)} seeds: +0.") and lines[
        -1
    ].endswith("]")


def test_a_difference_that_is_certain_and_small_is_told_as_both(tmp_path: Path) -> None:
    terms = make_terms(losses={"cross_entropy": {}, "square": {}}, margin=0.5)
    command = Command(tmp_path, terms)
    command.work(1)
    told = told_standing("square", command.source.standings["square"], terms)
    assert told.startswith("square: worse than cross_entropy after ") and told.endswith("], but within ±0.5")


def open_sweep(command: Command) -> Sweep:
    return Sweep(command.source, command.folder, (Slot(0),), LocalSettings(1, "continue", 0, None))


def decided(folder: Path) -> tuple[Command, Run]:
    """A command whose square is decided, and a run of it beyond the verdict, planned and never started."""
    command = Command(folder, make_terms(losses={"cross_entropy": {}, "square": {}}))
    command.fill(2 * MOST)
    late = next(run for run in command.running if run.label == f"square-seed={MOST}")
    for run in [run for run in command.running if not run.label.endswith(f"={MOST}")]:
        command.end(run)
    return command, late


def test_a_run_that_is_ended_before_it_wrote_a_word_has_not_failed(tmp_path: Path) -> None:
    command, late = decided(tmp_path)
    late.pruned, late.stopped = True, command.source.unneeded(late)
    record = open_sweep(command)._settle(late, -15)
    assert (record.status, record.error) == ("pruned", late.stopped) == (late.folder.record().status, late.stopped)


def test_a_run_that_waits_for_a_slot_when_its_loss_is_decided_never_starts(tmp_path: Path) -> None:
    command, late = decided(tmp_path)
    sweep = open_sweep(command)
    sweep._waiting = [late]
    sweep._start_next()
    assert sweep._waiting == [] and late.folder.record().status == "pruned" and late.attempts == 0
