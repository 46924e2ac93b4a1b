"""`losslab train` as a person types it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab import records
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.run_folder import find_identity
from runs import TINY, find_runs, losslab, make_text, only_run

RUNS = Path("outputs/runs")


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_its_record_metrics_and_checkpoints(run_tiny: Callable[..., int]) -> None:
    assert run_tiny() == 0
    folder, record = only_run(RUNS)
    assert set(json.loads((folder / "run.json").read_text())) == set(
        "schema identity name overrides status step max_steps stopped trial metrics metrics_info primary hashes "
        "versions provenance timing hardware throughput memory error".split()
    )
    assert (record.status, record.step, record.max_steps, record.error) == ("completed", 8, 8, None)
    assert set(record.hashes) == {"backbone_init", "projection_init", "batches", "data", "tokenizer", "code"}
    assert folder.name.startswith("cross_entropy-seed1-") and folder.name.endswith(record.identity[: records.SHORT])
    names = "nll nll_scaled nll_linked perplexity bits_per_byte top1 objective unigram_nll".split()
    for split in ("val", "test"):
        assert {f"{split}/{name}" for name in names} <= record.metrics["final"].keys()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "4", "6", "8"]
    assert [row["step"] for row in rows if row["val/nll_scaled"]] == ["4", "8"]
    final = record.metrics["final"]
    assert float(rows[-1]["val/mrr"]) == final["val/mrr"]
    # The curve is of the part of val that every validation scores; the result of all of it.
    assert float(rows[-1]["val/nll_scaled"]) == pytest.approx(final["val/nll_scaled"], rel=0.01)
    assert float(rows[-1]["val/nll_scaled"]) != final["val/nll_scaled"]
    assert 0 < record.timing["validation_seconds"] < record.timing["seconds"]
    assert all(row["grad_norm/all"] and row["grad_norm/hidden_01"] and row["grad_norm/hidden_last"] for row in rows)


@pytest.mark.parametrize(
    "again",
    [
        ["loss=cross_entropy", "loss.label_smoothing=0.0", "seed=1"],
        ["loss.label_smoothing=0"],
        ["trainer.micro_batch_size=1"],
        ["trainer.accumulate_grad_batches=2"],
        ["data.val_batch_size=3", "data.num_workers=2", "trainer.enable_progress_bar=false"],
    ],
)
def test_the_same_run_is_not_repeated(run_tiny: Callable[..., int], again: list[str]) -> None:
    run_tiny()
    before = snapshot(RUNS)
    assert run_tiny(*again) == 0
    assert snapshot(RUNS) == before


@pytest.mark.parametrize("change", ["data.batch_size=8", "seed=2", "loss=square", "trainer.max_steps=9"])
def test_another_setting_is_another_run(run_tiny: Callable[..., int], change: str) -> None:
    run_tiny("trainer.max_steps=2")
    run_tiny("trainer.max_steps=2", change)
    assert len(find_runs(RUNS)) == 2


def test_another_text_under_the_same_path_is_another_run(run_tiny: Callable[..., int]) -> None:
    run_tiny("trainer.max_steps=2")
    Path("book.txt").write_text(make_text(seed=1))
    run_tiny("trainer.max_steps=2")
    hashes = {records.read(run).hashes["data"] for run in find_runs(RUNS)}
    assert len(hashes) == 2


def test_fresh_repeats_a_finished_run_beside_the_old_one(run_tiny: Callable[..., int]) -> None:
    run_tiny("trainer.max_steps=2")
    for _ in range(2):
        run_tiny("trainer.max_steps=2", "fresh=true")
    first, *more = find_identity(RUNS, only_identity())
    assert [path.name for path in more] == [f"{first.name}-2", f"{first.name}-3"]
    values = [run.record().metrics["final"] for run in (first, *more)]
    assert values[0] == values[1] == values[2]


def test_fresh_never_takes_an_existing_folder(run_tiny: Callable[..., int]) -> None:
    for fresh in ("false", "true", "true"):
        run_tiny("trainer.max_steps=2", f"fresh={fresh}")
    _, second, third = find_identity(RUNS, only_identity())
    shutil.rmtree(second)
    before = snapshot(third.path)
    run_tiny("trainer.max_steps=2", "fresh=true")
    assert snapshot(third.path) == before
    assert len(find_identity(RUNS, only_identity())) == 3


def only_identity() -> str:
    (identity,) = {records.read(run).identity for run in find_runs(RUNS)}
    return identity


def test_paired_runs_start_from_the_same_weights_and_see_the_same_batches(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("-m", "loss=cross_entropy,kl_divergence,square", "trainer.max_steps=2") == 0
    found = [records.read(run).hashes for run in find_runs(RUNS)]
    assert len(found) == 3
    assert len({(hashes["backbone_init"], hashes["batches"]) for hashes in found}) == 1


def test_a_failing_run_ends_alone_and_is_named(run_tiny: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    Path("conf/loss").mkdir(parents=True)
    Path("bad_losses.py").write_text(
        "from losslab.losses.base import Loss\n"
        "class Broken(Loss):\n"
        "    def position_loss(self, logits, target):\n"
        "        raise RuntimeError('no such thing')\n"
        "class Exploding(Loss):\n"
        "    def position_loss(self, logits, target):\n"
        "        return logits.sum(-1) * float('nan')\n"
    )
    Path("conf/loss/broken.yaml").write_text("_target_: bad_losses.Broken\n")
    Path("conf/loss/exploding.yaml").write_text("_target_: bad_losses.Exploding\n")
    code = run_tiny("-m", "--config-dir", "conf", "loss=broken,exploding,cross_entropy", "trainer.max_steps=2")
    found = {run.name.split("-")[0]: (run, records.read(run)) for run in find_runs(RUNS)}
    assert code == 1
    assert {name: record.status for name, (_, record) in found.items()} == {
        "broken": "failed",
        "exploding": "diverged",
        "cross_entropy": "completed",
    }
    run, record = found["broken"]
    assert record.error == "RuntimeError: no such thing"
    assert "Traceback" in (run / "train.log").read_text()
    assert "step 1" in (found["exploding"][1].error or "")
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out
    assert "runs: 1 completed, 1 diverged, 1 failed" in output.out


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def position_loss(self, logits, target): return logits.sum()", "position_loss returned shape []"),
        ("def position_loss(self, logits, target): return logits", "it must return one value for each"),
        ("this is no python", "cannot be imported: SyntaxError"),
    ],
)
def test_a_faulty_loss_of_ones_own_is_one_sentence(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, body: str, sentence: str
) -> None:
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    Path("faulty.py").write_text(f"from losslab.losses.base import Loss\nclass Faulty(Loss):\n    {body}\n")
    Path("conf/loss").mkdir(parents=True)
    Path("conf/loss/faulty.yaml").write_text("_target_: faulty.Faulty\n")
    assert sentence in complaint(["--config-dir", "conf", "loss=faulty"])


def test_a_plain_module_is_no_loss(run_tiny: Callable[..., int]) -> None:
    Path("conf/loss").mkdir(parents=True)
    Path("conf/loss/plain.yaml").write_text("_target_: torch.nn.Identity\n")
    assert "must derive from losslab.losses.base.Loss" in complaint(["--config-dir", "conf", "loss=plain"])


def test_a_piped_run_prints_plain_lines(workplace: Path) -> None:
    process = losslab("train", *TINY, cwd=workplace)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(output.splitlines()) < 40
    assert "\x1b" not in output and "\r" not in output
    assert "step 8/8" in output and "unigram_nll" in output and "parameters" in output


MISTAKES = [
    (["trainer.precision=16-mixed", "+optimizer.fused=true"], "does not go with"),
    (["data.path=nope.txt"], "nope.txt does not exist"),
    (["data.path=empty.txt"], "empty.txt holds no text"),
    (["data.path=latin.txt"], "latin.txt is not UTF-8"),
    (["data.path=short.txt"], "the text is too short"),
    (["model.context=20000"], "one window needs 20001"),
    (["model.width=-16"], "model.width must be above 0"),
    (["model.num_heads=3"], "does not divide"),
    (["model.context=x"], "whole number"),
    (["model.context=8", "data.context=64"], "data.context=64 is longer than the 8 inputs that the model reads"),
    (["optimizer.lr=-1"], "AdamW refuses its settings"),
    (["trainer.accelerator=tpu"], "the trainer refuses"),
    (["data.batch_size=3", "trainer.accumulate_grad_batches=2"], "data.batch_size=3 is not"),
    (["output_dir=/dev/null"], "cannot be written"),
    (["loss=sqare"], "did you mean 'square'?"),
    (
        ["loss=mse"],
        "loss=mse needs values as targets, and task=lm has classes: this loss goes with task=regression",
    ),
    (["trainer.max_step=3"], "did you mean 'trainer.max_steps'?"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_bad_input_is_one_sentence(workplace: Path, arguments: list[str], sentence: str) -> None:
    Path("empty.txt").write_text(" \n")
    Path("latin.txt").write_bytes("caf\xe9".encode("latin-1") * 100)
    Path("short.txt").write_text("too short")
    message = complaint(arguments)
    assert sentence in message
    assert "\n" not in message
    assert all(records.read(run).status == "failed" for run in find_runs(RUNS))


def complaint(arguments: list[str]) -> str:
    """The sentence that ends the command: raised by the checks before a job, said by the job itself."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losslab.commands.train.complain", said.append)
        try:
            assert train([*TINY, *arguments]) == 2
        except UserError as error:
            said.append(str(error))
    (message,) = said
    return message


@pytest.mark.parametrize(
    "arguments", [["train", "loss=sqare"], ["trian"], ["resume", "nowhere"], ["compare", "nowhere"]]
)
def test_bad_input_exits_with_2_and_one_line(workplace: Path, arguments: list[str]) -> None:
    process = losslab(*arguments, cwd=workplace, new=True)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(output.strip().splitlines()) == 1 and output.startswith("losslab: ")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["train", "--cfg", "job"]])
def test_help_imports_no_torch(workplace: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from losslab import cli; sys.argv = ['losslab', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, timeout=60)
