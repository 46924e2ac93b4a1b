"""Whether a member of a batched model is the same when it trains again, among other members, and by itself, for
`scripts/benchmark many`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.many_runs.graphs import Graphed
from benchmarks.many_runs.members import Batched, Single, Work

Weights = dict[str, Tensor]


class Trained(NamedTuple):
    """Losses [steps, R], and the weights of each member afterwards."""

    losses: Tensor
    weights: list[Weights]

    def member(self, number: int) -> Trained:
        return Trained(self.losses[:, number : number + 1], [self.weights[number]])

    def is_equal(self, other: Trained) -> bool:
        """Whether all losses and weights are, bit for bit."""
        pairs = zip(self.weights, other.weights, strict=True)
        same = all(torch.equal(own[name], theirs[name]) for own, theirs in pairs for name in own)
        return same and torch.equal(self.losses, other.losses)

    def distance(self, other: Trained) -> float:
        """The largest relative difference of a loss, or of the vector of all weights, whichever is larger."""
        own, theirs = (torch.cat([w.flatten() for run in each.weights for w in run.values()]) for each in (self, other))
        of_losses = ((self.losses - other.losses) / other.losses).abs().max()
        return max(float(of_losses), float((own - theirs).norm() / theirs.norm()))


def _train(model: Single | Batched | Graphed, steps: int) -> Tensor:
    made = [model.step(*model.batches[i % len(model.batches)]).clone().reshape(-1) for i in range(steps)]
    return torch.stack(made).cpu()


def together(work: Work, steps: int, *, dense: bool, graph: bool = False) -> Trained:
    """All members as one batched model."""
    model = Batched(work, work.members, dense=dense)
    losses = _train(Graphed(model) if graph else model, steps)
    weights = [
        {name: value.detach().cpu() for name, value in model.parameters(r).items()} for r in range(len(model.members))
    ]
    return Trained(losses, weights)


def alone(work: Work, loss: str, steps: int, *, dense: bool, graph: bool = False) -> Trained:
    """The first seed of a loss."""
    run = Single(work, loss, 1, dense=dense)
    losses = _train(Graphed(run) if graph else run, steps)
    return Trained(losses, [{name: value.detach().cpu() for name, value in run.parameters().items()}])


def compare(work: Work, steps: int) -> dict[str, dict[str, Any]]:
    """Compare the first seed of each loss and head with itself: trained again, in a batch without the last seed, as a
    single run, and as a CUDA graph: True, or the distance. `last loss` is the relative difference of the last losses of
    batch and single run, `learned` the last loss of the latter as a share of its first."""
    found: dict[str, dict[str, Any]] = {}
    gpu = work.device == "cuda"
    fewer = replace(work, seeds=max(1, work.seeds - 1))
    for dense in (False, True):
        whole, again = (together(work, steps, dense=dense) for _ in range(2))
        among = together(fewer, steps, dense=dense)
        graphed = together(work, steps, dense=dense, graph=True) if gpu and dense else None
        for loss in work.losses:
            own, other = work.members.index((loss, 1)), fewer.members.index((loss, 1))
            member, elsewhere = whole.member(own), among.member(other)
            run, rerun = (alone(work, loss, steps, dense=dense) for _ in range(2))
            row = {
                "batch again": member.is_equal(again.member(own)),
                f"among {len(fewer.members)}": member.is_equal(elsewhere) or member.distance(elsewhere),
                "single again": run.is_equal(rerun),
                "batch / single": member.is_equal(run) or member.distance(run),
                "last loss": float(abs(member.losses[-1] / run.losses[-1] - 1)),
                "learned": float(run.losses[-1] / run.losses[0]),
            }
            if graphed is not None:
                beside = alone(work, loss, steps, dense=True, graph=True)
                row["graphed batch"] = member.is_equal(graphed.member(own)) or graphed.member(own).distance(member)
                row["graphed single"] = run.is_equal(beside) or beside.distance(run)
            found[f"{loss}, {'dense' if dense else 'our head'}"] = row
    return found


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines for people: bits, or the largest relative difference of a loss."""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    lines = [f"{'':<26}" + "".join(f"{name:>16}" for name in names)]
    for label, row in found.items():
        lines.append(f"{label:<26}" + "".join(f"{_told(row.get(name, '')):>16}" for name in names))
    return lines


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "equal" if value else "differs"
    return value if isinstance(value, str) else f"{value:.1e}" if value < 0.01 else f"{value:.3f}"
