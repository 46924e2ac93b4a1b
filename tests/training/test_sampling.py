"""Temperature, top-k and top-p against a float64 reference, and draws against exact distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from losslab.errors import UserError
from losslab.training.generation.sampling import Sampling

LOG_PROBS = torch.tensor([0.04, 0.3, 0.0, 0.05, 0.3, 0.21, 0.1]).log()
"""Two tokens that are equally probable, and one that is impossible, as entmax predicts."""
DRAWS = 4000


def reference(log_probs: list[float], temperature: float, top_k: int | None, top_p: float) -> list[float]:
    """The distribution by the definitions, without torch."""
    largest = max(log_probs)
    powers = [math.exp((value - largest) / temperature) for value in log_probs]
    kept = sorted(range(len(powers)), key=lambda i: (-powers[i], i))[:top_k]
    whole, reached, nucleus = math.fsum(powers[i] for i in kept), 0.0, []
    for i in kept:
        nucleus.append(i)
        reached += powers[i] / whole
        if reached >= top_p:
            break
    whole = math.fsum(powers[i] for i in nucleus)
    return [powers[i] / whole if i in nucleus else 0.0 for i in range(len(powers))]


def at_the_edge(log_probs: list[float], temperature: float, top_k: int | None, top_p: float) -> bool:
    """Whether rounding decides if one more token belongs to the nucleus."""
    around = (top_p - 1e-9, top_p + 1e-9)
    return top_p < 1 and len({str(reference(log_probs, temperature, top_k, edge)) for edge in around}) > 1


@given(
    st.lists(st.floats(-20, 5), min_size=1, max_size=12),
    st.floats(0.05, 5),
    st.none() | st.integers(1, 14),
    st.floats(0.01, 0.99) | st.just(1.0),
)
@settings(max_examples=100, deadline=None)
def test_the_filtered_distribution_is_that_of_the_definitions(
    log_probs: list[float], temperature: float, top_k: int | None, top_p: float
) -> None:
    found = torch.tensor(log_probs, dtype=torch.float64)
    made = Sampling(temperature=temperature, top_k=top_k, top_p=top_p).probabilities(found)
    assume(not at_the_edge(log_probs, temperature, top_k, top_p))
    expected = torch.tensor(reference(log_probs, temperature, top_k, top_p), dtype=torch.float64)
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.04, 0.3, 0.0, 0.05, 0.3, 0.21, 0.1]),
        ({"top_k": 1}, [0, 1, 0, 0, 0, 0, 0]),
        ({"top_k": 3}, [0, 0.3 / 0.81, 0, 0, 0.3 / 0.81, 0.21 / 0.81, 0]),
        ({"top_p": 0.59}, [0, 0.5, 0, 0, 0.5, 0, 0]),
        ({"top_p": 0.61}, [0, 0.3 / 0.81, 0, 0, 0.3 / 0.81, 0.21 / 0.81, 0]),
        ({"top_p": 1e-9}, [0, 1, 0, 0, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0.5, 0, 0, 0.5, 0, 0]),
        ({"temperature": 0.5}, [p**2 / 0.2382 for p in (0.04, 0.3, 0.0, 0.05, 0.3, 0.21, 0.1)]),
        ({"temperature": 1e-300}, [0, 0.5, 0, 0, 0.5, 0, 0]),
    ],
    ids=str,
)
def test_known_distributions(options: dict[str, float], expected: list[float]) -> None:
    made = Sampling(**options).probabilities(LOG_PROBS)
    torch.testing.assert_close(made, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.7, "top_k": 5, "top_p": 0.95}], ids=str)
def test_draws_follow_the_distribution(options: dict[str, float]) -> None:
    sampling, stream = Sampling(**options), torch.Generator().manual_seed(0)
    counts = torch.zeros(len(LOG_PROBS))
    for _ in range(DRAWS):
        counts[sampling.draw(LOG_PROBS, stream)] += 1
    p = sampling.probabilities(LOG_PROBS)
    assert counts[p == 0].sum() == 0
    assert chisquare(counts[p > 0], DRAWS * p[p > 0]).pvalue > 0.001


def test_temperature_0_takes_the_most_probable_and_the_same_number_of_draws() -> None:
    greedy, stream, other = Sampling(temperature=0), torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    assert greedy.draw(torch.tensor([-2.0, -1.0, -math.inf]), stream) == 1
    Sampling().draw(LOG_PROBS, other)
    assert torch.equal(stream.get_state(), other.get_state())


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", math.inf), ("top_k", 0), ("top_p", 0), ("top_p", 1.1), ("top_p", math.nan)],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} must be"):
        Sampling(**{name: value})
