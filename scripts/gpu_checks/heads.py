"""Costs of the final loss: `losslab bench` at the shape of a large model's head."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from gpu_checks.tools import Sizes, Table, losslab

WAYS = {
    "F1": "focal",
    "F2": "kl_divergence",
    "F3": "brier",
    "F4": "square",
    "F5": "goldfish",
}
"""How losslab executes a loss → one that is executed so."""
COLUMNS = ["loss", "seconds", "of dense", "of its own dense", "MiB", "MiB of dense", "MiB of its own dense"]
_ROW = re.compile(r"^(?P<label>\S.*?)\s{2,}(?P<cells>[0-9.]+(?:\s+[0-9.–]+){5})$", re.M)


def heads(sizes: Sizes) -> list[Table]:
    """Dense, compiled, torch's chunked, Liger and ours; then one loss of each way that ours has."""
    shape = [
        f"data.vocab_size={sizes.num_outputs}",
        f"model.width={sizes.width}",
        "model.num_heads=1",
        "model.context=64",
        f"data.batch_size={sizes.positions // 64}",
        "trainer.precision=bf16-mixed",
        *sizes.trainer,
        "--rounds",
        str(sizes.rounds),
    ]
    compiled = ["trainer.compile=true"] if sizes.device == "cuda" else []
    engines = ["loss=cross_entropy", "loss.backend=dense,torch,liger,chunked", *compiled]
    with tempfile.TemporaryDirectory() as folder:
        return [
            _table(losslab("bench", *overrides, *shape, cwd=Path(folder)))
            for overrides in (engines, [f"loss={','.join(WAYS.values())}"])
        ]


def _table(output: str) -> Table:
    table = Table(COLUMNS)
    for found in _ROW.finditer(output):
        cells = [cell if cell == "–" else float(cell) for cell in found["cells"].split()]
        table.rows.append([found["label"], *cells])
    if not table.rows:
        table.wrong.append("losslab bench printed no table")
    table.note = " · ".join([output.splitlines()[0], *re.findall(r"^.*own engine was measured$", output, re.M)])
    return table
