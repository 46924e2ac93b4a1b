"""A run that learns from a run: trained, interrupted, evaluated, moved."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import losslab
from losslab.commands.evaluate import evaluate
from losslab.commands.resume import resume
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.records import read
from runs import TINY, make_text, only_run, stopping_after

BYTES = "data.tokenizer=bytes"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a teacher, with the cache of its text."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert train([*TINY, "name=teachers", "trainer.max_steps=12"]) == 0
    return folder / "outputs"


@pytest.fixture
def teacher(workplace: Path, trained: Path) -> Path:
    """A copy of its own for each test."""
    shutil.copytree(trained, "outputs")
    return only_run(Path("outputs/teachers"))[0]


def test_a_student_learns_from_a_run_and_goes_on_after_a_stop_bitwise(
    run_tiny: Callable[..., int], teacher: Path
) -> None:
    options = ["loss=distillation", f"loss.teacher={teacher}", "loss.temperature=2"]
    assert run_tiny(*options, "name=whole") == 0
    with stopping_after(4):
        assert run_tiny(*options, "name=stopped") == 1
    stopped, _ = only_run(Path("outputs/stopped"))
    assert resume(stopped, [], []) == 0
    _, whole = only_run(Path("outputs/whole"))
    assert read(stopped).metrics == whole.metrics
    assert read(stopped).identity == whole.identity
    header = (stopped / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/objective/hard", "train/objective/soft"} <= set(header)
    weights = losslab.load(stopped)
    assert not [name for name in weights.network.state_dict() if "teacher" in name]


def test_another_teacher_is_another_run_and_the_same_one_elsewhere_is_the_same(
    run_tiny: Callable[..., int], teacher: Path
) -> None:
    moved = Path("elsewhere/t=1")
    shutil.copytree(teacher, moved)
    assert run_tiny("loss=distillation", f"loss.teacher={teacher}", "name=students") == 0
    assert run_tiny("loss=distillation", f"loss.teacher={moved}", "name=students") == 0
    only_run(Path("outputs/students"))
    assert run_tiny("name=teachers", "trainer.max_steps=12", "seed=2") == 0
    other = next(path for path in Path("outputs/teachers").iterdir() if path.is_dir() and path != teacher)
    assert run_tiny("loss=distillation", f"loss.teacher={other}", "name=students") == 0
    assert len(list(Path("outputs/students").glob("*/run.json"))) == 2


def test_a_student_is_loaded_without_its_teacher_and_evaluated_with_it(
    run_tiny: Callable[..., int], teacher: Path
) -> None:
    assert run_tiny("loss=distillation", f"loss.teacher={teacher}", "name=students") == 0
    student, record = only_run(Path("outputs/students"))
    assert evaluate(student, checkpoint="best", split=None, overrides=[], trust=[]) == 0
    shutil.move(teacher, "gone")
    losslab.load(student)
    with pytest.raises(UserError, match=r"loss\.teacher=.* is not there: say where that run lies"):
        evaluate(student, checkpoint="best", split=None, overrides=[], trust=[])
    assert evaluate(student, checkpoint="best", split=None, overrides=["loss.teacher=gone"], trust=[]) == 0
    assert record.status == "completed"
    assert run_tiny("name=teachers", "trainer.max_steps=12", "seed=2") == 0
    other = only_run(Path("outputs/teachers"))[0]
    for command in (evaluate_with, resume_with):
        with pytest.raises(UserError, match="is another run than the one that taught"):
            command(student, f"loss.teacher={other}")


def evaluate_with(run: Path, option: str) -> None:
    evaluate(run, checkpoint="best", split=None, overrides=[option], trust=[])


def resume_with(run: Path, option: str) -> None:
    with unfinished(run):
        resume(run, [], [option])


@contextmanager
def unfinished(run: Path) -> Iterator[None]:
    """As if it had been killed after its last step."""
    record = read(run)
    record.status = "interrupted"
    record.write(run)
    yield


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "loss.teacher is missing"),
        (["loss.teacher=nowhere"], "loss.teacher=nowhere is not there"),
        (
            ["loss.teacher={teacher}", "data.tokenizer=bpe", "data.vocab_size=300"],
            "reads bytes, and this run would read bpe tokens with data.vocab_size=300",
        ),
        (["loss.teacher={teacher}", "model.context=64"], "reads 32 tokens at most, and data.context is 64"),
        (["loss.teacher={teacher}", "loss.temperature=0"], "loss.temperature must be above 0"),
        (["loss.teacher={teacher}", "loss.alpha=2"], r"loss.alpha must be in [0, 1]"),
        (["loss.teacher={teacher}", "loss.divergence=sideways"], "loss.divergence cannot be 'sideways'"),
    ],
)
def test_what_cannot_teach_is_refused_in_a_sentence(
    run_tiny: Callable[..., int], teacher: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    told = refusal(run_tiny, capsys, *(option.format(teacher=teacher) for option in options))
    assert said in told
    assert "\n" not in told.strip()


def test_a_teacher_that_is_not_done_is_refused(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping_after(4):
        run_tiny("name=teachers")
    unfinished, _ = only_run(Path("outputs/teachers"))
    assert "is interrupted: a teacher must have completed" in refusal(run_tiny, capsys, f"loss.teacher={unfinished}")


def refusal(run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The complaint, before or after the command has begun its work."""
    capsys.readouterr()
    try:
        assert run_tiny("loss=distillation", *options, "name=students") == 2
    except UserError as error:
        return str(error)
    return capsys.readouterr().err


def test_a_run_without_a_tokenizer_teaches_on_its_own_data(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [argument for argument in TINY if not argument.startswith("data")]
    copying = [*tiny, "task=copying", "data=copying", "data.rows=64", "data.eval_rows=16", "data.batch_size=4"]
    assert train([*copying, "name=teachers"]) == 0
    teacher, _ = only_run(Path("outputs/teachers"))
    student = [*copying, "loss=distillation", f"loss.teacher={teacher}"]
    assert train(student) == 0
    capsys.readouterr()
    assert train([*student, "data.symbols=9"]) == 2
    assert "was trained on data with 10 tokens in its vocabulary, and this data has 11" in capsys.readouterr().err
    assert train([*TINY, "loss=distillation", f"loss.teacher={teacher}"]) == 2
    assert "reads no text, and this run would read bytes: " in capsys.readouterr().err
