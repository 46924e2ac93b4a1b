"""Steps that wait for no number: they fail here if anything in them waits for the device, and end as steps that do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import yaml
from stopped_runs import make_run, remains

from gpu_checks.runs import workplace
from gpu_checks.tools import Sizes, Table, tiny
from losslab import console
from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.run_folder import RunFolder
from losslab.training import module as training_module
from losslab.training.module import LossModule
from losslab.training.run import execute

STEPS, LOGGED = {"cuda": 200, "cpu": 20}, 10


def waits_for_no_number(sizes: Sizes) -> list[Table]:
    """A run in which whatever waits in a step that is not logged raises, beside one that reads each step at once."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    console.out.quiet = True
    table = Table(["numbers of a step", "tokens/s", "the same bits"])
    with workplace() as folder:
        options = [*tiny(sizes), f"data.path={folder / 'book.txt'}", f"trainer.max_steps={STEPS[sizes.device]}"]
        options += [
            "trainer.deterministic=true",
            f"trainer.val_check_interval={STEPS[sizes.device]}",
            "trainer.gradient_clip_val=0.5",
        ]
        options += [f"trainer.log_every_n_steps={LOGGED}", "trainer.precision=bf16-mixed", "loggers=tensorboard"]
        options += ["trainer.enable_progress_bar=false"]
        config = resolve_split(resolve_budget(bind_components(check_run(compose_plain(options)))))
        found: dict[str, Any] = {}
        for late in (False, True, False, True):  # the first of each warms up
            name = "read with the next step" if late else "read at once"
            run = RunFolder(folder / f"{late}-{len(table.rows)}-{len(found)}-{name in found}")
            make_run(run.path, yaml.safe_load(yaml.safe_dump(config)))
            with _ways(late, strict=late and name not in found and sizes.device == "cuda"):
                record = execute(run)
            if record.status != "completed":
                raise RuntimeError(f"{name}: {record.error}")
            found[name] = remains(run.path), record.throughput["tokens_per_second"]
    (at_once, _), (later, _) = found.values()
    same = all(at_once[part] == later[part] for part in at_once)
    table.rows = [[name, speed, "yes" if same else "no"] for name, (_, speed) in found.items()]
    if not same:
        table.wrong.append("numbers that are read late give another run")
    return [table]


@contextmanager
def _ways(late: bool, *, strict: bool) -> Iterator[None]:
    """Read numbers late, on the CPU of a dry run too, or at once.

    Args:
        strict: raise where anything waits for the device between the beginning of a step that is not logged and that of
            the next one: its backward pass, its optimizer, all callbacks and the copy of the next batch.
    """
    training_step = LossModule.training_step

    def guarded(module: LossModule, *arguments: Any) -> Any:
        logged = module.is_logged(module.trainer.global_step + 1)
        torch.cuda.set_sync_debug_mode("default" if logged else "error")
        return training_step(module, *arguments)

    with ExitStack() as stack:
        stack.enter_context(patch.object(training_module, "reads_late", lambda device: late))
        if strict:
            stack.callback(torch.cuda.set_sync_debug_mode, "default")
            stack.enter_context(patch.object(LossModule, "training_step", guarded))
        yield
