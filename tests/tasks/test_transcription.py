"""Transcription: what a loss gets of a batch, what is measured, and a run that learns to read made-up sounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from torch import Tensor

import losslab
from losslab.commands.export import export
from losslab.commands.predict import predict
from losslab.commands.train import train
from losslab.contracts import DataInfo, Features, SplitInfo, TargetKind
from losslab.errors import UserError
from losslab.losses.ctc import CTC
from losslab.losses.execution import LinearMap
from losslab.metrics.transcript_meter import TranscriptMeter
from losslab.run_folder import RunFolder
from losslab.tasks.transcription import Transcription
from made_speech import write_utterances
from runs import only_run

SHAPE = ["model=patches", "model.num_layers=1", "model.num_heads=2", "model.width=32", "model.context=32"]
SHAPE += ["model.positions=rotary"]
BUDGET = ["trainer.max_steps=160", "trainer.val_check_interval=80", "trainer.threads=1", "scheduler.warmup_steps=10"]
DATA = ["data=frames", "data.source.stack=1", "data.source.speaker=null", "data.val_fraction=0.08"]
DATA += ["data.test_fraction=0.12", "data.batch_size=32"]


class Plain(torch.nn.Module):
    width = 2

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["frames"] + 1


def task() -> Transcription:
    found = Transcription()
    size = SplitInfo(4, 4)
    found.bind(DataInfo({"val": size, "test": size}, 1, num_classes=3, class_names=("a", "b", " ")))
    return found


def examples() -> list[dict[str, Any]]:
    frames = [torch.arange(8.0).view(4, 2), torch.ones(2, 2), torch.full((3, 2), 9.0)]
    return [{"frames": f, "text": torch.tensor(t)} for f, t in zip(frames, ([0, 2, 1], [1], [0, 0]), strict=True)]


def test_utterances_stand_one_behind_the_other_without_their_padding() -> None:
    batch = task().collate(examples())
    assert batch.inputs["frames"].shape == (3, 4, 2) and batch.inputs["mask"].sum(dim=1).tolist() == [4, 2, 3]
    assert batch.target.tolist() == [[0, 2, 1], [1, -1, -1], [0, 0, -1]] and batch.weight.tolist() == [1, 1, 1]
    found = task().features(Plain(), batch, TargetKind.SEQUENCES, {})
    assert found.lengths is not None and found.lengths.tolist() == [4, 2, 3]
    assert torch.equal(found.hidden, torch.cat([each["frames"] for each in examples()]) + 1)
    target, weight = task().flat_targets(batch)
    assert torch.equal(target, batch.target) and torch.equal(weight, batch.weight)


def test_padding_and_the_rest_of_a_batch_change_no_loss() -> None:
    weight = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def total(rows: list[dict[str, Any]]) -> float:
        features = task().features(Plain(), task().collate(rows), TargetKind.SEQUENCES, {})
        return CTC()(features, LinearMap(weight, None)).total.item()

    alone = sum(total([row]) for row in examples())
    assert total(examples()) == pytest.approx(alone, rel=1e-6)


def test_metrics_are_sums_over_utterances() -> None:
    """Texts 'a b', 'b' and 'aa', of which the best paths say 'a b', 'a' and ''."""
    paths = [1, 3, 2, 0, 1, 0, 0, 0, 0]
    logits = 4 * torch.nn.functional.one_hot(torch.tensor(paths), 4).float()
    batch = task().collate(examples())
    weight = torch.tensor([1.0, 2.0, 1.0])
    extras = {"unit": torch.tensor([0, 1, 1])}
    features = Features(logits, batch.target, weight, extras, torch.tensor([4, 2, 3]))
    meter = TranscriptMeter(task().names, num_units=2)
    meter.update(features, CTC(), LinearMap(torch.eye(4), None))
    found = meter.values()
    nll = CTC().from_logits(logits.double(), features)
    assert found["nll"] == pytest.approx(float((weight * nll).sum()) / (3 + 2 * 1 + 2), rel=1e-6)
    assert found["objective"] == pytest.approx(found["nll"], rel=1e-6)
    assert found["cer"] == pytest.approx((0 + 2 * 1 + 2) / (3 + 2 * 1 + 2))
    assert found["wer"] == pytest.approx((0 + 2 * 1 + 1) / (2 + 2 * 1 + 1))
    assert found["wrong_utterances"] == pytest.approx((2 + 1) / 4)
    arrays = meter.arrays()
    assert arrays["unit_metrics"].tolist() == ["nll", "cer"]
    assert arrays["units"][[0, 2]].tolist() == [[3, 2 * 1 + 2], [0, 2 * 1 + 2]]
    assert np.isnan(TranscriptMeter(task().names).values()["cer"])


def test_data_without_names_or_classes_is_refused() -> None:
    bare = DataInfo({}, 1)
    with pytest.raises(UserError, match="needs the character of each class"):
        Transcription().bind(bare)
    with pytest.raises(UserError, match="needs texts of classes"):
        Transcription().target_size(bare)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on 720 utterances of one to three of four digits."""
    place = tmp_path_factory.mktemp("speech")
    table = write_utterances(place / "data", 900, longest=3)
    words = ["task=transcription", *SHAPE, *BUDGET, *DATA, f"data.path='{table}'", "loss=ctc", "optimizer.lr=5e-3"]
    assert train([*words, f"output_dir='{place / 'outputs'}'", "loggers=none", "name=speech"]) == 0
    return only_run(place / "outputs/speech")[0]


