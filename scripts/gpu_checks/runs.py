"""Whole runs on the device: precision, resume, compile, sharding."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from stopped_runs import STEPS, make_run, remains, train

from gpu_checks.tools import Sizes, Table, losslab, records, tiny, write_text
from losslab import console
from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.records import read

FAMILIES = {
    "cross_entropy": "F1, log p_y",
    "kl_divergence": "F2, statistics",
    "brier": "F3, all logits",
    "entmax": "F3, sparse",
    "hinge": "F3, margins",
    "square": "F4, no logits",
    "unlikelihood": "F5, extras",
}
RELATIVE = 1e-3
"""How far float32 may be from itself when kernels are fused or weights are sharded."""
OF_HALF = 0.1
"""How far half precision may end from float32. Hinge strays furthest, by 5 %: its gradient jumps at each margin."""
METRIC = "val/objective"
"""Finite for every loss: entmax gives some targets no probability at all."""


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_text(folder / "book.txt", words=6000)
        yield folder


def half_precision_trains(sizes: Sizes) -> list[Table]:
    """One loss of each way of execution under the scaler, beside float32."""
    table = Table(["loss", "executed as", f"{METRIC} float32", f"{METRIC} {sizes.half}", "relative difference"])
    with workplace() as folder:
        losses = f"loss={','.join(FAMILIES)}"
        for name, precision in {"exact": "32-true", "half": sizes.half}.items():
            losslab("train", "-m", f"name={name}", losses, f"trainer.precision={precision}", *tiny(sizes), cwd=folder)
        exact, half = (records(folder / "outputs" / name) for name in ("exact", "half"))
    for loss, family in FAMILIES.items():
        a, b = (found[loss].metrics["final"][METRIC] for found in (exact, half))
        difference = abs(a - b) / abs(a)
        table.rows.append([loss, family, a, b, difference])
        if not difference <= OF_HALF:
            table.wrong.append(f"{loss} in {sizes.half} ends {difference:.1%} from float32")
    return [table]


def resumes_bit_for_bit(sizes: Sizes) -> list[Table]:
    """A run with dropout, stopped in three steps by a signal, against the undisturbed one."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    console.out.quiet = True
    stops = (1, STEPS // 2, STEPS - 1)
    table = Table(["stopped in step", "the same bits"])
    with workplace() as folder:
        options = [*tiny(sizes), f"data.path={folder / 'book.txt'}", "model.dropout=0.1", f"trainer.max_steps={STEPS}"]
        options += ["trainer.deterministic=true", "trainer.val_check_interval=5", "checkpoints.every_n_steps=4"]
        options += ["trainer.precision=bf16-mixed", "loggers=tensorboard", "trainer.enable_progress_bar=false"]
        composed = bind_components(check_run(compose_plain(options)))
        config = resolve_split(resolve_budget(composed))
        for name in ("whole", *map(str, stops)):
            make_run(folder / name, yaml.safe_load(yaml.safe_dump(config)))
        train(folder / "whole")
        expected = remains(folder / "whole")
        for stop in stops:
            run = folder / str(stop)
            train(run, stop_in=stop)
            train(run, after=stop)
            found = remains(run)
            other = [part for part in expected if found[part] != expected[part]]
            table.rows.append([stop, "yes" if not other else f"not in {', '.join(other)}"])
            if other:
                table.wrong.append(f"stopped in step {stop}, {', '.join(other)} differ")
    return [table]


def compiled_equals_eager(sizes: Sizes) -> list[Table]:
    return [_pair(sizes, "trainer.compile", {"eager": [], "compiled": ["trainer.compile=true"]})]


def fsdp_equals_one_process(sizes: Sizes) -> list[Table]:
    return [_pair(sizes, "strategy", {"one process": [], "fsdp": ["trainer=fsdp"]})]


def _pair(sizes: Sizes, what: str, variants: dict[str, list[str]]) -> Table:
    """The same run in two ways that may differ by rounding alone."""
    table = Table([what, METRIC, "tokens/s"])
    with workplace() as folder:
        for number, options in enumerate(variants.values()):
            exact = [*options, *tiny(sizes), "trainer.precision=32-true"]
            losslab("train", f"name=n{number}", *exact, cwd=folder)
        found = [read(next((folder / f"outputs/n{i}").glob("*/run.json")).parent) for i in range(len(variants))]
    values = [record.metrics["final"][METRIC] for record in found]
    table.rows = [
        [name, value, record.throughput["tokens_per_second"]]
        for name, value, record in zip(variants, values, found, strict=True)
    ]
    if not abs(values[0] - values[1]) <= RELATIVE * abs(values[0]):
        table.wrong.append(f"{METRIC} is {values[0]:.6f} and {values[1]:.6f}")
    return table
