"""`continue_from`: the run that begins where a shorter one stands is, bit for bit, the undisturbed longer one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import continued_runs
import pytest
from continued_runs import LONG, PAST, SHORT, begin, left, schedule

from losslab.commands.clean import clean
from losslab.commands.resume import resume
from losslab.errors import Interrupted, UserError
from losslab.locks import lock
from losslab.records import read
from losslab.training.callbacks.run_callback import RunCallback
from runs import make_text, only_run, stopping_after


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the runs that others continue, and those that they must equal."""
    folder = tmp_path_factory.mktemp("continued")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("constant", "wsd"):
            for length, steps in (("short", SHORT), ("whole", LONG)):
                begin(*schedule(name), f"name={name}-{length}", f"trainer.max_steps={steps}")
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def continued(name: str, origin: str, *typed: str) -> Path:
    outcome = begin(f"name={name}", f"continue_from={origin}", f"trainer.max_steps={LONG}", *typed)
    assert outcome.status == "completed", outcome.record.error
    return outcome.folder.path


@pytest.mark.parametrize(("earlier", "later"), PAST)
def test_it_is_bit_for_bit_the_longer_run(here: Path, earlier: str, later: str) -> None:
    found = continued(f"{earlier}-{later}", f"outputs/{earlier}-short", *schedule(later))
    whole, record = only_run(Path(f"outputs/{later}-whole"))
    assert left(found) == left(whole)
    assert read(found).hashes["backbone_init"] == record.hashes["backbone_init"]
    assert read(found).identity != record.identity
    at = read(found).provenance["continued"]
    assert (at["step"], at["checkpoint"]) == ((16, "stable.ckpt") if earlier == "wsd" else (20, "last.ckpt"))


