"""Regression: standardised targets, every loss of values, and predictions in their unit."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import losslab
from losses.cases import CASES, Case
from losslab.commands.compare import compare
from losslab.commands.evaluate import evaluate
from losslab.commands.export import export
from losslab.commands.train import train
from losslab.contracts import Batch, DataInfo, SplitInfo, TargetKind, ValueStats
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.goldfish import Goldfish
from losslab.losses.hl_gauss import HLGauss
from losslab.losses.mse import MSE
from losslab.losses.quantile import Quantile
from losslab.models.decoder import Decoder
from losslab.records import read
from losslab.tasks.regression import Regression
from losslab.tasks.tagging import Tagging
from losslab.training.fitting import check_kinds
from losslab.training.network import Network
from runs import find_runs

LOSSES = [case for case in CASES if case.loss.target_kind is TargetKind.VALUES]
VALUES = np.array([[1000.0, 2.0], [1100.0, -1.0], [1250.0, 0.5]])
STATS = ValueStats(*(tuple(of(VALUES, axis=0)) for of in (np.mean, np.std, np.min, np.max)))
INFO = DataInfo(splits={"test": SplitInfo(3)}, mean_positions=1, vocab_size=11, num_values=2, value_stats=STATS)


class Tokens(torch.nn.Module):
    """The hidden state of a token is its id."""

    width = 1

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["tokens"][..., None].float()


def batch(task: Regression, values: np.ndarray = VALUES) -> Batch:
    texts = [torch.tensor(text) for text in ([1, 2, 3], [5], [7, 9])]
    return task.collate([{"text": t, task.target: torch.tensor(v)} for t, v in zip(texts, values, strict=True)])


def network_of(task: Regression, loss: Loss) -> Network:
    generator = torch.Generator().manual_seed(0)
    backbone = Decoder(
        num_layers=1, num_heads=1, width=8, context=4, vocab_size=11, tie_embeddings=False, generator=generator
    )
    return Network(backbone=backbone, loss=loss, task=task, info=INFO, head_init=generator)


def test_a_loss_sees_standard_deviations_of_train() -> None:
    task = Regression(target="values")
    task.bind(INFO)
    features = task.features(Tokens(), batch(task), TargetKind.VALUES, {})
    expected = (VALUES - VALUES.mean(axis=0)) / VALUES.std(axis=0)
    assert features.target.dtype == torch.float32
    np.testing.assert_allclose(features.target.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(features.extras["value"].numpy(), VALUES)
    np.testing.assert_allclose(task.in_units(features.target).numpy(), VALUES, rtol=1e-6)
    assert task.value_range(INFO) == (pytest.approx(expected.min()), pytest.approx(expected.max()))
    assert features.hidden.tolist() == [[2.0], [5.0], [8.0]]
    target, weight = task.flat_targets(batch(task))
    assert torch.equal(target, features.target) and torch.equal(weight, features.weight)


def test_far_values_lose_no_digits() -> None:
    values = np.array([[1.7e9 + 1.0], [1.7e9 + 2.0], [1.7e9 + 3.0]])  # seconds since 1970: float32 has steps of 128
    task = Regression()
    stats = ValueStats(*(tuple(of(values, axis=0)) for of in (np.mean, np.std, np.min, np.max)))
    task.bind(DataInfo(splits={}, mean_positions=1, num_values=1, value_stats=stats))
    assert task.flat_targets(batch(task, values))[0][:, 0].tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])


def test_values_stay_as_they_are_on_request() -> None:
    task = Regression(target="values", standardise=False, unit="cm")
    task.bind(INFO)
    np.testing.assert_array_equal(task.flat_targets(batch(task))[0].numpy(), VALUES.astype(np.float32))
    assert task.value_range(INFO) == (-1.0, 1250.0)
    assert next(metric.unit for metric in task.metrics if metric.name == task.primary) == "cm"


def test_data_that_cannot_be_standardised_is_refused() -> None:
    constant = STATS._replace(min=(1000.0, 2.0), max=(1250.0, 2.0))
    with pytest.raises(UserError, match="every row of train has the same number 2 of its values"):
        Regression(target="values").bind(DataInfo({}, 1, num_values=2, value_stats=constant))
    with pytest.raises(UserError, match=r"set task\.standardise=false"):
        Regression().bind(DataInfo({}, 1, num_values=1))
    with pytest.raises(UserError, match="needs values"):
        Regression().bind(DataInfo({}, 1, num_classes=2))


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_loss_of_values_trains_and_is_measured(case: Case) -> None:
    task = Regression(target="values", pooling="last")
    network = network_of(task, case.make())
    sums = network(batch(task))
    (sums.total / sums.weight).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.backbone.parameters())
    meter = task.meter(INFO, "test", {}, thorough=True)
    with torch.no_grad():
        network(batch(task), meter.update)
        found = task.features(network.backbone, batch(task), TargetKind.VALUES, {})
        predicted = network.loss.predict_values(network.loss.scores(found.hidden, network.projection))
    values = meter.values()
    assert values.keys() <= {metric.name for metric in task.metrics}
    error = (predicted.double().numpy() * VALUES.std(axis=0) + VALUES.mean(axis=0)) - VALUES
    assert values["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-9)


def test_the_range_of_a_histogram_follows_standardisation() -> None:
    for standardise in (True, False):
        loss = HLGauss(num_bins=50, low=None, high=None)
        task = Regression(target="values", standardise=standardise)
        network = network_of(task, loss)
        (low, high), margin = task.value_range(INFO) or (0, 0), 2 * loss.sigma * (loss.high - loss.low) / 50
        assert (loss.low, loss.high) == (pytest.approx(low - margin), pytest.approx(high + margin))
        assert bool(loss.log_density(network(batch(task), _scores), network(batch(task), _targets)).isfinite().all())
    with pytest.raises(UserError, match=r"from -1 to 1250 .* write loss\.low=null loss\.high=null"):
        network_of(Regression(target="values", standardise=False), HLGauss())
    with pytest.raises(UserError, match="null together"):
        HLGauss(low=None)


def _scores(features, loss, projection) -> Tensor:
    return loss.scores(features.hidden, projection)


def _targets(features, loss, projection) -> Tensor:
    return features.target


def test_a_loss_of_classes_is_refused_with_what_fits() -> None:
    check_kinds(Quantile(), Regression())
    with pytest.raises(UserError) as refused:
        check_kinds(CrossEntropy(), Regression())
    ours = refused.value.args[0].partition("this task goes with loss=")
    assert "this loss goes with task=classification, " in ours[0] and " or translation, and " in ours[0]
    assert all(case.name in ours[2] for case in LOSSES) and "focal" not in ours[2]
    with pytest.raises(UserError, match=r"does not give: this loss goes with task=.*lm") as refused:
        check_kinds(Goldfish(), Tagging())
    losses = refused.value.args[0].partition("this task goes with loss=")[2]
    assert losses and "goldfish" not in losses and "unlikelihood" not in losses
    with pytest.raises(UserError, match="this loss goes with task=regression"):
        check_kinds(MSE(), Tagging())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs on lengths in cm; the targets of test are all the same."""
    folder = tmp_path_factory.mktemp("regression")
    rng = random.Random(0)
    for split, size in (("train", 40), ("val", 12), ("test", 12)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "length"])
            for _ in range(size):
                text = "".join(rng.choices("ab", k=rng.randint(1, 8)))
                writer.writerow([text, 1100 if split == "test" else 1000 + 50 * text.count("a")])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["task=regression", "task.unit=cm", "data=csv", "data.columns.value=length", "data.path=train.csv"]
        words += ["data.val_path=val.csv", "data.test_path=test.csv", "model.num_layers=1", "model.num_heads=1"]
        words += ["model.width=16", "model.context=12", "trainer.max_steps=8", "trainer.threads=1", "loggers=none"]
        words += ["trainer.val_check_interval=4", "scheduler.warmup_steps=2", "optimizer.lr=0.02"]
        for loss in ("mse", "gaussian_nll"):
            assert train([*words, f"loss={loss}", "name=lengths"]) == 0
    return folder / "outputs/lengths"


