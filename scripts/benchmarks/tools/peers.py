"""Training steps of one decoder by losslab, transformers' Trainer and litgpt, for `scripts/benchmark step`: the tokens,
AdamW and clipping of the plain loop. Each function is a variant of turns.py."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tools.plain import Model, dense, loop
from benchmarks.tools.shape import ADAMW, CLIP, Shape
from benchmarks.tools.turns import NotHere, Turns


def losslab(shape: Shape, turns: Turns) -> None:
    """Our LightningModule in our Trainer, by the functions that make a run."""
    import lightning.pytorch as pl

    from losslab.contracts import Batch
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

    rows = [{"input_ids": x, "labels": y} for xs, ys in shape.tokens() for x, y in zip(xs, ys, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=shape.batch_size,
            max_steps=1_000_000,
            learning_rate=ADAMW["lr"],
            adam_beta1=ADAMW["betas"][0],
            adam_beta2=ADAMW["betas"][1],
            weight_decay=ADAMW["weight_decay"],
            max_grad_norm=CLIP,
            use_cpu=not shape.on_card,
            bf16=shape.bf16,
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

    loop(shape, turns, model, forward)