def test_two_ranks_equal_their_own_longer_run(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(make_text(paragraphs=40), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, continued_runs.__file__, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=continued_runs.SECONDS + 60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for strategy in ("ddp", "fsdp"):
        longer, record = only_run(tmp_path / "outputs" / f"{strategy}-longer")
        assert record.hardware["ranks"] == 2 and record.provenance["continued"]["same_sums"]
        assert left(longer) == left(only_run(tmp_path / "outputs" / f"{strategy}-whole")[0])


def test_it_is_resumed_without_the_run_that_it_continues(here: Path) -> None:
    shutil.copytree("outputs/constant-short", "outputs/gone")
    with stopping_after(24):
        assert begin(*_longer("stopped", "outputs/gone")).status == "interrupted"
    shutil.rmtree("outputs/gone")
    stopped, _ = only_run(Path("outputs/stopped"))
    assert resume(stopped, [], []) == 0
    assert left(stopped) == left(only_run(Path("outputs/constant-whole"))[0])
    assert begin(*_longer("stopped", "outputs/gone")).status == "skipped"
    with pytest.raises(UserError, match="continue_from=outputs/gone is not there"):
        begin(*_longer("new", "outputs/gone"))


def test_a_kill_before_the_validation_that_was_due_loses_nothing(here: Path) -> None:
    def stop(self: RunCallback, row: object) -> bool:
        raise Interrupted("for the test")

    with patch.object(RunCallback, "_validate", stop):
        assert begin(*_longer("killed", "outputs/constant-short")).status == "interrupted"
    killed, _ = only_run(Path("outputs/killed"))
    assert resume(killed, [], []) == 0
    assert left(killed) == left(only_run(Path("outputs/constant-whole"))[0])


def test_a_run_that_has_yet_to_begin_needs_its_origin(here: Path, tmp_path: Path) -> None:
    shutil.copytree("outputs/constant-short", "outputs/moved")
    with patch("losslab.training.run.take_over", side_effect=Interrupted("for the test")):
        begin(*_longer("planned", "outputs/moved"))
    planned, _ = only_run(Path("outputs/planned"))
    shutil.move("outputs/moved", tmp_path / "there")
    with pytest.raises(UserError, match=r"is not there: say where that run lies now, losslab resume .* continue_from="):
        resume(planned, [], [])
    (other,) = (path.parent for path in Path("outputs/wsd-short").glob("*/run.json"))
    with pytest.raises(UserError, match="no longer has the checkpoint that this run was to continue"):
        resume(planned, [], [f"continue_from={other}"])
    (origin,) = (path.parent for path in (tmp_path / "there").glob("*/run.json"))
    assert resume(planned, [], [f"continue_from={origin}"]) == 0
    assert left(planned) == left(only_run(Path("outputs/constant-whole"))[0])
    with pytest.raises(UserError, match="'continue_from' cannot be changed here"):
        resume(planned, [], [f"continue_from={other}"])


def test_a_sweep_goes_on_run_by_run(here: Path) -> None:
    for seed in (1, 2):
        begin(*schedule("constant"), "name=sweep", "trainer.max_steps=4", f"seed={seed}")
    longer = [*schedule("constant"), "name=sweep", "trainer.max_steps=8", "continue_from=outputs/sweep"]
    for seed in (1, 2):
        outcome = begin(*longer, f"seed={seed}")
        assert outcome.record.provenance["continued"]["step"] == 4
        assert begin(*longer, f"seed={seed}").folder == outcome.folder, "though it could now continue itself"
    begin(*schedule("constant"), "name=sweep", "trainer.max_steps=6", "seed=1")
    assert begin(*longer, "seed=1").status == "skipped", "though one has come further by now"
    with pytest.raises(UserError, match=r"holds no run that can go on as this one; the nearest is .*seed=1 \(here 3\)"):
        begin(*longer, "seed=3")
    assert clean(Path("outputs/sweep"), checkpoints=False, cache=False, dry_run=False) == 0
    assert begin(*longer, "seed=2").status == "skipped"
    with pytest.raises(UserError, match="which losslab clean removed"):
        begin(*longer, "seed=2", "trainer.max_steps=9")


def test_a_best_checkpoint_that_was_not_kept_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = continued("fifths", "outputs/constant-short", *schedule("constant"), "trainer.val_check_interval=9")
    assert "best checkpoint counts from step 20 on" in capsys.readouterr().err
    assert read(found).provenance["continued"]["best_from"] == 20
    assert read(found).metrics["final"] == only_run(Path("outputs/constant-whole"))[1].metrics["final"]


def test_the_best_checkpoint_before_a_decay_is_kept_for_a_longer_run(here: Path) -> None:
    """Validated every 7 steps, and so at 14 for the last time before the decay, which begins after 16."""
    every = [*schedule("wsd"), "trainer.val_check_interval=7"]
    begin(*every, "name=sevens", f"trainer.max_steps={SHORT}")
    kept = only_run(Path("outputs/sevens"))[0] / "checkpoints"
    assert {path.name for path in kept.iterdir()} == {"last.ckpt", "best.ckpt", "stable.ckpt", "stable-best.ckpt"}
    with stopping_after(32):  # before the next validation
        begin("name=longer-sevens", "continue_from=outputs/sevens", f"trainer.max_steps={LONG}", *every)
    longer, record = only_run(Path("outputs/longer-sevens"))
    assert record.provenance["continued"]["best_from"] is None
    begin(*every, "name=whole-sevens", f"trainer.max_steps={LONG}")
    assert resume(longer, [], []) == 0
    assert left(longer) == left(only_run(Path("outputs/whole-sevens"))[0])


REFUSED = [
    ("outputs/constant-short data.batch_size=8", "it has data.batch_size=4 (here 8); everything but the budget must"),
    ("outputs/constant-short model.dropout=0.2 optimizer.lr=1", "model.dropout=0.1 (here 0.2), optimizer.lr=0.003 (h"),
    ("outputs/constant-short loss=square", "loss._target_=losslab.losses.cross_entropy.CrossEntropy (here losslab.l"),
    ("outputs/constant-short seed=2", "seed=1 (here 2)"),
    ("outputs/constant-short data.path=other.txt", "made from another text or tokenizer"),
    ("outputs/constant-short data.tokenizer=bpe data.vocab_size=300", "data.tokenizer=bytes (here bpe)"),
    ("outputs/constant-short scheduler=cosine", "only up to step 3, and it has no checkpoint up to there"),
    ("outputs/constant-short scheduler.warmup_steps=3", "only up to step 0"),
    ("outputs/constant-short trainer.max_steps=20", "its budget is 20 steps, and trainer.max_steps=20 is no longer"),
    ("outputs/constant-short trainer.max_steps=15", "is no longer than that"),
    ("outputs/wsd-short scheduler=constant trainer.max_steps=15", "its budget is 20 steps"),
    ("nowhere", "continue_from=nowhere is not there"),
    ("book.txt", "is a file: name the folder of a run, or of a sweep"),
    ("outputs/.cache", "holds no run"),
]


@pytest.mark.parametrize(("typed", "said"), REFUSED)
def test_what_does_not_agree_is_refused_by_name(here: Path, typed: str, said: str) -> None:
    (here / "other.txt").write_text(make_text(seed=1), encoding="utf-8")
    origin, *rest = typed.split()
    with pytest.raises(UserError) as refused:
        begin(*_longer("refused", origin), *rest)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not Path("outputs/refused").exists()


def test_a_run_that_is_running_is_not_continued(here: Path) -> None:
    source, _ = only_run(Path("outputs/constant-short"))
    with lock(source), pytest.raises(UserError, match="it is running in another process: wait for its end"):
        begin(*_longer("refused", "outputs/constant-short"))


def _longer(name: str, origin: str) -> list[str]:
    return [*schedule("constant"), f"name={name}", f"continue_from={origin}", f"trainer.max_steps={LONG}"]
