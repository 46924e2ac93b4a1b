"""How a batch is divided among devices and micro-batches, and how long a run is."""

from pathlib import Path

import pytest

from losslab.config.stored import filled
from losslab.errors import UserError


def as_typed(value: object) -> str | None:
    return " ".join(value) if isinstance(value, list) else None


@pytest.mark.parametrize(
    ("typed", "micro", "accumulate"),
    [
        ([], 16, 1),
        (["trainer.micro_batch_size=4"], 4, 4),
        (["trainer.accumulate_grad_batches=8"], 2, 8),
        (["trainer.micro_batch_size=8", "trainer.accumulate_grad_batches=2"], 8, 2),
        (["trainer.devices=4"], 4, 1),
        (["trainer.devices=2", "trainer.num_nodes=2", "trainer.micro_batch_size=2"], 2, 2),
        (["trainer.devices=16"], 1, 1),
        (["data.batch_size=6", "trainer.devices=3", "trainer.accumulate_grad_batches=2"], 1, 2),
    ],
    ids=as_typed,
)
def test_the_shares_make_up_the_batch(typed: list[str], micro: int, accumulate: int, settle) -> None:
    config = settle(*typed)
    trainer = config["trainer"]
    assert (trainer["micro_batch_size"], trainer["accumulate_grad_batches"]) == (micro, accumulate)
    assert micro * accumulate * trainer["devices"] * trainer["num_nodes"] == config["data"]["batch_size"]


@pytest.mark.parametrize(
    "typed",
    [
        ["trainer.devices=3"],
        ["trainer.devices=32"],
        ["trainer.micro_batch_size=5"],
        ["trainer.micro_batch_size=32"],
        ["trainer.accumulate_grad_batches=3"],
        ["trainer.accumulate_grad_batches=17"],
        ["trainer.micro_batch_size=4", "trainer.accumulate_grad_batches=2"],
        ["trainer.devices=2", "trainer.micro_batch_size=16"],
        ["data.batch_size=10", "trainer.devices=2", "trainer.num_nodes=2"],
    ],
    ids=as_typed,
)
def test_a_split_that_does_not_divide_the_batch_is_refused(typed: list[str], settle) -> None:
    with pytest.raises(UserError, match=r"data.batch_size=1\d is not devices × micro_batch_size"):
        settle(*typed)


@pytest.mark.parametrize(
    ("typed", "steps", "interval"),
    [
        ([], 1000, 100),
        (["trainer.max_steps=50"], 50, 5),
        (["trainer.max_steps=7"], 7, 1),
        (["trainer.max_steps=7", "trainer.val_check_interval=3"], 7, 3),
        (["trainer.max_tokens=2048"], 1, 1),
        (["trainer.max_tokens=2049"], 2, 1),
        (["trainer.max_tokens=1"], 1, 1),
        (["trainer.max_tokens=204800", "data.batch_size=8", "data.context=64"], 400, 40),
    ],
    ids=as_typed,
)
def test_a_budget_is_whole_optimizer_steps(typed: list[str], steps: int, interval: int, settle) -> None:
    trainer = settle(*typed)["trainer"]
    assert (trainer["max_steps"], trainer["val_check_interval"], trainer["max_tokens"]) == (steps, interval, None)


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ([], 100 * 16 * 128 // 8),
        (["trainer.max_steps=20"], 4096),
        (["trainer.val_check_interval=50", "data.batch_size=64"], 50 * 64 * 128 // 8),
        (["trainer.max_tokens=8192000", "model.context=256"], 200 * 16 * 256 // 8),
        (["trainer.interim_eval_tokens=300"], 300),
        (["trainer.interim_eval_tokens=0"], 0),
    ],
    ids=as_typed,
)
def test_a_validation_scores_an_eighth_of_what_was_trained_since(typed: list[str], tokens: int, settle) -> None:
    assert settle(*typed)["trainer"]["interim_eval_tokens"] == tokens


def test_less_than_nothing_cannot_be_scored(settle) -> None:
    with pytest.raises(UserError, match=r"trainer\.interim_eval_tokens must be above 0, or 0 for all of val, not -1"):
        settle("trainer.interim_eval_tokens=-1")


def test_a_configuration_from_before_the_key_scored_all_of_val(settle) -> None:
    config = settle()
    del config["trainer"]["interim_eval_tokens"]
    assert filled(config, Path("config.yaml"))["trainer"]["interim_eval_tokens"] == 0
