"""Named random streams: reproducible, and deaf to each other."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from tiny_network import V, make_network

from losslab.models.decoder import Decoder
from losslab.training.random import derive_seed, generator, global_stream, hash_weights, seed_dropout

ONES = torch.ones(200)


def dropout_mask(*, seed: int = 1, step: int = 0, micro: int = 0, rank: int = 0) -> torch.Tensor:
    seed_dropout(seed, step=step, micro=micro, rank=rank)
    return torch.nn.functional.dropout(ONES, 0.5)


def test_seeds_are_those_of_sha256() -> None:
    """Fixed for ever: a run of an older version continues with the same numbers. From `printf NAME | sha256sum`."""
    assert derive_seed(0, "data_order") == 0xCC45B9F41A5F567D >> 1
    assert derive_seed(7, "dropout", 3, 1, 0) == 0x606C05FE95F25A43 >> 1


def test_every_device_in_use_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    for devices in (torch.cuda, torch.xpu, torch.mtia):
        monkeypatch.setattr(devices, "is_initialized", lambda devices=devices: devices is not torch.xpu)
        monkeypatch.setattr(devices, "manual_seed_all", lambda value, devices=devices: seeded.append((devices, value)))
    value = derive_seed(1, "dropout", 2, 0, 0)
    dropout_mask(step=2)
    assert seeded == [(torch.cuda, value), (torch.mtia, value)]


def test_seeds_of_different_streams_differ_and_have_63_bits() -> None:
    seeds = [
        derive_seed(seed, *names)
        for seed in range(20)
        for names in (("backbone_init",), ("head_init",), ("data_order",), *(("dropout", s, 0, 0) for s in range(5)))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) >= 2**62


def test_using_one_stream_shifts_no_other() -> None:
    expected = torch.rand(5, generator=generator(3, "head_init"))
    first = generator(3, "backbone_init")
    torch.rand(100, generator=first)
    torch.rand(100)
    assert torch.equal(torch.rand(5, generator=generator(3, "head_init")), expected)
    assert not torch.equal(torch.rand(5, generator=generator(3, "data_order")), expected)
    assert not torch.equal(torch.rand(5, generator=generator(4, "head_init")), expected)


def drawn() -> tuple[float, float, float]:
    """A number from each of the global generators."""
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_what_draws_from_the_global_generators_draws_from_the_named_stream() -> None:
    found = []
    for seed, name in ((1, "model"), (1, "model"), (2, "model"), (1, "loss")):
        drawn()
        with global_stream(seed, name):
            found.append(drawn())
    assert found[0] == found[1]
    for at in range(3):
        assert len({numbers[at] for numbers in found}) == 3


def test_a_named_stream_leaves_the_global_generators_where_they_were() -> None:
    seed_dropout(1, step=0, micro=0, rank=0)
    expected = drawn(), drawn()
    seed_dropout(1, step=0, micro=0, rank=0)
    found = [drawn()]
    with suppress(ArithmeticError), global_stream(3, "model"):
        drawn()
        with global_stream(4, "loss"):
            torch.manual_seed(0)
        raise ArithmeticError
    assert (*found, drawn()) == expected


def test_a_stream_does_not_touch_the_default_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(5)
    torch.manual_seed(0)
    torch.rand(100, generator=generator(0, "data_order"))
    assert torch.equal(torch.rand(5), expected)


def test_the_same_micro_batch_has_the_same_dropout_mask_whatever_came_before() -> None:
    expected = dropout_mask()
    torch.rand(17)
    dropout_mask(step=9)
    assert torch.equal(dropout_mask(), expected)


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 1}, {"micro": 1}, {"rank": 1}])
def test_seed_step_micro_batch_and_rank_each_have_a_mask_of_their_own(other: dict[str, int]) -> None:
    assert not torch.equal(dropout_mask(**other), dropout_mask())


def test_step_micro_batch_and_rank_are_not_mixed_up() -> None:
    masks = [dropout_mask(step=1), dropout_mask(micro=1), dropout_mask(rank=1), dropout_mask(step=11), dropout_mask()]
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks)


def test_seeding_dropout_shifts_no_named_stream() -> None:
    stream = generator(3, "data_order")
    torch.rand(1, generator=stream)
    seed_dropout(3, step=0, micro=0, rank=0)
    after = torch.rand(5, generator=stream)
    expected = torch.rand(6, generator=generator(3, "data_order"))[1:]
    assert torch.equal(after, expected)


def test_the_backbone_is_the_same_under_every_loss_and_head() -> None:
    def backbone(*, tied: bool) -> str:
        model = Decoder(
            num_layers=1,
            num_heads=2,
            width=8,
            context=4,
            vocab_size=V,
            tie_embeddings=tied,
            generator=generator(5, "backbone_init"),
        )
        model.output_projection(V, generator(5, "head_init"))
        return hash_weights(model)

    assert backbone(tied=True) == backbone(tied=False)


def test_the_hash_is_that_of_the_weights_alone() -> None:
    torch.manual_seed(0)
    first = hash_weights(make_network(seed=4).backbone)
    torch.manual_seed(1)
    assert hash_weights(make_network("square", seed=4).eval().backbone) == first
    assert hash_weights(make_network(seed=5).backbone) != first


def test_the_hash_changes_with_every_single_weight() -> None:
    network = make_network(tie_embeddings=False, positions="learned")
    hashes = [hash_weights(network)]
    for parameter in network.parameters():
        flat = parameter.detach().view(-1)
        old = flat[-1].item()
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))
        hashes.append(hash_weights(network))
        flat[-1] = old
    assert len(set(hashes)) == len(hashes) > 20
    assert hash_weights(network) == hashes[0]


def test_the_hash_covers_the_buffers_that_a_checkpoint_holds() -> None:
    def hashed(value: float, *, kept: bool) -> str:
        module = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(module.weight), torch.nn.init.zeros_(module.bias)
        module.register_buffer("features", torch.tensor(value), persistent=kept)
        return hash_weights(module)

    assert hashed(1.0, kept=True) != hashed(2.0, kept=True)
    assert hashed(1.0, kept=False) == hashed(2.0, kept=False)


def test_the_hash_knows_which_parameter_holds_which_weights() -> None:
    def hashed(**values: float) -> str:
        return hash_weights(torch.nn.ParameterDict({name: torch.full((2,), v) for name, v in values.items()}))

    hashes = {hashed(a=1.0, b=2.0), hashed(a=2.0, b=1.0), hashed(a=1.0, c=2.0)}
    assert len(hashes) == 3
    assert hashed(b=2.0, a=1.0) in hashes
