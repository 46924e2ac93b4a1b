"""A run with averages of its weights: its record, checkpoints, `losslab.load` and exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import losslab
from losslab.commands.export import export
from losslab.commands.generate import generate
from losslab.commands.predict import predict
from losslab.errors import UserError
from losslab.metric import AVERAGED
from losslab.run_folder import RunFolder
from runs import only_run


def test_averages_are_scored_recorded_loaded_and_exported(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["loss=square", "trainer.max_steps=4", "trainer.val_check_interval=2"]
    assert run_tiny(*options, "callbacks=ema", "callbacks.ema.decay=0.8") == 0
    run, record = only_run(Path("outputs/runs"))
    for metrics in record.metrics.values():
        for name in ("val/ema/nll_scaled", "test/ema/nll_scaled", "test/ema/ece", "val/ema/scale"):
            assert metrics[name] != metrics[name.replace(AVERAGED, "")], name
    declared = record.metrics_info
    assert declared["ema/nll_scaled"]["higher_is_better"] == declared["nll_scaled"]["higher_is_better"]
    assert record.primary == "nll_scaled"
    raw, averaged = losslab.load(run), losslab.load(run, weights="ema")
    assert raw.scale == record.metrics["best"]["val/scale"]
    assert averaged.scale == record.metrics["best"]["val/ema/scale"]
    content = torch.load(RunFolder(run).best, weights_only=True)
    kept = content["ema"]
    assert kept["updates"] == 4
    for name, value in averaged.network.state_dict().items():
        assert torch.equal(value, kept["weights"].get(name, value)), name
    for name, value in raw.network.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"network.{name}"]), name
    assert export(run, checkpoint="best", output=None, trust=[]) == 0
    assert export(run, checkpoint="best", output=Path("averages"), trust=[], weights="ema") == 0
    tokens = raw.encode("word after word")
    for found, expected in (
        (losslab.load(run / "export"), raw),
        (losslab.load(run / "export", weights="ema"), averaged),
        (losslab.load("averages"), averaged),
    ):
        assert torch.equal(found.logits(tokens), expected.logits(tokens))
        assert found.scale == expected.scale
    assert not torch.equal(raw.logits(tokens), averaged.logits(tokens))
    with pytest.raises(UserError, match="weights cannot be 'emma': did you mean 'ema'"):
        losslab.load(run, weights="emma")
    capsys.readouterr()
    _generate(run)
    ours = capsys.readouterr()
    assert "predictions are those of the weights themselves; --weights ema takes the averages" in ours.err
    _generate(run, weights="ema")
    theirs = capsys.readouterr()
    assert "predictions are those of the averages that callbacks=ema kept" in theirs.err
    assert (ours.out, theirs.out) == tuple(
        loaded.generate("word", max_tokens=12, temperature=0.0) + "\n" for loaded in (raw, averaged)
    )


def _generate(run: Path, **options: str) -> None:
    settings = {"prompt_file": None, "max_tokens": 12, "temperature": 0.0, "top_k": None, "top_p": 1.0, "seed": 0}
    more = {"num_samples": 1, "calibrated": False, "device": "cpu", "checkpoint": "best", "trust": []}
    assert generate(run, prompt="word", **settings, **more, **options) == 0  # type: ignore[arg-type]


def test_rows_are_predicted_by_the_weights_or_their_averages(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"text": f"row {i}", "label": str(i % 2)}) for i in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows) + "\n")
    words = ["task=classification", "model=encoder", "data=jsonl", "data.path=rows.jsonl", "trainer.max_steps=4"]
    assert run_tiny(*words, "trainer.val_check_interval=2", "callbacks=ema", "callbacks.ema.decay=0.8") == 0
    run, _ = only_run(Path("outputs/runs"))
    capsys.readouterr()
    for weights, told in (
        ("raw", "the weights themselves; --weights ema takes"),
        ("ema", "the averages that callbacks"),
    ):
        assert predict(run, Path("rows.jsonl"), output=None, checkpoint="best", trust=[], weights=weights) == 0
        found = capsys.readouterr()
        assert f"note: predictions are those of {told}" in found.err
        first = json.loads(found.out.splitlines()[0])
        expected = losslab.load(run, weights=weights).predict([{"text": first["text"]}])[0]
        assert first["probabilities"] == pytest.approx(expected["probabilities"], rel=1e-5)
    with pytest.raises(UserError, match="weights cannot be 'average': there are ema, raw"):
        predict(run, Path("rows.jsonl"), output=None, checkpoint="best", trust=[], weights="average")


def test_a_run_without_averages_has_none_to_load(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("trainer.max_steps=2", "trainer.val_check_interval=2") == 0
    run, record = only_run(Path("outputs/runs"))
    assert not any(AVERAGED in name for name in record.metrics_info)
    with pytest.raises(UserError, match="was trained without callbacks=ema"):
        losslab.load(run, weights="ema")


def test_averages_of_labels_keep_the_shift_that_was_fitted_for_them(run_tiny: Callable[..., int]) -> None:
    labels: list[list[str]] = [[], ["red"], ["red", "blue"]]
    rows = [json.dumps({"text": f"row {i}", "labels": labels[i % 3]}) for i in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows) + "\n")
    words = ["task=multilabel", "loss=binary_cross_entropy", "model=encoder", "data=jsonl", "data.path=rows.jsonl"]
    words += ["trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks=ema", "callbacks.ema.decay=0.5"]
    assert run_tiny(*words) == 0
    run, record = only_run(Path("outputs/runs"))
    export(run, checkpoint="best", output=None, trust=[])
    for weights, part in (("raw", ""), ("ema", AVERAGED)):
        fitted = record.metrics["best"][f"val/{part}scale"], record.metrics["best"][f"val/{part}shift"]
        for place in (run, run / "export"):
            found = losslab.load(place, weights=weights)
            assert (found.scale, found.shift) == fitted
    assert record.metrics["best"]["val/shift"] != record.metrics["best"]["val/ema/shift"]
