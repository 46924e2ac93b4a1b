"""`losslab check`, as a command: two ranks and the cost need processes, and a process of tests has one fork server."""

from __future__ import annotations

from pathlib import Path

from losslab.conformance.checks import CHECKS
from losslab.conformance.processes import FURTHER
from runs import losslab

OWN = '''
import torch
from torch.nn import functional as F

from losslab.losses.base import Loss
from losslab.contracts import LossSum


class Careless(Loss):
    """Thinks that gradients of ranks are summed, and makes all logits of the batch."""

    def position_loss(self, logits, target):
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return F.cross_entropy(logits, target, reduction="none") / ranks

    def forward(self, features, projection):
        kept = features.kept()
        values = self.position_loss(projection(kept.hidden).float(), kept.target)
        return LossSum((kept.weight * values).sum(), kept.weight.sum())
'''


def run(*arguments: str, cwd: Path) -> tuple[int, list[str]]:
    (cwd / "my_losses.py").write_text(OWN)
    process = losslab("check", *arguments, cwd=cwd)
    output, _ = process.communicate(timeout=180)
    return process.returncode, output.splitlines()


def test_there_is_a_row_for_each_check(tmp_path: Path) -> None:
    code, lines = run("focal", "loss.gamma=3", cwd=tmp_path)
    rows = [*CHECKS, *FURTHER]
    assert code == 0, lines
    assert [line[8:].startswith(name) for line, name in zip(lines, rows, strict=False)] == [True] * len(rows)
    assert all(line.startswith("passed") for line in lines[:-1])
    assert lines[-1] == f"Focal: all {len(rows)} checks passed"


def test_faults_of_ones_own_loss_are_named_with_exit_code_1(tmp_path: Path) -> None:
    code, lines = run("my_losses.Careless", cwd=tmp_path)
    two_ranks, cost = (line for line in lines if line.startswith("FAILED"))
    assert code == 1, lines
    assert "two ranks have another gradient than one process" in two_ranks
    assert "makes logits for all positions" in cost
    assert lines[-1] == f"Careless: 2 of {len(CHECKS) + len(FURTHER)} checks failed"
