"""`losslab export`."""

from __future__ import annotations

from pathlib import Path

from losslab.commands.trusted import let_import, one_run
from losslab.console import say


def export(folder: Path, *, checkpoint: str, output: Path | None, trust: list[str]) -> int:
    """Write safetensors, tokenizer.json and config.json; returns the exit code. Raises UserError for bad input."""
    run, _ = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.training.scoring.exporting import export as write
    from losslab.training.scoring.loading import find_checkpoint, rebuild

    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust)
    for path in write(loaded, output or folder / "export"):
        say(f"{path}  {path.stat().st_size / 2**20:,.1f} MiB")
    say(f'the weights after step {loaded.step}; read them back with losslab.load("{(output or folder / "export")}")')
    return 0
