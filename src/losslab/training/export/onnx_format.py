"""`losslab export --format onnx`: token ids → logits, for onnxruntime and others."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from losslab.choices import chosen
from losslab.contracts import context_of
from losslab.data.tokenizer_json import as_json
from losslab.errors import UserError
from losslab.files import TEMPORARY, write_atomic
from losslab.training.export.packages import need
from losslab.training.network import Network
from losslab.training.scoring.exporting import make_folder
from losslab.training.scoring.loading import Loaded
from losslab.training.scoring.stored_info import TOKENIZER

FILE = "model.onnx"
_EXAMPLE = (2, 5)
"""Batch and time of the tokens that the model is traced with; both stay free."""
_LARGE = 1_500_000_000
"""Bytes of weights that get a file of their own: protobuf ends at 2 GiB."""


class _Logits(nn.Module):
    """int64 [B, T] → float32 [B, T, V] whose softmax is the loss's prediction."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.factor = network.loss.softmax_factor()

    def forward(self, input_ids: Tensor) -> Tensor:
        loss = self.network.loss
        scores = loss.scores(self.network.backbone({"tokens": input_ids}).flatten(0, 1), self.network.projection)
        logits = loss.predict_log_probs(scores) if self.factor is None else self.factor * scores
        return logits.view(*input_ids.shape, -1)


def export_onnx(loaded: Loaded, folder: Path) -> list[Path]:
    """Write model.onnx, in float32, and tokenizer.json; returns their paths.

    The input is `input_ids`, int64 [batch, time], of any batch and of any time up to the model's context; the output
    is `logits`, float32 [batch, time, V]. Their softmax is what the run's loss predicts.

    Raises:
        UserError: where a package is missing, and for a run that predicts no next tokens, or a model that torch cannot
            trace.
    """
    need("onnx", "onnx", "onnxscript", format="onnx")
    network = deepcopy(loaded.network).float()
    if not network.task.continues_texts:
        raise UserError(
            f"--format onnx writes models that continue a text, and {chosen('task', network.task)} does not: "
            "--format safetensors writes its weights"
        )
    make_folder(folder)
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", max=context_of(network.backbone))}
    try:
        with _quiet():
            program = torch.onnx.export(
                _Logits(network).eval(),
                (torch.zeros(_EXAMPLE, dtype=torch.int64),),
                dynamo=True,
                dynamic_shapes={"input_ids": dimensions},
                input_names=["input_ids"],
                output_names=["logits"],
                verbose=False,
            )
    except Exception as error:  # whatever the code of a person's own model raises when it is traced
        words = " ".join(str(error).split())
        raise UserError(f"torch.onnx cannot trace {type(network.backbone).__name__}: {words:.300}") from None
    assert program is not None
    large = sum(parameter.nbytes for parameter in network.parameters()) > _LARGE
    written = _save(program, folder, large=large)
    write_atomic(folder / TOKENIZER, as_json(loaded.tokenizer).encode())
    return [*written, folder / TOKENIZER]


def _save(program: torch.onnx.ONNXProgram, folder: Path, *, large: bool) -> list[Path]:
    """Write the graph, and a large one's weights into a file beside it, which takes its name first."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".onnx.", suffix=TEMPORARY) as temporary:
        program.save(Path(temporary) / FILE, external_data=large)
        names = sorted((path.name for path in Path(temporary).iterdir()), reverse=True)
        for name in names:
            (Path(temporary) / name).replace(folder / name)
    return [folder / name for name in reversed(names)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch reports of its own work, such as packages for pictures that are not there."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
