"""Training steps as CUDA graphs, for `scripts/benchmark many`."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.many_runs.members import Batched, Single


class Graphed:
    """Steps of a run, or of a batched model, as one CUDA graph: three as they are, then a launch each."""

    _WARM = 3

    def __init__(self, member: Single | Batched) -> None:
        self.member, self.batches = member, member.batches
        self._given = tuple(tensor.clone() for tensor in member.batches[0])
        self._graph: torch.cuda.CUDAGraph | None = None
        self._objective: Tensor | None = None
        self._made = 0

    def step(self, tokens: Tensor, target: Tensor) -> Tensor:
        """As the member's own; the result is overwritten by the next step."""
        for own, new in zip(self._given, (tokens, target), strict=True):
            own.copy_(new)
        self._made += 1
        if self._made <= self._WARM:
            return self._aside()
        if self._graph is None:
            self._capture()
        assert self._graph is not None and self._objective is not None
        self._graph.replay()
        return self._objective

    def _aside(self) -> Tensor:
        """A step on a stream of its own, as a capture needs it before."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = self.member.step(*self._given)
        torch.cuda.current_stream().wait_stream(stream)
        return found

    def _capture(self) -> None:
        self.member.optimizer.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._objective = self.member.step(*self._given)
