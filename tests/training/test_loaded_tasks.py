"""The result of `losslab.load` for a task that predicts no next tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from losslab.contracts import DataInfo
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.training.scoring.loading import Loaded


@pytest.mark.parametrize("function", ["logits", "log_probs"])
def test_logits_of_tokens_are_refused_for_another_task_than_next_tokens(function: str) -> None:
    network: Any = SimpleNamespace(task=Classification(), loss=SimpleNamespace(predict_log_probs=None))
    loaded = Loaded(network, DataInfo(splits={}, mean_positions=1, vocab_size=9, num_classes=3), {}, 1, 1.0)
    with pytest.raises(UserError, match="task=classification continues no text"):
        getattr(loaded, function)(torch.zeros(1, 4, dtype=torch.int64))