def rows_of(run: Path) -> list[dict[str, str]]:
    lines = (run.parents[2] / "data/utterances.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_tiny_model_reads_made_up_digits(trained: Path) -> None:
    record = RunFolder(trained).record()
    assert record.metrics["final"]["test/cer"] <= 0.05
    assert record.metrics_info["cer"]["unit"] == "" and record.metrics_info["nll"]["unit"] == "nats per character"
    scores = np.load(RunFolder(trained).scores)
    weight, nll, edits = scores["units"].astype(float)
    assert edits.sum() / weight.sum() == pytest.approx(record.metrics["best"]["test/cer"], rel=1e-5)
    assert nll.sum() / weight.sum() == pytest.approx(record.metrics["best"]["test/nll"], rel=1e-5)


def test_transcripts_are_predicted_of_files_arrays_and_tables(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, rows = trained.parents[2] / "data", rows_of(trained)[:60]
    loaded = losslab.load(trained)
    told = [found["predicted"] for found in loaded.predict([str(folder / row["frames"]) for row in rows])]
    assert jiwer.cer([row["text"] for row in rows], told) <= 0.05
    arrays = [{"frames": np.load(folder / row["frames"])} for row in rows]
    assert [found["predicted"] for found in loaded.predict(arrays)] == told
    assert predict(trained, folder / rows[0]["frames"], output=None, checkpoint="best", trust=[]) == 0
    assert json.loads(capsys.readouterr().out)["predicted"] == told[0]
    (few := folder / "few.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:3]))
    assert predict(trained, few, output=tmp_path / "out.csv", checkpoint="best", trust=[]) == 0
    assert [line.rpartition(",")[2] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == told[:3]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nothing.npy", "row 1 cannot be used: nothing.npy does not exist"),
        ({"frames": np.zeros((3, 5))}, "frames has 5 values a frame in a row, and 8 in train"),
        ({"frames": np.zeros((33, 8))}, "frames has 33 frames in a row, more than data.context=32"),
        ({"frames": np.full((3, 8), np.nan)}, "its frames must be finite numbers"),
        ({"audio": "x.wav"}, "row 1 has no column 'frames', but 'audio'"),
    ],
)
def test_rows_that_cannot_be_predicted_are_refused(trained: Path, row: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        losslab.load(trained).predict([row])


def test_an_export_predicts_the_same(trained: Path, tmp_path: Path) -> None:
    folder = trained.parents[2] / "data" / "frames"
    paths = [str(folder / f"{i}.npy") for i in range(8)]
    export(trained, checkpoint="best", output=tmp_path / "export", trust=[])
    assert losslab.load(tmp_path / "export").predict(paths) == losslab.load(trained).predict(paths)
