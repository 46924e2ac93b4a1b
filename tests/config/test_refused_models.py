"""Models that a task or a split of the batch rules out, before any data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslab.errors import UserError
from losslab.training.factory import check_components

BIDIRECTIONAL = ["model=encoder", "model=patches", "model=lstm model.bidirectional=true"]


@pytest.mark.parametrize("words", [*BIDIRECTIONAL, "model=transformer_2017 model.bidirectional=true"])
def test_a_model_that_reads_ahead_is_refused_for_language_modelling(words: str, settle: Any) -> None:
    named = r"task=LanguageModeling predicts what follows it.*choose model"
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