def test_a_run_reports_and_predicts_in_units(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = next(run for run in find_runs(sweep) if run.name.startswith("gaussian_nll"))
    record, loaded = read(run), losslab.load(run)
    assert (record.status, record.primary, record.metrics_info["rmse"]["unit"]) == ("completed", "rmse", "cm")
    with (sweep.parents[1] / "train.csv").open() as file:
        values = np.array([[float(row["length"])] for row in csv.DictReader(file)])
    stats = loaded.info.value_stats
    assert stats is not None
    for name, of in {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}.items():
        np.testing.assert_allclose(getattr(stats, name), of(values, axis=0), rtol=1e-12)
    with (sweep.parents[1] / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    predicted = [each["predicted"] for each in loaded.predict([{"text": row["text"]} for row in rows])]
    assert 950 < min(predicted) < max(predicted) < 1450
    errors = np.array(predicted) - [float(row["length"]) for row in rows]
    assert record.metrics["best"]["val/rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
    assert 0 < record.metrics["best"]["test/width_80"] < record.metrics["best"]["test/width_95"]
    with np.load(run / "test_scores.npz") as kept:
        assert kept["units"].shape == (2, 12) and kept["unit_metrics"].tolist() == ["mae"]
        assert kept["units"][1].sum() / kept["units"][0].sum() == pytest.approx(record.metrics["best"]["test/mae"])
        errors = np.abs(kept["predicted"] - kept["target"])[:, 0]
        assert kept["target"].tolist() == [[1100.0]] * 12 and kept["units"][1] == pytest.approx(errors)
    assert evaluate(run, checkpoint="best", split=None, overrides=[], trust=[]) == 0
    entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert entry["metrics"]["test/rmse"] == record.metrics["best"]["test/rmse"]
    assert capsys.readouterr().out.split("pearson")[1].split()[0] == "—"
    val = sweep.parents[1] / "val.csv"
    assert evaluate(run, checkpoint="best", split=None, overrides=[f"data.test_path={val}"], trust=[]) == 0
    entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert entry["metrics"]["test/rmse"] == record.metrics["best"]["val/rmse"] and not entry["own_text"]
    assert f"on test of another text: data.test_path={val}" in capsys.readouterr().out
    assert export(run, checkpoint="best", output=tmp_path / "exported", trust=[]) == 0
    exported = losslab.load(tmp_path / "exported")
    assert exported.predict(["abab"]) == loaded.predict(["abab"])


def test_what_is_not_defined_is_null_in_the_record_and_no_obstacle(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = read(find_runs(sweep)[0]).metrics["best"]
    assert best["test/pearson"] is None and best["test/r2"] == 0.0 and math.isfinite(best["val/pearson"])
    assert compare(sweep, baseline="mse") == 0
    summary = next(sweep.glob("comparison*/report.html")).read_text()
    assert "Two noises" in summary and "mae" in summary
    assert "smallest test/rmse (root mean squared error, cm)" in capsys.readouterr().out
    with pytest.raises(UserError, match="test/pearson is not finite"):
        compare(sweep, baseline="mse", metric="test/pearson")
