"""Several processes train the same run: gloo, on the CPU."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import rank_weights
import torch
from stopped_runs import make_run
from torch import Tensor

from losslab.choices import conf_dir
from losslab.commands.resume import resume
from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.components import build
from losslab.config.compose import compose_plain
from losslab.locks import is_locked
from losslab.losses.base import _WAYS, Loss
from losslab.records import Record, read
from losslab.run_folder import RunFolder
from losslab.training.run import execute
from runs import TINY, find_runs, losslab, make_text, only_run, stopping_after

TWO_RANKS = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]


NOISE = ("Fatal Python error", "Traceback", "ChildFailedError", "Root Cause", "exitcode", "closing signal")
"""Messages of an interpreter that aborts at its end, and of torchrun where a rank ended otherwise than with code 0."""


@pytest.fixture
def run_ranks(run_tiny: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`losslab train`, as `run_tiny`, whose ranks print to the terminal: its exit code and all that it and they said,
    which is checked to be free of noise."""

    def run(*arguments: str) -> tuple[int, str]:
        code = run_tiny(*arguments)
        printed = "".join(capfd.readouterr())
        assert not [noise for noise in NOISE if noise in printed], printed
        return code, printed

    return run


LATE = ["loss=brier", "loss._target_=rank_weights.EndsLate", *TWO_RANKS]


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"]])
def test_ranks_wait_for_a_rank_0_that_is_slow_to_write_its_end(
    run_ranks: Callable[..., tuple[int, str]], sweep: list[str]
) -> None:
    code, printed = run_ranks(*sweep, *LATE)
    assert code == 0, printed
    for run in find_runs(Path("outputs/runs")):
        record = read(run)
        assert (record.status, record.error, record.step) == ("completed", None, 8)
        assert not [noise for noise in NOISE if noise in (run / "train.log").read_text(encoding="utf-8")]


def test_ranks_that_were_stopped_wait_for_a_rank_0_that_is_slow_to_write_its_end(
    run_ranks: Callable[..., tuple[int, str]],
) -> None:
    code, _ = run_ranks(*LATE, "+loss.stop_at=3")
    assert code == 1
    _, record = only_run(Path("outputs/runs"))
    assert (record.status, record.step) == ("interrupted", 3)
    assert "after step 3" in str(record.error)


def test_a_rank_0_that_is_slow_to_write_its_failure_writes_it(run_ranks: Callable[..., tuple[int, str]]) -> None:
    code, printed = run_ranks(*LATE, "+loss.fail_at=3")
    assert code == 1
    assert printed.count("no luck anywhere") == 1
    run, record = only_run(Path("outputs/runs"))
    assert record.status == "failed" and "no luck anywhere" in str(record.error)
    assert '"status": "failed"' in (run / "run.json").read_text(encoding="utf-8")


def test_two_ranks_equal_one(run_ranks: Callable[..., tuple[int, str]]) -> None:
    common = ["loss=square", "trainer.max_steps=6", "data.val_batch_size=5"]
    assert run_ranks(*common, "name=one")[0] == 0
    assert run_ranks(*common, *TWO_RANKS, "trainer.accumulate_grad_batches=2", "name=two")[0] == 0
    _, one = only_run(Path("outputs/one"))
    _, two = only_run(Path("outputs/two"))
    assert one.identity == two.identity
    assert two.hardware["ranks"] == 2
    assert one.hashes == two.hashes
    assert two.metrics["final"] == pytest.approx(one.metrics["final"], rel=1e-5)


FIVE_STEPS = [
    "trainer.max_steps=5",
    "trainer.val_check_interval=5",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "model.context=30",  # 143 windows of val, of which one rank has one more
    "data.val_batch_size=71",  # and so one batch more
    "trainer.enable_progress_bar=false",
]
LOSSES = ["cross_entropy", "kl_divergence", "brier", "hinge", "square", "harmonic", "entmax", "class_balanced"]
LOSSES += ["adaptive_softmax", "sampled_softmax", "multi_token", "token_order"]
"""One for each way to compute a loss, with and without a scale that it receives; and entmax, whose nll is infinite."""
UNTIED = {"adaptive_softmax": ["model.tie_embeddings=false"]}
RUNS = {loss: [f"loss={loss}", *UNTIED.get(loss, [])] for loss in LOSSES} | {"mlm": ["task=mlm", "model=encoder"]}
"""And a task whose ranks have unequal numbers of targets."""
RUNS["translation"] = ["task=translation", "task.beams=2", "model=encoder_decoder", "data=pairs"]
RUNS["translation"] += ["data.batch_size=8"]
"""And one whose ranks share out the texts that a network writes."""
STRATEGIES = {"ddp": "trainer.accumulate_grad_batches=2", "fsdp": "trainer.accumulate_grad_batches=1"}
"""Strategy → how its batch is split."""
NAN = ["loss=brier", "loss._target_=rank_weights.NanOnOneRank"]
NINE_STEPS = ["trainer.max_steps=9", "trainer.val_check_interval=4"]


def make(place: Path, name: str, *options: str) -> Path:
    path = f"data.path={place / ('pairs.tsv' if 'data=pairs' in options else 'book.txt')}"
    config = bind_components(check_run(compose_plain([*TINY, path, *FIVE_STEPS, *options])))
    make_run(place / name, resolve_split(resolve_budget(config)))
    return place / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place whose runs in two/ were trained on two ranks, by the same two processes."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "book.txt").write_text(make_text(), encoding="utf-8")
    numbers = "".join(f"{'ja ' * (i % 4)}{i}\t{i} {'yes ' * (i % 4)}\n" for i in range(60))
    (place / "pairs.tsv").write_text(f"source\ttarget\n{numbers}")
    for (name, options), (strategy, split) in product(RUNS.items(), STRATEGIES.items()):
        make(place, f"two/{name}-{strategy}", *options, f"trainer={strategy}", split)
    make(place, "two/nan-fsdp", *NAN, "trainer=fsdp", *NINE_STEPS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, rank_weights.__file__, str(place / "two")],
        capture_output=True,
        text=True,
        timeout=rank_weights.SECONDS + 60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return place


