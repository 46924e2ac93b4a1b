"""Named random streams, each derived from (seed, name), so that using one never shifts another. Some may have a seed of
their own (`config.streams`), and what draws initial weights without a generator follows backbone_init or head_init.

backbone_init, head_init   explicit generators, for the initial weights
data_order                 the order of training windows
loss                       what a loss draws for an optimizer step, at every step from its start
dropout                    the global generators, seeded again before each micro-batch: nothing to save, nothing to leak
twin/N/WEIGHT              the change of a weight of twin N
callbacks                  the global generators, seeded again before callbacks see a micro-batch, and after it
global/NAME                the global generators while NAME is built (data, model, projection, loss, task, optimizer,
                           scheduler) or works (preparation, run, evaluation), for whatever draws without a generator of
                           its own

The global generators are those of torch, numpy and Python's `random`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_NUMPY_SEEDS = 2**32


def derive_seed(seed: int, *names: str | int) -> int:
    """63 bits of SHA-256 of the seed and the stream's name."""
    content = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """The stream `name` of run `seed`, on the CPU: initial weights are the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, name))


def seed_dropout(seed: int, *, step: int, micro: int, rank: int) -> None:
    """Dropout has no generator of its own, and a person's own loss need not have one: seed the global ones for exactly
    this micro-batch."""
    value = derive_seed(seed, "dropout", step, micro, rank)
    _seed_torch(value)
    _seed_others(value)


def seed_callbacks(seed: int, *, micro: int, hook: str) -> None:
    """Seed the global generators for what callbacks draw in the hooks before or after a micro-batch: a continued run
    draws the same."""
    value = derive_seed(seed, "callbacks", micro, hook)
    _seed_torch(value)
    _seed_others(value)


@contextmanager
def global_stream(seed: int, name: str) -> Iterator[None]:
    """Let whatever draws from the global generators draw from the stream `name` of run `seed`; afterwards they go on
    where they were."""
    value = derive_seed(seed, "global", name)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)  # type: ignore[no-untyped-call]
    others = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(value)
        if devices:  # a GPU that nothing has used yet must not be opened here: forked processes could not use it
            torch.cuda.manual_seed_all(value)
        _seed_others(value)
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


@contextmanager
def untouched_streams() -> Iterator[None]:
    """Let code of others draw what it likes, and no two runs the same: names of runs elsewhere are drawn from `random`.
    Afterwards the global generators go on where they were."""
    others = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        random.seed()
        np.random.seed()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


def _seed_torch(value: int) -> None:
    """Seed the CPU and every device in use. torch.manual_seed formats the stack for each kind of device that is not in
    use: a millisecond, for each micro-batch."""
    torch.default_generator.manual_seed(value)
    for devices in (torch.cuda, torch.xpu, torch.mtia):
        if devices.is_initialized():
            devices.manual_seed_all(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


def _seed_others(value: int) -> None:
    random.seed(value)
    np.random.seed(value % _NUMPY_SEEDS)  # noqa: NPY002


def hash_weights(module: torch.nn.Module) -> str:
    """SHA-256 of all parameters, and of the buffers that a checkpoint holds, by name: the proof that two runs started
    from the same weights."""
    digest = hashlib.sha256()
    kept = module.state_dict().keys()
    values = [
        *sorted(module.named_parameters()),
        *sorted((name, buffer) for name, buffer in module.named_buffers() if name in kept),
    ]
    for name, value in values:
        digest.update(name.encode())
        value = value.detach().float() if value.is_floating_point() else value.detach()
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
