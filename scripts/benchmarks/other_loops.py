"""Memory and time of one step of transformers' GPT-2 and Llama, with their own loss, and with ours in both ways of
`losslab.integrations.transformers`.

Each measurement is forward and backward in a process of its own, in turns. MiB are the peak above the model's resident
memory, gradients included; the median of the rounds counts, and the ratio is to the model's own loss.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.tools.options import add_rounds
from losslab.integrations.transformers import patch, trainer_arguments
from losslab.training.output.memory import keep_freed_memory, peak_memory_mib, reset_peak_memory

if TYPE_CHECKING:
    import transformers

WAYS = ("own", "patch", "trainer_arguments")
LOSSES = ("cross_entropy", "focal", "kl_divergence")
LONGEST = 300
"""Seconds for a measurement."""


@dataclass(frozen=True)
class Case:
    """A model, the way to its loss, and the loss."""

    model: str
    way: str
    loss: str
    vocab_size: int = 50257
    width: int = 128
    batch: int = 8
    context: int = 128

    def build(self) -> transformers.PreTrainedModel:
        """One layer, so that the head is most of the work."""
        import transformers

        if self.model == "gpt2":
            config = transformers.GPT2Config(
                vocab_size=self.vocab_size, n_embd=self.width, n_layer=1, n_head=2, n_positions=self.context
            )
        else:
            config = transformers.LlamaConfig(
                vocab_size=self.vocab_size,
                hidden_size=self.width,
                intermediate_size=2 * self.width,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config)

    def step(self) -> Callable[[], Tensor]:
        """Forward and backward; returns the loss."""
        model = self.build().train()
        tokens = torch.randint(self.vocab_size, (self.batch, self.context))
        if self.way == "trainer_arguments":
            given = trainer_arguments(model, self.loss)
            batch = given["data_collator"]([{"input_ids": row} for row in tokens])

            def forward() -> Tensor:
                loss: Tensor = given["compute_loss_func"](model(**batch), tokens)
                return loss
        else:
            if self.way == "patch":
                patch(model, self.loss)

            def forward() -> Tensor:
                loss: Tensor = model(input_ids=tokens, labels=tokens).loss
                return loss

        def run() -> Tensor:
            model.zero_grad()
            loss = forward()
            loss.backward()
            return loss.detach()

        return run


@dataclass(frozen=True)
class Measured:
    mib: float
    seconds: float
    loss: float


def measure(case: Case, repeats: int = 2) -> Measured:
    """Memory of the first step, and the time of the quickest after it."""
    run = case.step()
    reset_peak_memory()
    before = peak_memory_mib(torch.device("cpu"))
    loss = run()
    peak = peak_memory_mib(torch.device("cpu")) - before
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return Measured(peak, min(seconds, default=0.0), loss.item())


def _answer(sending: Connection, case: Case, repeats: int, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    sending.send(measure(case, repeats))


def measure_apart(case: Case, *, repeats: int = 2, threads: int = 1) -> Measured:
    """`measure` in a process of its own. It is forked, since importing everything takes longer than measuring; so the
    caller must not have computed with more than one thread."""
    import transformers  # noqa: F401  so that the child need not

    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, case, repeats, threads))
    process.start()
    sending.close()
    try:
        if not receiving.poll(LONGEST):
            raise TimeoutError(f"{case} took more than {LONGEST} s")
        found: Measured = receiving.recv()
    finally:
        process.kill()  # it has answered, or hangs
        process.join()
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser, "of each measurement, in turns; the median counts")


def main(arguments: argparse.Namespace) -> int:
    """Print a table."""
    rounds = arguments.rounds
    threads = torch.get_num_threads()
    shape = Case("gpt2", "own", "cross_entropy")
    print(
        f"one step of {shape.batch} x {shape.context} tokens, width {shape.width}, V = {shape.vocab_size:,}, "
        f"{threads} threads, {rounds} round(s)"
    )
    print(f"{'model':<7}{'loss':<15}{'way':<19}{'MiB':>8}{'of own':>9}{'seconds':>9}{'of own':>9}{'value':>10}")
    for model in ("gpt2", "llama"):
        cases = [Case(model, "own", "cross_entropy")]
        cases += [Case(model, way, loss) for loss in LOSSES for way in WAYS[1:]]
        found: dict[Case, list[Measured]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case in cases:
                found[case].append(measure_apart(case, threads=threads))
        own = found[cases[0]]
        for case, each in found.items():
            mib, seconds = (statistics.median(getattr(one, name) for one in each) for name in ("mib", "seconds"))
            ratios = [
                statistics.median(getattr(a, name) / getattr(b, name) for a, b in zip(each, own, strict=True))
                for name in ("mib", "seconds")
            ]
            print(
                f"{model:<7}{case.loss:<15}{case.way:<19}{mib:>8.0f}{ratios[0]:>9.3f}{seconds:>9.3f}{ratios[1]:>9.2f}"
                f"{each[0].loss:>10.4f}",
                flush=True,
            )
    return 0
