"""Runs under Lightning's flags that limit the data: stopped, they end as the undisturbed ones, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopped_runs import STEPS, make_run, remains, train

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.contracts import Share
from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.training.factory import build_network, open_data
from losslab.training.limits import Limits
from losslab.training.scoring.evaluator import Evaluator
from runs import TINY, only_run

STOPPED_IN = (2, 7)


def settled(workplace: Path, *typed: str) -> dict[str, Any]:
    """The configuration that `start` stores, but for flags that need the size of the data."""
    text = workplace / "book.txt"
    options = [*TINY, f"data.path={text}", "model.dropout=0.1", "trainer.enable_progress_bar=false"]
    config = bind_components(check_run(compose_plain([*options, *typed])))
    return resolve_split(resolve_budget(config))


@pytest.mark.parametrize(
    "typed",
    [
        ["trainer.limit_train_batches=5", "trainer.limit_val_batches=2", "trainer.accumulate_grad_batches=2"],
        ["trainer.overfit_batches=3", "data.num_workers=2"],
    ],
    ids=["limits", "overfit"],
)
def test_a_limited_run_that_is_stopped_ends_as_the_undisturbed_one(workplace: Path, typed: list[str]) -> None:
    config = settled(workplace, f"trainer.max_steps={STEPS}", "trainer.val_check_interval=5", *typed)
    whole, stopped = workplace / "runs" / "whole", workplace / "runs" / "stopped"
    for run in (whole, stopped):
        make_run(run, config)
    train(whole)
    for before, step in zip((0, *STOPPED_IN), STOPPED_IN, strict=False):
        train(stopped, after=before, stop_in=step)
    train(stopped, after=STOPPED_IN[-1])
    assert remains(stopped) == remains(whole)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    """A claimed run that is to overfit two batches, and its configuration."""
    from runs import make_text

    folder = tmp_path_factory.mktemp("overfitted")
    (folder / "book.txt").write_text(make_text(paragraphs=60), encoding="utf-8")
    config = settled(folder, "trainer.overfit_batches=2", "trainer.limit_test_batches=3", "model.dropout=0")
    run = RunFolder(folder / "sweep" / "run")
    make_run(run.path, config)
    return run, config


def test_a_limited_run_repeats_the_beginning_of_the_order(overfitted: tuple[RunFolder, dict[str, Any]]) -> None:
    data = open_data(*overfitted)
    share = Share(rank=1, ranks=2, micro=0, micros=2)
    for step in range(6):
        again, first = data.batch_of(step, share), data.train_batch(step % 2, share)
        assert torch.equal(again.inputs["tokens"], first.inputs["tokens"])
    assert not torch.equal(data.train_batch(0, share).target, data.train_batch(2, share).target)


def test_an_overfitted_run_is_validated_on_what_it_trains_on_whatever_the_ranks(
    overfitted: tuple[RunFolder, dict[str, Any]],
) -> None:
    data = open_data(*overfitted)
    config = overfitted[1]
    network = build_network(config, data.info)
    limits = Limits.of(config, data.info)
    values = Evaluator(network, data, device=torch.device("cpu"), limits=limits).validate(thorough=True)
    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for step in range(2):
            batch = data.train_batch(step, Share())
            features = network.task.features(network.backbone.eval(), batch, network.loss.target_kind, {})
            logits = features.hidden.double() @ network.projection.weight.double().T
            total += torch.nn.functional.cross_entropy(logits, features.target, reduction="sum")
    assert values["val/nll"] == pytest.approx(total.item() / (2 * 4 * 32), rel=1e-6)
    assert "val/unigram_nll" not in values
    whole = [sample for batch in limits.train_batches(data, Share(), "all", None) for sample in batch.target]
    shared: dict[int, torch.Tensor] = {}
    for rank in range(2):
        for batch in limits.train_batches(data, Share(rank, 2), "all", None):
            assert torch.equal(batch.extras["fit"], (batch.extras["id"] + 1) % 2)
            shared |= dict(zip(batch.extras["id"][:, 0].tolist(), batch.target, strict=True))
    assert sorted(shared) == list(range(8))
    assert all(torch.equal(shared[i], sample) for i, sample in enumerate(whole))
    fitting = list(limits.train_batches(data, Share(), "fit", 1))
    assert sum(float((batch.extras["fit"] * batch.weight).sum()) for batch in fitting) >= 1
    assert len(fitting) == 1


def test_a_single_position_cannot_be_overfitted(overfitted: tuple[RunFolder, dict[str, Any]]) -> None:
    info = replace(open_data(*overfitted).info, mean_positions=1)
    config = overfitted[1] | {"data": overfitted[1]["data"] | {"batch_size": 1}}
    assert Limits.of(config, info).repeats_after == 2
    config["trainer"] = config["trainer"] | {"overfit_batches": 1}
    with pytest.raises(UserError, match=r"overfit_batches=1 with data.batch_size=1 is a single position"):
        Limits.of(config, info)
    config["trainer"] |= {"micro_batch_size": 1}
    data = open_data(overfitted[0], config)
    (window,) = Limits.of(config, data.info).train_batches(data, Share(), "all", None)
    assert window.extras["fit"][0].tolist() == [1, 0] * 16  # of one window, every other position


def test_limits_score_a_part_of_a_split_that_no_share_of_the_work_changes(
    overfitted: tuple[RunFolder, dict[str, Any]],
) -> None:
    data = open_data(*overfitted)
    limits = Limits.of(overfitted[1], data.info)
    most = limits.most("test", None)
    assert most == 3 * 4 * 32
    assert limits.most("test", 10) == 10
    assert limits.most("val", None) is None
    scored = sum(float(batch.weight.sum()) for batch in data.eval_batches("test", Share(), "all", most))
    assert most - 32 < scored <= most


def test_a_fast_dev_run_tries_everything_and_keeps_only_the_record(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("debug=fdr", "loggers=tensorboard", "trainer.profiler=simple") == 0
    said = capsys.readouterr()
    assert "a debug run (trainer.fast_dev_run=1)" in said.err
    folder, record = only_run(Path("outputs/debug"))
    assert (record.status, record.step, record.max_steps) == ("completed", 1, 1)
    assert record.provenance["debug"] == {"trainer.fast_dev_run": 1}
    assert {"val/nll", "test/nll"} <= record.metrics["best"].keys()
    kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert kept == {"config.yaml", "metrics.csv", "profile", "run.json", "test_scores.npz", "train.log"}
    assert "RunCallback" in (folder / "profile" / "fit-simple.txt").read_text(encoding="utf-8")


def test_shares_and_passes_are_recorded_as_batches_and_steps(run_tiny: Callable[..., int]) -> None:
    """… and the same lengths, typed as numbers, are the same run."""
    typed = ["trainer.limit_train_batches=0.05", "trainer.limit_test_batches=0.1", "trainer.val_check_interval=0.5"]
    assert run_tiny("name=p", *typed, "trainer.max_steps=null", "trainer.max_epochs=1") == 0
    _, record = only_run(Path("outputs/p"))
    train_windows = (record.provenance["text"]["tokens"]["train"] - 1) // 32
    batches = int(0.05 * train_windows / 4)
    assert record.max_steps == batches
    assert record.provenance["worked_out"] == {
        "trainer.limit_train_batches": [0.05, batches],
        "trainer.limit_test_batches": [0.1, record.provenance["debug"]["trainer.limit_test_batches"]],
        "trainer.max_epochs": [1, batches],
        "trainer.val_check_interval": [0.5, batches // 2],
    }
    numbers = [f"{key}={value}" for key, value in record.provenance["debug"].items()]
    numbers += [f"trainer.val_check_interval={batches // 2}", f"trainer.max_steps={batches}"]
    assert run_tiny("name=p", *numbers) == 0
    assert only_run(Path("outputs/p"))[1].timing == record.timing


def test_a_profiler_and_detect_anomaly_change_no_number(run_tiny: Callable[..., int]) -> None:
    steps = ["trainer.max_steps=5", "trainer.val_check_interval=5"]
    watched = ["trainer.profiler=pytorch", "trainer.detect_anomaly=true"]
    assert run_tiny("name=plain", *steps) == 0
    assert run_tiny("name=watched", *steps, *watched) == 0
    (plain, record), (folder, other) = (only_run(Path(f"outputs/{name}")) for name in ("plain", "watched"))
    assert (other.identity, other.metrics) == (record.identity, record.metrics)
    rows = [(path / "metrics.csv").read_text(encoding="utf-8") for path in (plain, folder)]
    assert rows[0] == rows[1]
    report, trace = sorted((path.name for path in (folder / "profile").iterdir()), key=lambda name: "trace" in name)
    assert (report, trace.endswith(".pt.trace.json")) == ("fit-pytorch.txt", True)


def test_a_nan_that_detect_anomaly_finds_is_divergence_as_without_it(run_tiny: Callable[..., int]) -> None:
    exploding = ["optimizer.lr=1e20", "optimizer.weight_decay=0", "trainer.gradient_clip_val=null"]
    assert run_tiny("name=d", *exploding, "trainer.detect_anomaly=true", "trainer.profiler=simple") == 0
    folder, record = only_run(Path("outputs/d"))
    assert record.status == "diverged"
    assert "trainer.detect_anomaly" in str(record.error)
    assert (folder / "profile" / "fit-simple.txt").is_file()
