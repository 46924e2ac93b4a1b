"""The one LightningModule, the same for all tasks and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from losslab.config.optimizer_groups import PENALTIES, REST
from losslab.contracts import Batch
from losslab.errors import Diverged
from losslab.training.gradients import HiddenGradients
from losslab.training.layer_rates import SHARE
from losslab.training.network import Network
from losslab.training.optimizers import NAME
from losslab.training.output.memory import lay_apart
from losslab.training.penalties import add_penalties
from losslab.training.random import generator, seed_dropout
from losslab.training.reduce import StepReducer
from losslab.training.sharding import ShardedStrategy, all_finite, total_norm
from losslab.training.step_report import StepReport, UnreadReport

_OF_TRAINING = ("make_optimizer", "make_scheduler", "stop_requested", "step_targets", "complete_checkpoint", "_unread")
"""Attributes that reach into a run: its data, signals and callbacks."""


def reads_late(device: torch.device) -> bool:
    """Whether a device computes while this process goes on, so that reading a number waits for all that is queued."""
    return device.type == "cuda"


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
        self._unread: UnreadReport | None = None
        self.reports: list[StepReport] = []
        """Reports that have come from the device, and that nobody has taken."""
        self._has_stepped = False
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
            self.network.zero_grad()  # Lightning drops the last step's gradients after the forward pass, at its peak
            self.network.loss.begin_step(step, self.trainer.max_steps)
        if self.network.loss.draws and micro == 0:
            self.network.loss.draw(generator(self.loss_seed, f"loss/{step}"))
        if self.step_targets is not None and micro == 0:
            self.network.prepare_step(*(tensor.to(self.device) for tensor in self.step_targets(step)))
        return self.reducer.add(self.network(batch))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Rescale, measure, and refuse to step on a gradient that is not finite: on a GPU one step later, between steps
        that are logged; nothing of it is kept.

        Lightning calls this after unscaling (fp16) and before clipping; callbacks run before it and see raw gradients.
        """
        self._read()
        stops = self.stop_requested()
        unread = self.reducer.sum_up(stops)
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        rates = {
            group.get(NAME, REST): float(group["lr"]) / group.get(SHARE, 1.0)
            for group in reversed(optimizer.param_groups)
        }
        step = self.trainer.global_step + 1
        knows_to_stop = stops and self.reducer.ranks == 1  # other ranks would hear of it with the next step
        if not knows_to_stop and self._reads_later(optimizer, parameters, step):
            unread.rescale([p.grad for p in parameters if p.grad is not None])
            self._unread = UnreadReport(step, unread, total_norm(parameters), rates)
            return
        sums = unread.read()
        sums.rescale(parameters)
        if penalties := add_penalties(optimizer):
            parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = float(total_norm(parameters))
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        # fp16's scaler skips a step whose gradients overflowed, and lowers its scale; everything else is divergence.
        self._refuse(step, sums.objective, norm if scaler is None else 0.0, norm)
        # Hidden states' gradients are this rank's own: DDP did not average them.
        hidden = self.hidden_gradients.finish(sums.factor / (self.reducer.ranks * scale), self.reducer.ranks)
        self.reports.append(
            StepReport(
                objective=sums.objective + sum(penalties.values()),
                terms=sums.terms | penalties,
                weight=sums.weight,
                learning_rates=rates,
                gradient_norms={"all": norm, **hidden},
                stop=sums.flag,
            )
        )

    def _reads_later(self, optimizer: Optimizer, parameters: list[nn.Parameter], step: int) -> bool:
        """Whether a step's numbers are read with the next one, so that a GPU is never without work: not of a logged
        step, and only of plain float32 gradients."""
        return (
            reads_late(self.device)
            and not self.is_logged(step)
            and getattr(self.trainer.precision_plugin, "scaler", None) is None
            and not isinstance(self.trainer.strategy, ShardedStrategy)
            and not any(group.get(name) for group in optimizer.param_groups for name in PENALTIES)
            and all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters)
        )

    def _read(self) -> None:
        """Read the report that is on its way. Raises Diverged, as the step itself would have."""
        unread, self._unread = self._unread, None
        if unread is not None:
            report = unread.read()
            norm = report.gradient_norms["all"]
            self._refuse(unread.step, report.objective, norm, norm)
            self.reports.append(report)

    def _refuse(self, step: int, objective: float, judged: float, norm: float) -> None:
        if not math.isfinite(objective) or not math.isfinite(judged):
            loss = type(self.network.loss).__name__
            raise Diverged(f"the objective of {loss} is {objective} and the gradient's norm {norm} at step {step}")

    def take_reports(self, *, wait: bool) -> list[StepReport]:
        """The reports of the steps since the last call.

        Args:
            wait: until that of the last step has come; otherwise it may come with the next.

        Raises:
            Diverged: where an objective or a gradient was not finite.
        """
        if wait:
            self._read()
        found, self.reports = self.reports, []
        return found

    def on_train_start(self) -> None:
        """Lay the optimizer's states, which it makes in the first step, apart from what comes and goes."""
        lay_apart(True)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not self._has_stepped and (batch_idx + 1) % self.reducer.accumulate == 0:
            lay_apart(False)
            self._has_stepped = True

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
        if self.gradient_clip_val is None:
            return
        # As torch.nn.utils.clip_grad_norm_, whose tensor of a factor cannot meet a sharded gradient.
        if self._unread is not None:
            factors = (self.gradient_clip_val / (self._unread.norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([p.grad for p in self.network.parameters() if p.grad is not None], factors)
            return
        norm = self.reports[-1].gradient_norms["all"]
        factor = (self.gradient_clip_val / (torch.tensor(norm) + 1e-6)).item()
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
