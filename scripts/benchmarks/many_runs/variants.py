"""Ways to train many small runs on one device, for `scripts/benchmark many`: what each process of a way does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.many_runs.crews import Part
from benchmarks.many_runs.graphs import Graphed
from benchmarks.many_runs.members import Batched, Single, Work
from benchmarks.tools import peers
from benchmarks.tools.turns import Turns

BASELINE = "one after another"
IN_TURN = 8
"""Steps of a run before the next one's turn."""
_WORDS = {"smoothing": ("cross_entropy", "loss.label_smoothing=0.1")}
"""The loss and further words of `losslab train` for names that are not those of its losses."""
_THREAD_STEPS = 4


@dataclass(frozen=True)
class Way:
    """A row of the table.

    Args:
        crew: the processes that make it; several rows may share some.
        processes: how many of them work at a time.
        windows: how many times in a turn they do, each time others, so that every loss has its share.
        at_once: steps of runs in one of their steps.
    """

    name: str
    crew: str
    processes: int = 1
    windows: int = 1
    at_once: int = 1


@dataclass(frozen=True)
class Kind:
    """A crew: its work, the number of its processes, threads of each, and whether it computes through MPS."""

    part: Part
    threads: int
    size: int = 1
    mps: bool = False


def losslab_steps(work: Work, place: int, turns: Turns) -> None:
    """Steps of a losslab run, Lightning included, without logs and scores."""
    name = work.losses[place % len(work.losses)]
    loss, *words = _WORDS.get(name, (name,))
    device = ("trainer=gpu", "trainer.precision=32-true") if work.device == "cuda" else ()
    peers.losslab(replace(work.shape, loss=loss, words=(*words, *device)), turns)


def bare_steps(work: Work, place: int, turns: Turns, *, dense: bool, graph: bool = False) -> None:
    """A run of each loss, each for some steps, without Lightning."""
    runs = _runs(work, len(work.losses), dense=dense, graph=graph)
    for i, _ in enumerate(turns):
        run = runs[i // IN_TURN % len(runs)]
        run.step(*run.batches[i % len(run.batches)])


def _runs(work: Work, count: int, *, dense: bool, graph: bool) -> list[Single | Graphed]:
    """Runs that have made their first steps, and their graphs."""
    seeds = itertools.count(1)
    members = [(loss, seed) for seed in itertools.islice(seeds, count) for loss in work.losses][:count]
    made = [Single(work, loss, seed, dense=dense) for loss, seed in members]
    runs: list[Single | Graphed] = [Graphed(each) for each in made] if graph else [*made]
    for run in runs:
        for i in range(5 if graph else 1):
            run.step(*run.batches[i % len(run.batches)])
    _wait(work)
    return runs


def in_streams(work: Work, place: int, turns: Turns, *, count: int, dense: bool, graph: bool) -> None:
    """Steps of some runs in turn, each on a CUDA stream of its own."""
    runs = _runs(work, count, dense=dense, graph=graph)
    streams = [torch.cuda.Stream() for _ in runs]
    pairs = itertools.cycle(zip(runs, streams, strict=True))
    for i, _ in enumerate(turns):
        run, stream = next(pairs)
        with torch.cuda.stream(stream):
            run.step(*run.batches[i // len(runs) % len(run.batches)])


def in_threads(work: Work, place: int, turns: Turns, *, count: int) -> None:
    """Steps of some runs side by side, each by a thread of one process, and on a GPU in a stream of its own."""
    runs = _runs(work, count, dense=False, graph=False)

    def train(run: Single | Graphed) -> None:
        for i in range(_THREAD_STEPS):
            run.step(*run.batches[i % len(run.batches)])

    def begin() -> None:
        torch.set_num_threads(1)
        if work.device == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream())

    with ThreadPoolExecutor(count, initializer=begin) as pool:
        for _ in turns:
            list(pool.map(train, runs))


def batched_steps(work: Work, place: int, turns: Turns, *, dense: bool, graph: bool = False) -> None:
    """Steps of all runs at once."""
    whole = Batched(work, work.members, dense=dense)
    model = Graphed(whole) if graph else whole
    for i in range(5 if graph else 1):
        model.step(*model.batches[i % len(model.batches)])
    _wait(work)
    for i, _ in enumerate(turns):
        model.step(*model.batches[i % len(model.batches)])


def _wait(work: Work) -> None:
    if work.device == "cuda":
        torch.cuda.synchronize()


def ways(works: list[Work], threads: int, slots: list[int]) -> tuple[list[Way], dict[str, Kind]]:
    """The rows for a device, and the crews that they need.

    Args:
        works: with more and more seeds.
        threads: of the CPU, on which each row has as many processes of a thread: threads of one process wait for each
            other, and lose where something else needs the cores.
        slots: numbers of processes that share it.
    """
    work, gpu = works[0], works[0].device == "cuda"
    at_a_time = 1 if gpu else threads
    rows: list[Way] = []
    kinds: dict[str, Kind] = {}

    def add(name: str, part: Callable[..., None], *, at_once: int = 1, size: int = at_a_time, on: Work = work) -> None:
        kinds[name] = Kind(partial(part, on), 1, size)
        rows.append(Way(name, name, size, at_once=at_once))

    losses = len(work.losses)
    size = max(*slots, losses + losses % 2)

    def share(k: int, crew: str, name: str) -> Way:
        return Way(name, crew, k, windows=min(-(-losses // k), size // k))

    numbers = sorted({1, *slots}, reverse=not gpu)  # the first row is what losslab does by itself on this device
    rows += [share(k, "slots", BASELINE if k == 1 else f"slots={k}") for k in numbers]
    kinds["slots"] = Kind(partial(losslab_steps, work), 1, size)
    if gpu:
        rows += [share(k, "slots, MPS", f"slots={k}, MPS") for k in slots]
        kinds["slots, MPS"] = Kind(partial(losslab_steps, work), 1, size, mps=True)
    else:
        kinds["all threads"] = Kind(partial(losslab_steps, work), threads)
        rows.append(Way(f"{BASELINE}, all threads", "all threads"))
    add("without Lightning", partial(bare_steps, dense=False))
    add("and with dense heads", partial(bare_steps, dense=True))
    count = 8 if gpu else threads
    add(f"{count} threads", partial(in_threads, count=count), at_once=count * _THREAD_STEPS, size=1)
    if gpu:
        add("8 streams", partial(in_streams, count=8, dense=False, graph=False))
        add("a CUDA graph, dense", partial(bare_steps, dense=True, graph=True))
        add("8 graphs in 8 streams, dense", partial(in_streams, count=8, dense=True, graph=True))
    for many in works:
        members = len(many.members)
        name = f"batch of {members}" if gpu else f"{at_a_time} batches of {members}"
        add(f"{name}, our heads", partial(batched_steps, dense=False), at_once=members, on=many)
        add(f"{name}, dense heads", partial(batched_steps, dense=True), at_once=members, on=many)
        if gpu:
            graphed = partial(batched_steps, dense=True, graph=True)
            add(f"{name}, dense, a graph", graphed, at_once=members, on=many)
    return rows, kinds
