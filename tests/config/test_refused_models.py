"""Models that a task or a split of the batch rules out, before any data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslab.contracts import DataInfo
from losslab.errors import UserError
from losslab.training.factory import build_backbone, check_components

VECTORS = DataInfo(splits={}, mean_positions=1, frame_width=5)
BIDIRECTIONAL = ["model=encoder", "model=patches", "model=lstm model.bidirectional=true"]


@pytest.mark.parametrize("words", [*BIDIRECTIONAL, "model=transformer_2017 model.bidirectional=true"])
def test_a_model_that_reads_ahead_is_refused_for_language_modelling(words: str, settle: Any) -> None:
    named = r"task=lm predicts what follows it.*choose model"
    with pytest.raises(UserError, match=named):
        check_components(settle(*words.split()))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("trainer.accumulate_grad_batches=2", "this batch is split into 2 parts"),
        ("trainer=ddp trainer.devices=2", "this batch is split into 2 parts"),
        ("trainer.activation_checkpointing=true", "computes each layer twice"),
    ],
)
def test_batch_norm_is_refused_where_it_cannot_be_exact(words: str, named: str, settle: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    task = ["task=classification", "data=csv", f"data.path={tmp_path}/rows.csv"]
    batch_norm = [*task, "model=encoder", "model.norm=batch"]
    check_components(settle(*batch_norm))
    with pytest.raises(UserError, match=named):
        check_components(settle(*batch_norm, *words.split()))
    check_components(settle(*task, "model=encoder", *words.split()))


def test_the_width_of_vectors_comes_from_the_data(settle: Any) -> None:
    config = settle("model=patches", "model.width=8", "model.num_heads=2")
    assert "frame_width" not in config["model"]
    restored = DataInfo.restored(VECTORS.stored())
    assert build_backbone(config, restored).embedding.weight.shape == (8, 5)
    assert "frame_width" not in DataInfo(splits={}, mean_positions=1, vocab_size=7).stored(), "as checkpoints were"
    with pytest.raises(UserError, match=r"model=patches needs frame_width, and this data has no vectors"):
        build_backbone(config, DataInfo(splits={}, mean_positions=1, vocab_size=7))
    with pytest.raises(UserError, match=r"model=encoder needs vocab_size, and this data has no vocabulary"):
        build_backbone(settle("model=encoder"), VECTORS)
