"""A run with averages of its weights: its record, checkpoints, `losslab.load` and exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import losslab
from losslab.commands.export import export
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


def test_a_run_without_averages_has_none_to_load(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("trainer.max_steps=2", "trainer.val_check_interval=2") == 0
    run, record = only_run(Path("outputs/runs"))
    assert not any(AVERAGED in name for name in record.metrics_info)
    with pytest.raises(UserError, match="was trained without callbacks=ema"):
        losslab.load(run, weights="ema")