@pytest.mark.parametrize("loss", RUNS)
def test_a_loss_trains_on_two_ranks_as_on_one(trained: Path, loss: str) -> None:
    one = make(trained, f"one/{loss}", *RUNS[loss])
    execute(RunFolder(one))
    expected = torch.load(one / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for strategy in STRATEGIES:
        run = trained / f"two/{loss}-{strategy}"
        (first, sharded), (second, _) = (torch.load(run / f"{rank}.pt", weights_only=True) for rank in (0, 1))
        assert len(sharded) == (len(first) if strategy == "fsdp" else 0)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert distance(first, expected) < 1e-6, strategy
        kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[f"network.{name}"], first[name]) for name in first)
        found, whole = read(run).metrics["final"], read(one).metrics["final"]
        assert found.keys() == whole.keys()
        written = [name for name in whole if name.endswith(("/bleu", "/chrf"))]
        for name in ("val/nll", "test/nll", "val/nll_scaled", "test/nll_scaled", "val/objective", *written):
            if whole[name] is None:  # a prediction of exactly 0 has no finite nll
                assert loss == "entmax" and found[name] is None
            else:
                assert found[name] == pytest.approx(whole[name], rel=1e-6), (strategy, name)
        assert len(written) == (4 if loss == "translation" else 0)


def test_no_shipped_loss_is_computed_in_a_way_of_its_own() -> None:
    """The effect of two ranks on a loss depends on how its sums are made and on its state, not on its formula: any
    other loss trains as one of those above."""
    every = [path.stem for path in (conf_dir() / "loss").glob("*.yaml")]
    assert set(map(way_of, every)) == set(map(way_of, LOSSES))


def way_of(name: str) -> tuple[object, ...]:
    """Whose `forward` it has, or else how the function that its author wrote is run, and whether it has state."""
    loss = build(compose_plain([f"loss={name}"])["loss"], "loss")
    forward = type(loss).forward
    return forward if forward is not Loss.forward else _WAYS[loss.written_as()], bool([*loss.buffers()])


def distance(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative, over all parameters."""
    pairs = [
        (value.flatten().double(), expected[f"network.{name}"].flatten().double()) for name, value in weights.items()
    ]
    found, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return float((found - wanted).norm() / wanted.norm())


def test_nan_on_one_rank_ends_both_as_diverged(run_ranks: Callable[..., tuple[int, str]]) -> None:
    assert run_ranks(*NAN, *TWO_RANKS, "trainer.max_steps=9")[0] == 0
    check_diverged(*only_run(Path("outputs/runs")))


def test_nan_on_one_rank_ends_sharded_ones_as_diverged(trained: Path) -> None:
    run = trained / "two/nan-fsdp"
    check_diverged(run, read(run))


def check_diverged(run: Path, record: Record) -> None:
    assert (record.status, record.step) == ("diverged", 4)
    assert "NanOnOneRank is nan" in str(record.error) and "at step 7" in str(record.error)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in state.values())


def test_a_failure_of_one_rank_is_told_and_recorded_in_its_own_words(
    run_ranks: Callable[..., tuple[int, str]],
) -> None:
    own = ["loss=brier", "loss._target_=rank_weights.RaisesOnOneRank"]
    code, printed = run_ranks(*own, *TWO_RANKS)
    assert code == 1
    _, record = only_run(Path("outputs/runs"))
    assert (record.status, record.error) == ("failed", "rank 1: ArithmeticError: no luck here")
    assert printed.count("no luck here") == 1


def test_ranks_whose_parent_was_killed_save_and_end(workplace: Path) -> None:
    long = ["trainer.max_steps=100000", "trainer.val_check_interval=1000", "checkpoints.every_n_steps=5"]
    process = losslab("train", *TINY, *TWO_RANKS, *long, cwd=workplace)
    while not (found := find_runs(workplace / "outputs/runs")) or read(found[0]).step < 5:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.kill()
    deadline = time.monotonic() + 60
    while is_locked(found[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    printed, _ = process.communicate(timeout=60)  # the ranks have its output open
    assert "Fatal Python error" not in printed and "Traceback" not in printed, printed
    record = read(found[0])
    assert record.status == "interrupted"
    assert f"after step {record.step}" in str(record.error)


def test_a_bad_text_is_told_once_before_the_ranks_start(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*TWO_RANKS, "model.context=8000") == 2
    assert capsys.readouterr().err.count("too short") == 1


def test_a_run_of_one_process_continues_sharded(
    run_tiny: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("name=whole", "model.tie_embeddings=false") == 0
    _, whole = only_run(Path("outputs/whole"))
    with stopping_after():
        assert run_tiny("model.tie_embeddings=false") == 1
    (run,) = find_runs(Path("outputs/runs"))
    assert resume(run, [], ["trainer.strategy=fsdp", "trainer.devices=2"]) == 0
    printed = "".join(capfd.readouterr())
    assert not [noise for noise in NOISE if noise in printed], printed
    record = read(run)
    assert (record.status, record.hardware["ranks"], record.hardware["strategy"]) == ("completed", 2, "fsdp")
    assert record.metrics["final"] == pytest.approx(whole.metrics["final"], rel=1e-5)


def test_bad_input_on_ranks_is_told_before_they_start(run_tiny: Callable[..., int]) -> None:
    assert run_tiny(*TWO_RANKS, "data.batch_size=3") == 2
