"""Orders of rows: passes, budgets of tokens, class-balanced draws; functions of the seed, shared out without a gap."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.contracts import Share
from losslab.data.row_order import Balanced, Bucketed, Shuffled, padding
from losslab.data.sampler import pass_order


def bucketed(lengths, batch_tokens: int, *, seed: int = 1, batch_size: int = 64) -> Bucketed:
    return Bucketed(lengths=np.array(lengths), batch_tokens=batch_tokens, seed=seed, batch_size=batch_size)


def steps_of(order: Bucketed, number: int = 0) -> list[list[int]]:
    return [order.rows(order.places(number * order.steps + step, Share())) for step in range(order.steps)]


def test_the_plain_order_is_that_of_before() -> None:
    order = Shuffled(count=37, seed=9, batch_size=10)
    for step in range(12):
        assert order.rows(order.places(step, Share())) == pass_order(37, 9, step * 10, 10)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=200),
    st.integers(300, 3000),
    st.integers(1, 40),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_each_pass_visits_each_row_once_within_the_budget(lengths, batch_tokens, batch_size, number) -> None:
    order = bucketed(lengths, batch_tokens, batch_size=batch_size)
    steps = steps_of(order, number)
    assert Counter(row for step in steps for row in step) == Counter(range(len(lengths)))
    for step in steps:
        assert 1 <= len(step) <= batch_size
        assert len(step) * max(lengths[row] for row in step) <= batch_tokens
    assert order.samples_per_step == len(lengths) / len(steps)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_shares_make_up_the_step(ranks, micros, step) -> None:
    order = bucketed([1 + i % 50 for i in range(90)], 100)
    shares = [Share(rank, ranks, micro, micros) for micro in range(micros) for rank in range(ranks)]
    parts = [order.places(step, share) for share in shares]
    assert [place for part in parts for place in part] == list(order.places(step, Share()))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_step_is_a_function_of_seed_and_number() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 500)
    one, other = bucketed(lengths, 900), bucketed(lengths, 900)
    backwards = {step: other.rows(other.places(step, Share())) for step in reversed(range(3 * other.steps))}
    assert all(backwards[step] == one.rows(one.places(step, Share())) for step in range(3 * one.steps))
    assert steps_of(one, 0) != steps_of(one, 1)
    assert steps_of(one) != steps_of(bucketed(lengths, 900, seed=2))
    mixed = [frozenset(step) for number in range(2) for step in steps_of(one, number)]
    assert len(set(mixed)) == len(mixed), "rows meet others in the next pass"


def test_steps_of_similar_length_have_little_padding() -> None:
    lengths = np.random.default_rng(1).integers(1, 400, 3000)
    order = bucketed(lengths, 4096, batch_size=1000)
    steps = steps_of(order)
    rows = np.random.default_rng(2).permutation(3000)
    size = round(order.samples_per_step)
    plain = [rows[i : i + size] for i in range(0, 3000, size)]
    total = sum(len(step) * lengths[step].max() for step in steps)
    assert padding(lengths, steps) == pytest.approx(1 - lengths.sum() / total)
    assert padding(lengths, steps) < 0.06
    assert padding(lengths, plain) > 0.35


def test_balanced_draws_give_each_class_its_share() -> None:
    labels = np.repeat([0, 1, 2, 4], [800, 150, 45, 5])
    for balance, wanted in (
        (1.0, np.full(4, 250.0)),
        (0.5, np.sqrt([800, 150, 45, 5]) / np.sqrt([800, 150, 45, 5]).sum() * 1000),
        (0.0, np.array([800.0, 150, 45, 5])),
    ):
        order = Balanced(labels=labels, balance=balance, seed=3, batch_size=10)
        found = np.zeros(4)
        for number in range(20):
            rows = order.rows(range(number * 1000, number * 1000 + 1000))
            drawn = np.bincount(labels[rows], minlength=5)[[0, 1, 2, 4]]
            assert (np.abs(drawn - wanted) < 1).all()
            found += drawn
            times = np.bincount(rows, minlength=1000)
            assert all(times[labels == c].max() - times[labels == c].min() <= 1 for c in (0, 1, 2, 4))
        assert np.abs(found / 20 - wanted).max() < 0.5
    again = Balanced(labels=labels, balance=0.0, seed=3, batch_size=10)
    assert again.rows(range(5000, 5020)) == order.rows(range(5000, 5020))


def test_balanced_draws_reach_every_row_over_the_passes() -> None:
    labels = np.repeat([0, 1], [900, 100])
    order = Balanced(labels=labels, balance=1.0, seed=1, batch_size=10)
    assert set(order.rows(range(25 * 1000))) == set(range(1000))
