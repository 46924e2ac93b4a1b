"""Drawn at random: loss, micro-batches, accumulation, ranks, weights and ignored positions. The gradient of a step is
that of Σ total / Σ weight over the whole batch, always. And what AdamW receives of it: precision, clipping, fused."""

from __future__ import annotations

import csv
import faulthandler
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from tiny_network import CONTEXT, LOSSES, V, flat_gradient, make_losses, relative_error, token_mean_gradient
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from losses.cases import CASES, NUM_OUTPUTS
from losslab.contracts import Batch, DataInfo
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network
from losslab.training.reduce import StepReducer
from losslab.training.scoring.teacher import TeacherRun
from runs import only_run

COUNT = 240
SECONDS = 120

EACH_LOSS: dict[str, tuple[int, Callable[[], Loss]]] = {
    **{str(case): (NUM_OUTPUTS, case.make) for case in CASES if case.loss.target_kind in LanguageModeling.accepts},
    **{f"tiny {name}": (V, lambda name=name: make_losses()[name]) for name in LOSSES},  # type: ignore[misc]
}


class Alternating(Decoder):
    """Every second pass gives other hidden states, as dropout does, but the same ones for any split of the batch."""

    passes = 0

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        self.passes += 1
        return super().forward(inputs) * (0.6 + 0.4 * (self.passes % 2))


