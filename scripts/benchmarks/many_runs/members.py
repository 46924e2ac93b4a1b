"""Small runs that train on one device, for `scripts/benchmark many`: one by itself, and R of one shape as one batched
model. The same weights, batches, AdamW and clipping in each; dropout is 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.tools.shape import Shape
from losslab.contracts import Features
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.execution import LinearMap
from losslab.losses.focal import Focal
from losslab.losses.poly1 import Poly1
from losslab.models.decoder import Decoder
from losslab.products import quicken

LARGEST_NORM = 1.0
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY = 0.1
BATCHES = 4
"""Batches of a seed, which come again and again."""


class Smoothed(CrossEntropy):
    """Cross-entropy with label smoothing, whose weights of the logits are made once and stay on the device."""

    def __init__(self) -> None:
        super().__init__(label_smoothing=0.1)
        self._weights: Tensor | None = None

    def prepare(self, num_outputs: int, device: str) -> None:
        weights = super().linear_weights(num_outputs)
        self._weights = None if weights is None else weights.to(device)

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        return super().linear_weights(num_outputs) if self._weights is None else self._weights


LOSSES: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "smoothing": Smoothed,
    "focal": Focal,
    "poly1": Poly1,
    "brier": Brier,
}


@dataclass(frozen=True)
class Work:
    """Runs of one shape."""

    shape: Shape
    device: str
    losses: tuple[str, ...] = tuple(LOSSES)
    seeds: int = 4
    dtype: torch.dtype = torch.float32

    @property
    def members(self) -> list[tuple[str, int]]:
        """Loss and seed of each run; those of one loss stand together."""
        return [(loss, seed) for loss in self.losses for seed in range(1, self.seeds + 1)]

    def loss(self, name: str) -> Loss:
        made = LOSSES[name]()
        if isinstance(made, Smoothed):
            made.prepare(self.shape.vocab_size, self.device)
        return made.to(self.device)

    def backbone(self, seed: int) -> Decoder:
        shape = self.shape
        made = Decoder(
            num_layers=shape.layers,
            num_heads=shape.heads,
            width=shape.width,
            context=shape.context,
            vocab_size=shape.vocab_size,
            generator=torch.Generator().manual_seed(seed),
        )
        return made.to(self.device, self.dtype)

    def tokens(self, seed: int) -> list[tuple[Tensor, Tensor]]:
        """`BATCHES` of tokens and targets [B, T]. A token follows from the one before it and chance, so that there is
        something to learn."""
        shape, generator = self.shape, torch.Generator().manual_seed(seed)
        size = (BATCHES * shape.batch_size, shape.context + 1)
        noise = torch.tensor([1, 2, 3, 5])[torch.randint(4, size, generator=generator)]
        stream = torch.randint(shape.vocab_size, size, generator=generator)
        for i in range(shape.context):
            stream[:, i + 1] = (7 * stream[:, i] + noise[:, i]) % shape.vocab_size
        stream = stream.to(self.device)
        return [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in stream.chunk(BATCHES)]


def _optimizer(parameters: Iterable[tuple[str, Tensor]], dims: int, device: str) -> torch.optim.AdamW:
    """Weights of at least `dims` dimensions decay, but for embeddings."""
    decays: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in parameters:
        decays[parameter.ndim >= dims and "embedding" not in name].append(parameter)
    groups = [{"params": chosen, "weight_decay": DECAY if does else 0.0} for does, chosen in decays.items()]
    return torch.optim.AdamW(groups, fused=True, capturable=device == "cuda", **ADAMW)  # type: ignore[arg-type]


class Single:
    """One run.

    Args:
        work: its shape and device.
        loss: its name.
        seed: of initial weights and batches.
        dense: all logits at once by torch's own functions; else losslab's head.
    """

    def __init__(self, work: Work, loss: str, seed: int, *, dense: bool) -> None:
        self.backbone = work.backbone(seed)
        self.loss = work.loss(loss)
        self.dense = dense
        self.batches = work.tokens(seed)
        if not dense:
            quicken(self.backbone)
        self.optimizer = _optimizer(self.backbone.named_parameters(), 2, work.device)
        self.ones = torch.ones(work.shape.positions, device=work.device)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.backbone.named_parameters())

    def step(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Train on a batch [B, T]; returns the mean loss before it."""
        self.optimizer.zero_grad()
        hidden = self.backbone({"tokens": tokens}).flatten(0, 1)
        weight = self.backbone.embedding.weight
        objective = _objective(self.loss, hidden, weight, target.flatten(), self.ones, dense=self.dense)
        objective.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.backbone.parameters(), LARGEST_NORM)
        self.optimizer.step()
        return objective.detach()


