"""The decoder, batch, device and precision that the variants of a benchmark share.

losslab is imported only by what is its own: the memory of a process with another loop counts, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from losslab.contracts import DataInfo

ADAMW: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0
"""Settings that `config` has without further words, for loops that read no configuration."""
BATCHES = 4
GPU_ROWS = 16
"""Rows of a batch on a GPU, and half of them where the logits are many: the dense ones of a plain loop must fit beside
the weights and states of the other variants."""
MANY_OUTPUTS = 65_536


@dataclass(frozen=True)
class Shape:
    """A decoder and its batch; `words` are further ones of `losslab train`."""

    vocab_size: int
    layers: int = 4
    heads: int = 4
    width: int = 256
    context: int = 256
    batch_size: int = 8
    loss: str = "cross_entropy"
    device: str = "cpu"
    bf16: bool = False
    """Autocast in bfloat16, for everybody."""
    words: tuple[str, ...] = ()

    @classmethod
    def on_gpu(cls, vocab_size: int) -> Shape:
        """GPT-2 small."""
        rows = GPU_ROWS if vocab_size <= MANY_OUTPUTS else GPU_ROWS // 2
        return cls(vocab_size, 12, 12, 768, 1024, rows, device="cuda", bf16=True)

    @property
    def positions(self) -> int:
        return self.batch_size * self.context

    @property
    def on_card(self) -> bool:
        return self.device != "cpu"

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16)

    def config(self) -> dict[str, Any]:
        from losslab.config.binding import bind_components
        from losslab.config.check import check_run
        from losslab.config.compose import compose_job
        from losslab.config.schema import register

        register()
        words = [
            "model=decoder",
            f"model.num_layers={self.layers}",
            f"model.num_heads={self.heads}",
            f"model.width={self.width}",
            f"model.context={self.context}",
            f"data.batch_size={self.batch_size}",
            f"data.vocab_size={self.vocab_size}",
            f"loss={self.loss}",
            f"trainer.accelerator={'gpu' if self.on_card else 'cpu'}",
            f"trainer.precision={'bf16-mixed' if self.bf16 else '32-true'}",
            "trainer.accumulate_grad_batches=1",
            "trainer.max_steps=1000000",
            "trainer.val_check_interval=1000000",
            *self.words,
        ]
        return bind_components(check_run(compose_job(words, None)[0]))

    def info(self) -> DataInfo:
        from losslab.contracts import DataInfo

        counts = torch.ones(self.vocab_size, dtype=torch.float64)
        return DataInfo(splits={}, mean_positions=self.context, vocab_size=self.vocab_size, class_counts=counts)

    def tokens(self) -> list[tuple[Tensor, Tensor]]:
        """Some batches on the CPU: tokens and targets [B, T]."""
        generator = torch.Generator().manual_seed(0)
        drawn = [
            torch.randint(self.vocab_size, (self.batch_size, self.context + 1), generator=generator)
            for _ in range(BATCHES)
        ]
        return [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in drawn]
