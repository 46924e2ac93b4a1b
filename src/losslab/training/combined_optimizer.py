"""Several optimizers, each with parameters of its own, as the one that Lightning's automatic optimization expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """Steps its members one after the other. They share one state and one list of parameter groups, so that schedules,
    checkpoints and sharding see a single optimizer.

    Args:
        members: optimizers of disjoint parameters.
    """

    def __init__(self, members: list[Optimizer]) -> None:
        groups = [group for member in members for group in member.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self._members = members
        self.param_groups = groups
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate the closure once, then step every member."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self._members:
            member.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` of an equally built optimizer gave."""
        super().load_state_dict(state_dict)
        self._share()
        for member in self._members:  # each handles what its own states may lack
            member.__setstate__({"state": self.state, "param_groups": member.param_groups})

    def _share(self) -> None:
        """Give each member its slice of the groups, and the one state."""
        start = 0
        for member in self._members:
            end = start + len(member.param_groups)
            member.param_groups = self.param_groups[start:end]
            member.state = self.state
            start = end
