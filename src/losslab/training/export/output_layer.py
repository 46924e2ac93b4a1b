"""The linear output layer whose softmax is what a run predicts, for programs that predict in no other way."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.choices import chosen
from losslab.errors import UserError
from losslab.training.network import Network

_LARGEST_LOGITS = (1.0, 10.0, 30.0)
"""Sizes at which the predictions are compared: a soft cap shows only where logits are large."""
_ROWS = 32
_TOLERANCE = 1e-5
"""The largest difference of log-probabilities, in parts of the largest of them; float32 has 6e-8."""


class OutputLayer(NamedTuple):
    """logits = hidden · weightᵀ + bias."""

    weight: Tensor
    """[V, D]."""
    bias: Tensor | None
    """[V]."""


@torch.no_grad()
def output_layer(network: Network) -> OutputLayer:
    """The projection itself, or, in float32, its weights with the factor of the loss: a temperature, a fitted scale.

    Whether the loss predicts that way is found by comparing its predictions with softmax, for made-up hidden states.

    Raises:
        UserError: for a loss that predicts otherwise.
    """
    projection, loss = network.projection, network.loss
    factor = loss.softmax_factor() or 1.0
    weight, bias = projection.weight, projection.bias
    if factor != 1:
        weight, bias = factor * weight.float(), None if bias is None else factor * bias.float()
    exact: Any = deepcopy(projection)
    exact.float()
    hidden = torch.randn(_ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0))
    for largest in _LARGEST_LOGITS:
        found = F.linear(hidden, weight.float()).abs().amax(dim=-1, keepdim=True)
        states = hidden * (largest / found.clamp(min=1e-6))
        predicted = loss.predict_log_probs(loss.scores(states, exact))
        linear = F.linear(states, weight.float(), None if bias is None else bias.float()).log_softmax(dim=-1)
        if predicted.shape != linear.shape or not (predicted - linear).abs().max() < _TOLERANCE * linear.abs().max():
            raise UserError(
                f"transformers' models predict by a softmax of linear logits, and {chosen('loss', loss)} of "
                "this run predicts otherwise (docs/losses.md): --format onnx writes its predictions as they are"
            )
    return OutputLayer(weight, bias)