@dataclass(frozen=True)
class Draw:
    """One step of training. Micro-batch m of rank r is part m · ranks + r; `Draw.of(number)` repeats it."""

    number: int
    loss: str
    tied: bool
    ranks: int
    sizes: tuple[int, ...]
    """Windows in each part."""
    weights: str
    ignored: tuple[int, ...]
    """Parts without any weight."""
    r_drop: float
    """α: in one draw of each loss and number of ranks."""

    @classmethod
    def of(cls, number: int) -> Draw:
        rng = random.Random(number)
        ranks = 1 + number % 2
        count = ranks * rng.randint(1, 4)
        equal = rng.randint(1, 4)
        some = tuple(sorted(rng.sample(range(count), rng.randint(0, count - 1))))
        whole_rank = tuple(range(rng.randrange(ranks), count, ranks)) if ranks > 1 else ()
        loss = list(EACH_LOSS)[number // 2 % len(EACH_LOSS)]
        num_outputs, make = EACH_LOSS[loss]
        return cls(
            number=number,
            loss=loss,
            tied=rng.random() < 0.5 and make().num_outputs(num_outputs) == num_outputs,
            ranks=ranks,
            sizes=tuple(equal if number % 3 else rng.randint(1, 4) for _ in range(count)),
            weights=rng.choice(["ones", "counts", "fractions"]),
            ignored=rng.choice([(), some, whole_rank]),
            r_drop=1.5 * (number // 2 // len(EACH_LOSS) == 1 and make().agrees),
        )

    def __str__(self) -> str:
        tied = "tied" if self.tied else "untied"
        sizes = "+".join(f"({size})" if i in self.ignored else str(size) for i, size in enumerate(self.sizes))
        passes = ", R-Drop" if self.r_drop else ""
        return f"{self.number}, {self.loss}, {tied}, {sizes} on {self.ranks}, {self.weights}{passes}"

    def network(self) -> Network:
        loss = EACH_LOSS[self.loss][1]()
        network = self._network(loss, Alternating if self.r_drop else Decoder, self.r_drop)
        if loss.reads_teacher:
            # Other weights than the student's: where p = q, rounding alone decides the sign in a total variation.
            teacher = self._network(CrossEntropy(), seed=COUNT + self.number)
            network.teacher = TeacherRun(teacher, DataInfo(splits={}, mean_positions=1))
        return network

    def _network(
        self, loss: Loss, kind: type[Decoder] = Decoder, r_drop: float = 0.0, seed: int | None = None
    ) -> Network:
        num_outputs = EACH_LOSS[self.loss][0]
        sizes = {"num_layers": 2, "num_heads": 2, "width": 8, "context": CONTEXT, "init_std": 0.3}
        generator = torch.Generator().manual_seed(self.number if seed is None else seed)
        backbone = kind(**sizes, norm="layer", tie_embeddings=self.tied, vocab_size=num_outputs, generator=generator)
        return Network(
            backbone=backbone,
            loss=loss,
            task=LanguageModeling(),
            info=DataInfo(splits={}, mean_positions=CONTEXT, vocab_size=num_outputs),
            head_init=generator,
            r_drop=r_drop,
        )

    def batch(self) -> Batch:
        """All parts in one: ragged windows, further positions ignored at random, at least one that counts."""
        generator = torch.Generator().manual_seed(self.number)
        windows, num_outputs = sum(self.sizes), EACH_LOSS[self.loss][0]
        tokens = torch.randint(num_outputs, (windows, CONTEXT + 1), generator=generator)
        inside = torch.arange(CONTEXT) < torch.randint(1, CONTEXT + 1, (windows, 1), generator=generator)
        weight = inside * (torch.rand(windows, CONTEXT, generator=generator) < 0.8).float()
        if self.weights == "counts":
            weight *= torch.randint(4, (windows, CONTEXT), generator=generator)
        elif self.weights == "fractions":
            weight *= 3 * torch.rand(windows, CONTEXT, generator=generator)
        for i, part in enumerate(weight.split(self.sizes)):
            part[0, 0] = 1.0
            part *= i not in self.ignored
        return Batch({"tokens": tokens[:, :-1]}, tokens[:, 1:], weight, {})

    def parts(self) -> list[Batch]:
        inputs, target, weight, *_ = self.batch()
        cut = zip(inputs["tokens"].split(self.sizes), target.split(self.sizes), weight.split(self.sizes), strict=True)
        return [Batch({"tokens": tokens}, target, weight, {}) for tokens, target, weight in cut]

    def step(self, network: Network, rank: int = 0) -> Tensor:
        """As Lightning: each loss divided by the length of the window, ranks in step only at its last micro-batch."""
        module = DistributedDataParallel(network) if self.ranks > 1 else network
        *first, last = self.parts()[rank :: self.ranks]
        accumulate = len(first) + 1
        reducer = StepReducer(nominal_weight=self.sizes[0] * CONTEXT, accumulate=accumulate, ranks=self.ranks)
        network.zero_grad()
        if network.reads_step:
            network.prepare_step(*network.task.flat_targets(self.batch()))
        with module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext():
            for batch in first:
                (reducer.add(module(batch)) / accumulate).backward()
        (reducer.add(module(last)) / accumulate).backward()
        reducer.finish().rescale(network.parameters())
        return flat_gradient(network)


DRAWS = [Draw.of(number) for number in range(COUNT)]


def run_rank(rank: int, folder: str) -> None:
    """One of the two processes that share all draws with two ranks."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=SECONDS)
    )
    gradients = {draw.number: draw.step(draw.network(), rank) for draw in DRAWS if draw.ranks == 2}
    torch.save(gradients, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, Tensor]]:
    """For each rank: draw → gradient."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)  # an error of a rank is raised here
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("draw", [draw for draw in DRAWS if draw.ranks == 1], ids=str)
def test_a_step_of_one_rank_has_the_gradient_of_the_whole_batch(draw: Draw) -> None:
    expected = token_mean_gradient(draw.network(), draw.batch())
    assert relative_error(draw.step(draw.network()), expected) < 1e-6, draw


@pytest.mark.parametrize("draw", [draw for draw in DRAWS if draw.ranks == 2], ids=str)
def test_a_step_of_two_ranks_has_the_gradient_of_the_whole_batch(
    draw: Draw, of_two_ranks: list[dict[int, Tensor]]
) -> None:
    first, second = (gradients[draw.number] for gradients in of_two_ranks)
    assert torch.equal(first, second), draw
    assert relative_error(first, token_mean_gradient(draw.network(), draw.batch())) < 1e-6, draw


def test_a_mean_of_micro_batch_means_is_another_gradient() -> None:
    """So the draws can tell the two apart, wherever the parts' weights differ at all."""
    errors, tried = {}, DRAWS[::3]
    for draw in tried:
        network, parts = draw.network(), draw.parts()
        if len({network(part).weight.item() for part in parts}) > 1:
            means = [token_mean_gradient(network, part).nan_to_num() for part in parts]
            expected = token_mean_gradient(network, draw.batch())
            errors[str(draw)] = relative_error(torch.stack(means).mean(dim=0), expected)
    assert len(errors) > len(tried) / 2
    assert min(errors.values()) > 1e-2, min(errors, key=errors.__getitem__)


def test_the_draws_hold_what_is_hard() -> None:
    assert {draw.loss for draw in DRAWS} == set(EACH_LOSS)
    assert sum(draw.ranks == 2 for draw in DRAWS) == COUNT / 2
    assert sum(draw.ignored in {tuple(range(rank, len(draw.sizes), 2)) for rank in (0, 1)} for draw in DRAWS) > 10
    assert sum(0 < len(draw.ignored) < len(draw.sizes) // draw.ranks for draw in DRAWS) > 10
    assert sum(len(set(draw.sizes)) > 1 for draw in DRAWS) > 50


@dataclass(frozen=True)
class Trained:
    """Gradients that a run leaves."""

    objectives: list[float]
    fused: bool
    norm: float
    """Norm of the last step's gradient, as logged: before clipping."""
    received: float
    """Norm of the gradient that AdamW got in the last step: with β₁ = 0, its first moment."""


def trained(run_tiny: Callable[..., int], *arguments: str, name: str) -> Trained:
    code = run_tiny(
        "loss=square", "optimizer.betas=[0.0,0.95]", "trainer.log_every_n_steps=1", f"name={name}", *arguments
    )
    folder, record = only_run(Path("outputs") / name)
    assert (code, record.status) == (0, "completed"), record.error
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    (optimizer,) = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
    moments = [state["exp_avg"] for state in optimizer["state"].values()]
    return Trained(
        objectives=[float(row["train/objective"]) for row in rows],
        fused=bool(optimizer["param_groups"][0]["fused"]),
        norm=float(rows[-1]["grad_norm/all"]),
        received=torch.nn.utils.get_total_norm(moments).item(),
    )


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_gets_the_clipped_gradient_in_every_precision(
    run_tiny: Callable[..., int], clip: float | None, fused: bool
) -> None:
    options = [f"trainer.gradient_clip_val={clip or 'null'}", f"+optimizer.fused={str(fused).lower()}"]
    full, mixed = (
        trained(run_tiny, *options, f"trainer.precision={precision}", name=precision)
        for precision in ("32-true", "bf16-mixed")
    )
    for run in (full, mixed):
        assert run.fused == fused
        assert run.norm > 2  # so that clipping to 1 binds
        assert run.received == pytest.approx(run.norm if clip is None else clip, rel=1e-4)
    assert mixed.objectives != full.objectives
    assert mixed.objectives == pytest.approx(full.objectives, rel=1e-2)
