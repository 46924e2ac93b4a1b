"""Beam search against all texts of a tiny vocabulary, and against a slow search. That transformers finds
the same is tested in tests/integrations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prefix_models import END, Found, PrefixSteps, every_text, prefix_model, slow_search

from losslab.errors import UserError
from losslab.training.generation.search import Hypothesis, search

SEEDS = st.integers(0, 10**6)
PENALTIES = st.sampled_from([-0.5, 0.0, 0.6, 1.0, 2.0])


def run(models: list, longest: list[int], **settings: object) -> list[list[Hypothesis]]:
    begin = torch.full((len(models),), END)
    return search(PrefixSteps(models), begin, END, longest=torch.tensor(longest), **settings)  # type: ignore[arg-type]


def as_pairs(hypotheses: list[Hypothesis]) -> Found:
    return [(each.score, (*each.tokens, *([END] if each.ended else []))) for each in hypotheses]


def same(found: Found, wanted: Found) -> bool:
    return [text for _, text in found] == [text for _, text in wanted] and all(
        abs(ours - theirs) < 1e-12 for (ours, _), (theirs, _) in zip(found, wanted, strict=True)
    )


@settings(max_examples=20, deadline=None)
@given(SEEDS, PENALTIES, st.integers(2, 4), st.integers(1, 4))
def test_beams_that_hold_everything_find_the_best_of_all_texts(
    seed: int, penalty: float, vocab_size: int, longest: int
) -> None:
    model, beams = prefix_model(seed, vocab_size), vocab_size**longest
    (found,) = run([model], [longest], beams=beams, nbest=4 if beams > 4 else 1, length_penalty=penalty)
    assert same(as_pairs(found), every_text(model, vocab_size, longest, penalty)[: len(found)])


@settings(max_examples=30, deadline=None)
@given(SEEDS, PENALTIES, st.integers(2, 5), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_a_batch_finds_what_a_slow_search_without_early_stopping_finds(
    seed: int, penalty: float, beams: int, longest: list[int], data: st.DataObject
) -> None:
    """Inputs of different longest lengths, which leave the batch one after the other, and the n best of each."""
    nbest = data.draw(st.integers(1, beams))
    models = [prefix_model(seed + i, 5) for i in range(len(longest))]
    found = run(models, longest, beams=beams, length_penalty=penalty, nbest=nbest)
    for model, most, hypotheses in zip(models, longest, found, strict=True):
        assert same(as_pairs(hypotheses), slow_search(model, most, beams, penalty)[:nbest])


@settings(max_examples=20, deadline=None)
@given(SEEDS, PENALTIES, st.integers(1, 12), st.booleans())
def test_one_beam_is_greedy(seed: int, penalty: float, longest: int, exact: bool) -> None:
    model, text = prefix_model(seed, 5), []
    while len(text) < longest and (not text or text[-1] != END):
        text.append(int(torch.tensor(model(tuple(text))).argmax()))
    ((found,),) = run([model], [longest], length_penalty=penalty, exact=exact)
    assert [*found.tokens, *([END] if found.ended else [])] == text
    assert found.ended == (text[-1] == END)


@pytest.mark.parametrize("exact", [True, False])
def test_the_other_inputs_change_nothing_and_leave_the_batch_when_they_are_done(exact: bool) -> None:
    models, longest = [prefix_model(seed, 6) for seed in range(12)], [3 + seed for seed in range(12)]
    together = PrefixSteps(models)
    found = search(
        together, torch.full((12,), END), END, longest=torch.tensor(longest), beams=3, length_penalty=0.5, exact=exact
    )
    assert found == [
        run([m], [n], beams=3, length_penalty=0.5, exact=exact)[0] for m, n in zip(models, longest, strict=True)
    ]
    assert together.calls[0] == 12 < together.calls[1] <= 36 and together.calls[-1] <= 3 * 3


def test_a_search_that_stops_early_makes_fewer_steps() -> None:
    calls = {}
    for exact in (True, False):
        steps = PrefixSteps([prefix_model(seed, 6) for seed in range(8)])
        search(steps, torch.full((8,), END), END, longest=torch.full((8,), 40), beams=4, exact=exact)
        calls[exact] = sum(steps.calls)
    assert calls[False] < calls[True]


def test_tokens_without_probability_are_never_written() -> None:
    """Fewer hypotheses than beams: one certain token after the other, and the end after three."""

    def certain(prefix: tuple[int, ...]) -> list[float]:
        return [0.0 if token == (END if len(prefix) == 3 else 2) else -torch.inf for token in range(4)]

    (found,) = run([certain], [9], beams=3, nbest=3)
    assert found == [Hypothesis([2, 2, 2], 0.0, 0.0, True)]


def test_ranks_make_the_same_number_of_steps() -> None:
    """A rank that is done makes steps as long as another goes on."""
    steps, more = PrefixSteps([prefix_model(1, 5)]), []

    def agree(mine: bool) -> bool:
        more.append(mine)
        return len(more) <= 20

    begin, longest = torch.tensor([END]), torch.tensor([6])
    found = search(steps, begin, END, longest=longest, beams=2, agree=agree)
    assert len(steps.calls) == 20 and not more[-1] and more[0]
    assert found == run([prefix_model(1, 5)], [6], beams=2)


def test_settings_out_of_range_and_predictions_that_are_no_numbers_are_refused() -> None:
    model = prefix_model(1, 4)
    with pytest.raises(UserError, match="beams must be 1 or more, not 0"):
        run([model], [3], beams=0)
    with pytest.raises(UserError, match="nbest must be from 1 to beams=2, not 3"):
        run([model], [3], beams=2, nbest=3)
    with pytest.raises(UserError, match="room for 1 token"):
        run([model], [0])
    with pytest.raises(UserError, match="not finite"):
        run([lambda prefix: [float("nan")] * 4], [3])
    assert run([], []) == []
