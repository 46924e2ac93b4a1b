"""The one LightningModule, the same for all tasks and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from losslab.config.optimizer_groups import REST
from losslab.contracts import Batch
from losslab.errors import Diverged
from losslab.training.gradients import HiddenGradients
from losslab.training.layer_rates import SHARE
from losslab.training.network import Network
from losslab.training.optimizers import NAME
from losslab.training.penalties import add_penalties
from losslab.training.random import generator, seed_dropout
from losslab.training.reduce import StepReducer
from losslab.training.sharding import ShardedStrategy, all_finite, total_norm


@dataclass
class StepReport:
    """Values of an optimizer step for the logs."""

    objective: float
    terms: dict[str, float]
    """The parts of the objective that the loss names."""
    weight: float
    learning_rates: dict[str, float]
    """Learning rates of the optimizer's named groups, and of all other parameters under the empty name."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Norms after the rescale, before clipping: `all`, and on logged steps one for each hidden state."""
    stop: bool = False
    """A rank received a signal."""


_OF_TRAINING = ("make_optimizer", "make_scheduler", "stop_requested", "step_targets", "complete_checkpoint")
"""Attributes that reach into a run: its data, signals and callbacks."""


class LossModule(pl.LightningModule):
    """Trains a Network with token-exact gradients.

    Args:
        make_optimizer: given the network, the optimizer.
        make_scheduler: given the optimizer, the schedule of its learning rates, stepped after each optimizer step.
        dropout_seed: of the dropout stream.
        loss_seed: of what a loss draws.
        reducer: sums the accumulation window.
        gradient_clip_val: largest norm of the whole gradient, or None.
        is_logged: whether an optimizer step (counted from 1) is logged, and so pays for the norms at hidden states.
        stop_requested: whether this process received a signal.
        step_targets: optimizer step (counted from 0) → target and weight [N] of all of its positions, over every
            micro-batch and rank; None where the network does not need them.
    """

    def __init__(
        self,
        *,
        network: Network,
        make_optimizer: Callable[[Network], Optimizer],
        make_scheduler: Callable[[Optimizer], LRScheduler],
        dropout_seed: int,
        loss_seed: int,
        reducer: StepReducer,
        gradient_clip_val: float | None,
        is_logged: Callable[[int], bool],
        stop_requested: Callable[[], bool],
        step_targets: Callable[[int], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer = make_optimizer
        self.make_scheduler = make_scheduler
        self.dropout_seed = dropout_seed
        self.loss_seed = loss_seed
        self.reducer = reducer
        self.gradient_clip_val = gradient_clip_val
        self.is_logged = is_logged
        self.stop_requested = stop_requested
        self.step_targets = step_targets
        self.hidden_gradients = HiddenGradients(network.backbone)
        self._loss_buffers = {name: buffer.clone() for name, buffer in network.loss.named_buffers()}
        self.report: StepReport | None = None
        self.complete_checkpoint: Callable[[dict[str, Any]], None] | None = None
        """Adds to a checkpoint what losslab keeps beside weights and states."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as Lightning's WeightAveraging makes, holds weights: what trains and saves stays here."""
        return {**super().__getstate__(), **dict.fromkeys(_OF_TRAINING)}

    def configure_model(self) -> None:
        """Shard the network. Lightning calls this before the optimizer is made, which must get the shards."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            strategy.shard(self.network)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.network)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """A loss computes in float32, whatever the weights are: its buffers and parameters too. Those buffers that
        only the precision of the weights had rounded are what they were."""
        loss = self.network.loss
        rounded = {name: buffer.clone() for name, buffer in loss.named_buffers()}
        loss.float()
        for name, buffer in loss.named_buffers():
            exact = self._loss_buffers[name].to(buffer.device)
            if torch.equal(rounded[name], exact.to(rounded[name].dtype)):
                buffer.copy_(exact)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step, micro = self.trainer.global_step, batch_idx % self.reducer.accumulate
        self.hidden_gradients.active = self.is_logged(step + 1)
        seed_dropout(self.dropout_seed, step=step, micro=micro, rank=self.trainer.global_rank)
        if micro == 0:
            self.network.loss.begin_step(step, self.trainer.max_steps)
        if self.network.loss.draws and micro == 0:
            self.network.loss.draw(generator(self.loss_seed, f"loss/{step}"))
        if self.step_targets is not None and micro == 0:
            self.network.prepare_step(*(tensor.to(self.device) for tensor in self.step_targets(step)))
        return self.reducer.add(self.network(batch))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Rescale, measure, and refuse to step on a gradient that is not finite.

        Lightning calls this after unscaling (fp16) and before clipping; callbacks run before it and see raw gradients.
        """
        sums = self.reducer.finish(self.stop_requested())
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        sums.rescale(parameters)
        if penalties := add_penalties(optimizer):
            parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = total_norm(parameters)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        step = self.trainer.global_step + 1
        # fp16's scaler skips a step whose gradients overflowed, and lowers its scale; everything else is divergence.
        if not math.isfinite(sums.objective) or (scaler is None and not math.isfinite(norm)):
            loss = type(self.network.loss).__name__
            raise Diverged(f"the objective of {loss} is {sums.objective} and the gradient's norm {norm} at step {step}")
        # Hidden states' gradients are this rank's own: DDP did not average them.
        hidden = self.hidden_gradients.finish(sums.factor / (self.reducer.ranks * scale), self.reducer.ranks)
        self.report = StepReport(
            objective=sums.objective + sum(penalties.values()),
            terms=sums.terms | penalties,
            weight=sums.weight,
            learning_rates={
                group.get(NAME, REST): float(group["lr"]) / group.get(SHARE, 1.0)
                for group in reversed(optimizer.param_groups)
            },
            gradient_norms={"all": norm, **hidden},
            stop=sums.flag,
        )

    def check_weights(self, step: int) -> None:
        """Check weights before they are kept: no checkpoint holds NaN or infinity, on whichever rank they arose."""
        bad = torch.tensor(0.0 if all_finite(self.network) else 1.0, device=self.device)
        if self.reducer.ranks > 1:
            distributed.all_reduce(bad)
        if bad:
            loss = type(self.network.loss).__name__
            raise Diverged(f"weights are not finite after step {step}, where the objective of {loss} still was")

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm that is already known. Lightning's own way fails for fused AdamW with bf16-mixed."""
        assert self.report is not None
        if self.gradient_clip_val is None:
            return
        # As torch.nn.utils.clip_grad_norm_, whose tensor of a factor cannot meet a sharded gradient.
        factor = (self.gradient_clip_val / (torch.tensor(self.report.gradient_norms["all"]) + 1e-6)).item()
        if factor < 1:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.complete_checkpoint is not None:
            self.complete_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Place Lightning's counters at an optimizer-step boundary of this session's split of the batch."""
        step = checkpoint["losslab"]["step"]
        counts = dict.fromkeys(("ready", "started", "processed", "completed"), step * self.reducer.accumulate)
        loop = checkpoint["loops"]["fit_loop"]
        loop["epoch_loop.batch_progress"] |= {"total": dict(counts), "current": dict(counts)}
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step
