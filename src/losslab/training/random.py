"""Named random streams, each derived from (seed, name), so that using one never shifts another.

backbone_init, head_init   explicit generators, for the initial weights
data_order                 the order of training windows
dropout                    the default generator, seeded anew before each micro-batch: nothing to save, nothing to leak
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """63 bits of SHA-256 of the seed and the stream's name."""
    content = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """The stream `name` of run `seed`, on the CPU: initial weights are the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, name))


def seed_dropout(seed: int, *, step: int, micro: int, rank: int) -> None:
    """Dropout has no generator of its own: seed the default one for exactly this micro-batch."""
    torch.manual_seed(derive_seed(seed, "dropout", step, micro, rank))


def hash_weights(module: torch.nn.Module) -> str:
    """SHA-256 of all parameters by name: the proof that two runs started from the same weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.named_parameters()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