def _objective(loss: Loss, hidden: Tensor, weight: Tensor, target: Tensor, ones: Tensor, *, dense: bool) -> Tensor:
    """The mean loss of hidden states [N, D] under a projection [V, D]."""
    if dense:
        values = loss.position_loss(F.linear(hidden, weight), target)
        assert isinstance(values, Tensor)
        return values.mean()
    sums = loss(Features(hidden, target, ones), LinearMap(weight, None))
    total: Tensor = sums.total
    return total / len(target)


class _FoldedAttention(torch.autograd.Function):
    """Causal attention, whose members are further samples of a batch under vmap."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        raise NotImplementedError("attention of a batched model has its gradient from what vmap makes of it")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], *heads: Tensor) -> tuple[Tensor, int]:
        q, k, v = (head.movedim(dim, 0).flatten(0, 1) for head, dim in zip(heads, in_dims, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.unflatten(0, (info.batch_size, -1)), 0  # type: ignore[no-untyped-call]


class _Folding(TorchFunctionMode):
    """Attention by `_FoldedAttention`: for a kernel without a rule vmap would call it once a member."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _FoldedAttention.apply(*args[:3])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class Batched:
    """R runs of one shape as one model: their weights stacked [R, …], the layers under vmap, a loss for each.

    Args:
        work: shape and device.
        members: loss and seed of each; those of one loss stand together.
        dense: all logits of the members of one loss at once; else losslab's head, one member after the other.
    """

    def __init__(self, work: Work, members: Sequence[tuple[str, int]], *, dense: bool) -> None:
        self.members = list(members)
        self.dense = dense
        backbones = [work.backbone(seed) for _, seed in members]
        self.stacked = stack_module_state(backbones)[0]
        self._base = deepcopy(backbones[0])
        """The shape, and buffers that the members share; its weights are never read."""
        self._groups = [(work.loss(name), len(list(same))) for name, same in groupby(loss for loss, _ in members)]
        by_seed = {seed: work.tokens(seed) for seed in {seed for _, seed in members}}
        own = [by_seed[seed] for _, seed in members]
        self.batches = [
            (torch.stack([each[i][0] for each in own]), torch.stack([each[i][1] for each in own]))
            for i in range(BATCHES)
        ]
        self.optimizer = _optimizer(self.stacked.items(), 3, work.device)
        self.ones = torch.ones(work.shape.positions, device=work.device)

    def parameters(self, member: int) -> dict[str, Tensor]:
        return {name: stacked[member] for name, stacked in self.stacked.items()}

    def _hidden(self, tokens: Tensor) -> Tensor:
        """[R, B, T] → [R, B · T, D]."""

        def one(weights: dict[str, Tensor], own: Tensor) -> Tensor:
            states: Tensor = functional_call(self._base, weights, ({"tokens": own},))
            return states.flatten(0, 1)

        with _Folding():
            result: Tensor = vmap(one)(self.stacked, tokens)
        return result

    def _objectives(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The mean loss [R] of hidden states [R, N, D] and targets [R, N]."""
        weight = self.stacked["embedding.weight"]
        if self.dense:
            sizes, found = [size for _, size in self._groups], []
            parts = zip(hidden.split(sizes), weight.split(sizes), target.split(sizes), self._groups, strict=True)
            for states, rows, classes, (loss, size) in parts:
                logits = torch.bmm(states, rows.transpose(1, 2))
                values = loss.position_loss(logits.flatten(0, 1), classes.flatten())
                assert isinstance(values, Tensor)
                found.append(values.view(size, -1).mean(dim=1))
            return torch.cat(found)
        losses = [loss for loss, size in self._groups for _ in range(size)]
        each = zip(losses, hidden.unbind(), weight.unbind(), target, strict=True)
        return torch.stack([_objective(*own, self.ones, dense=False) for own in each])

    def step(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Train each member on its batch, [R, B, T]; returns the mean losses [R] before it."""
        self.optimizer.zero_grad()
        objectives = self._objectives(self._hidden(tokens), target.flatten(1))
        objectives.sum().backward()  # type: ignore[no-untyped-call]
        self._clip()
        self.optimizer.step()
        return objectives.detach()

    def _clip(self) -> None:
        """The gradient of each member to a norm of at most `LARGEST_NORM`."""
        gradients = [stacked.grad for stacked in self.stacked.values() if stacked.grad is not None]
        squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients]).sum(dim=0)
        factor = (LARGEST_NORM / (squares.sqrt() + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
