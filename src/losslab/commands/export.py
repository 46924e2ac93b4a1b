"""`losslab export`."""

from __future__ import annotations

from pathlib import Path

from losslab.commands.trusted import let_import, one_run
from losslab.config.nearest import nearest
from losslab.console import say
from losslab.errors import UserError

FOLDERS = {"safetensors": "export", "transformers": "export-transformers", "onnx": "export-onnx"}
"""Formats, and the folders that they are written to."""


def export(
    folder: Path,
    *,
    checkpoint: str,
    output: Path | None,
    trust: list[str],
    format: str = "safetensors",
    weights: str = "raw",
) -> int:
    """Write a trained network for other programs; returns the exit code. Raises UserError for bad input."""
    if format not in FOLDERS:
        raise UserError(f"--format cannot be {format!r}: {nearest(format, FOLDERS)}")
    run, _ = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.models.pretrained import Pretrained
    from losslab.training.export.onnx_format import export_onnx
    from losslab.training.export.pretrained_format import export_pretrained
    from losslab.training.export.transformers_format import export_transformers
    from losslab.training.scoring.exporting import export as export_safetensors
    from losslab.training.scoring.loading import find_checkpoint, rebuild

    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust, weights)
    place = output or folder / FOLDERS[format]
    which = "averages of the weights" if weights == "ema" else "weights"
    what = f"the {which} after step {loaded.step}"
    if format == "transformers":
        if isinstance(loaded.network.backbone, Pretrained):
            paths, about, reader = export_pretrained(loaded, place)
        else:
            paths, about = export_transformers(loaded, place)
            reader = "AutoModelForCausalLM"
        told = f'{what}, as {about}; read them with transformers.{reader}.from_pretrained("{place}")'
    elif format == "onnx":
        paths = export_onnx(loaded, place)
        told = f"{what}: input_ids [batch, time] → logits [batch, time, vocabulary]"
    else:
        paths = export_safetensors(loaded, place)
        told = f'{what}; read them back with losslab.load("{place}")'
    for path in paths:
        say(f"{path}  {path.stat().st_size / 2**20:,.1f} MiB")
    say(told)
    return 0
