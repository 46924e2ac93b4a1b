"""`losslab export`: a trained network for other programs: safetensors, tokenizer.json and config.json."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

import losslab
from losslab.data.tokenizer import tokenizer_of
from losslab.data.tokenizer_json import as_json
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.training.scoring.averaged import AVERAGES
from losslab.training.scoring.loading import DESCRIPTION, WEIGHTS, Loaded
from losslab.training.scoring.stored_info import TOKENIZER


def export(loaded: Loaded, folder: Path) -> list[Path]:
    """Write weights, description and the data's artifacts (tokenizer.json, labels.json) into `folder`.

    Returns their paths. A tied projection is left out: it is the embedding. `losslab.load(folder)` reads the
    export back, bit for bit. Averages of the weights (callbacks=ema) stand in ema.safetensors, in float32, which
    `losslab.load(folder, weights="ema")` reads.

    Raises:
        UserError: when the folder cannot be made.
    """
    make_folder(folder)
    network, tokenizer = loaded.network, tokenizer_of(loaded.info.artifacts)
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    weights = {name: named[name].detach().contiguous() for name in network.state_dict() if name in named}
    about = {
        "format": "losslab export 2",
        "losslab": losslab.__version__,
        "step": loaded.step,
        "scale": loaded.scale,
        "vocab_size": loaded.info.vocab_size,
        "bytes": tokenizer is not None and tokenizer.content is None,
        "data": {key: value for key, value in loaded.info.stored().items() if key != "artifacts"},
        "artifacts": list(loaded.info.artifacts),
        "empty": [name for name, text in loaded.info.artifacts.items() if not text],
        "parameters": sum(p.numel() for p in network.parameters()),
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        "config": loaded.config,
    }
    if loaded.shift:
        about["shift"] = loaded.shift
    contents = {WEIGHTS: save(weights, metadata={"format": "pt"})}
    if loaded.averaged is not None:
        averages = {name: value.contiguous() for name, value in loaded.averaged.weights.items() if name in weights}
        contents[AVERAGES] = save(averages, metadata={"format": "pt"})
        about["ema_scale"] = loaded.averaged.scale
        if loaded.averaged.shift:
            about["ema_shift"] = loaded.averaged.shift
    contents |= {name: text.encode() for name, text in loaded.info.artifacts.items() if text}
    if tokenizer is not None:
        contents[TOKENIZER] = as_json(tokenizer).encode()
    contents[DESCRIPTION] = json.dumps(about, indent=2).encode() + b"\n"
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def make_folder(folder: Path) -> None:
    """Make the folder of an export. Raises UserError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror}") from None
