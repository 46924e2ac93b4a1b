"""Training steps of one decoder, ours and those of peers, for `scripts/benchmark step`: the same weights, tokens, AdamW
and clipping in each. Each function is a variant of benchmark_turns.py."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from benchmark_turns import NotHere, Turns
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.schema import register
from losslab.contracts import Batch, DataInfo
from losslab.models.decoder import Decoder

CHUNK = 256
"""Positions at once, for the peers that have chunks: the size at which torch's own was quickest here."""
BATCHES = 4


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
    words: tuple[str, ...] = ()

    @property
    def positions(self) -> int:
        return self.batch_size * self.context

    def config(self) -> dict[str, Any]:
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
            "trainer.accumulate_grad_batches=1",
            "trainer.max_steps=1000000",
            "trainer.val_check_interval=1000000",
            *self.words,
        ]
        return bind_components(check_run(compose_job(words, None)[0]))

    def info(self) -> DataInfo:
        counts = torch.ones(self.vocab_size, dtype=torch.float64)
        return DataInfo(splits={}, mean_positions=self.context, vocab_size=self.vocab_size, class_counts=counts)

    def tokens(self) -> list[tuple[Tensor, Tensor]]:
        """Some batches: tokens and targets [B, T]."""
        generator = torch.Generator().manual_seed(0)
        drawn = [
            torch.randint(self.vocab_size, (self.batch_size, self.context + 1), generator=generator)
            for _ in range(BATCHES)
        ]
        return [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in drawn]


def losslab(shape: Shape, turns: Turns) -> None:
    """Our LightningModule in our Trainer, by the functions that make a run."""
    import lightning.pytorch as pl

    from losslab.training.factory import build_network
    from losslab.training.module import LossModule
    from losslab.training.optimizers import make_optimizer
    from losslab.training.output.memory import keep_freed_memory
    from losslab.training.reduce import StepReducer
    from losslab.training.schedules import make_scheduler
    from losslab.training.trainer import make_trainer

    class Waiting(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if next(turns, "over") == "over":
                trainer.should_stop = True

    keep_freed_memory()
    config = shape.config()
    settings = config["trainer"]
    network = build_network(config, shape.info())
    if settings["compile"]:
        network.compile_layers()
    weight = torch.ones(shape.batch_size, shape.context)
    batches = [Batch({"tokens": tokens}, target, weight, {}) for tokens, target in shape.tokens()]
    module = LossModule(
        network=network,
        make_optimizer=partial(make_optimizer, config["optimizer"], fuse=True),
        make_scheduler=partial(make_scheduler, config["scheduler"], max_steps=settings["max_steps"]),
        dropout_seed=1,
        loss_seed=1,
        reducer=StepReducer(nominal_weight=shape.positions, accumulate=1, ranks=1),
        gradient_clip_val=settings["gradient_clip_val"],
        is_logged=lambda step: step % settings["log_every_n_steps"] == 0,
        stop_requested=lambda: False,
    )
    with tempfile.TemporaryDirectory() as folder:
        config["trainer"]["enable_progress_bar"] = False
        trainer = make_trainer(config, Path(folder), callbacks=[Waiting()])
        trainer.fit(module, train_dataloaders=_endless(batches))


class _endless:
    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return itertools.cycle(self.batches)


class Model(nn.Module):
    """The decoder as anybody would train it: a mean loss of tokens [B, T] and targets [B, T]."""

    def __init__(self, shape: Shape, head: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.decoder = Decoder(
            num_layers=shape.layers,
            num_heads=shape.heads,
            width=shape.width,
            context=shape.context,
            vocab_size=shape.vocab_size,
            generator=torch.Generator().manual_seed(0),
        )
        self.head = head

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        hidden = self.decoder({"tokens": input_ids}).flatten(0, 1)
        return self.head(hidden, self.decoder.embedding.weight, labels.flatten())


def dense(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), target)


def _loop(shape: Shape, turns: Turns, forward: Callable[[Tensor, Tensor], Tensor], model: Model) -> None:
    """The loop that one would write by hand."""
    given = shape.config()
    settings = {key: given["optimizer"][key] for key in ("lr", "betas", "eps", "weight_decay")}
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    batches = itertools.cycle(shape.tokens())
    for _ in turns:
        tokens, target = next(batches)
        forward(tokens, target).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), given["trainer"]["gradient_clip_val"])
        optimizer.step()
        optimizer.zero_grad()


def plain(shape: Shape, turns: Turns) -> None:
    """F.cross_entropy of all logits."""
    model = Model(shape, dense)
    _loop(shape, turns, model, model)


def compiled(shape: Shape, turns: Turns) -> None:
    """The plain loop's model and loss under torch.compile; its compilation is among the steps that do not count."""
    model = Model(shape, dense)
    _loop(shape, turns, torch.compile(model), model)


def linear_cross_entropy(shape: Shape, turns: Turns) -> None:
    """torch's own head in chunks."""
    if not hasattr(F, "linear_cross_entropy"):
        raise NotHere(f"torch {torch.__version__} has no F.linear_cross_entropy")

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK)
        return F.linear_cross_entropy(hidden, weight, target, options=options)

    model = Model(shape, head)
    _loop(shape, turns, model, model)


def chunked(shape: Shape, turns: Turns) -> None:
    """The head in chunks that are computed again in the backward pass, a wrapper as torchtune and torchtitan have."""

    def one(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), target, reduction="sum")

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        parts = zip(hidden.split(CHUNK), target.split(CHUNK), strict=True)
        sums = [checkpoint(one, part, weight, own, use_reentrant=False) for part, own in parts]
        return torch.stack(sums).sum() / len(target)

    model = Model(shape, head)
    _loop(shape, turns, model, model)


def trainer(shape: Shape, turns: Turns) -> None:
    """transformers' Trainer with the plain loop's model."""
    missing = [name for name in ("transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise NotHere(f"{' and '.join(missing)} is not installed")
    import transformers

    class Waiting(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if next(turns, "over") == "over":
                control.should_training_stop = True

    class Wrapped(Model):
        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"loss": super().forward(input_ids, labels)}

    given = shape.config()["optimizer"]
    rows = [{"input_ids": x, "labels": y} for xs, ys in shape.tokens() for x, y in zip(xs, ys, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=shape.batch_size,
            max_steps=1_000_000,
            learning_rate=given["lr"],
            adam_beta1=given["betas"][0],
            adam_beta2=given["betas"][1],
            weight_decay=given["weight_decay"],
            max_grad_norm=1.0,
            use_cpu=True,
            report_to=[],
            logging_steps=10,
            save_strategy="no",
            disable_tqdm=True,
        )
        model = Wrapped(shape, dense)
        transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Waiting()]).train()


def litgpt(shape: Shape, turns: Turns) -> None:
    """litgpt's GPT of the same size with its chunked cross-entropy."""
    if find_spec("litgpt") is None:
        raise NotHere("litgpt is not installed")
    from litgpt import GPT, Config  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

    model = GPT(
        Config(
            block_size=shape.context,
            padded_vocab_size=shape.vocab_size,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.width,
            bias=False,
        )
    )

    def forward(tokens: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = chunked_cross_entropy(model(tokens), target)
        return loss

    _loop(shape, turns, forward, model)
