"""A task that srun started is a rank. No torch here."""

from __future__ import annotations

import os
import re

from losslab.errors import UserError

_FIRST_PORT, _PORTS = 15000, 17000
"""Below those that Linux hands out by itself."""


def is_task_of_many() -> bool:
    """Whether srun started this process as one of several, and torchrun did not."""
    return (
        "RANK" not in os.environ and "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    )


def become_rank() -> None:
    """Set what torchrun would, from what srun says; nothing where this is no task of several.

    Raises:
        UserError: when srun's variables are not all there.
    """
    if not is_task_of_many():
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

    step = os.environ
    try:
        node = int(step["SLURM_NODEID"])
        ranks = {
            "RANK": step["SLURM_PROCID"],
            "WORLD_SIZE": step["SLURM_STEP_NUM_TASKS"],
            "LOCAL_RANK": step["SLURM_LOCALID"],
            "LOCAL_WORLD_SIZE": str(_tasks_per_node(step["SLURM_STEP_TASKS_PER_NODE"])[node]),
            "NODE_RANK": str(node),
            "GROUP_RANK": str(node),  # torchrun's name of it
        }
        nodes = step["SLURM_STEP_NODELIST"]
        number = int(step["SLURM_JOB_ID"]) * 7 + int(step.get("SLURM_STEP_ID", 0))
    except (KeyError, ValueError, IndexError) as error:
        tasks = step["SLURM_STEP_NUM_TASKS"]
        raise UserError(f"srun started {tasks} tasks, but its variables cannot be read: {error!r}") from None
    step.update(ranks)
    step.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    step.setdefault("MASTER_PORT", str(_FIRST_PORT + number % _PORTS))


def _tasks_per_node(text: str) -> list[int]:
    """SLURM writes 2,2,2,1 as 2(x3),1."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
