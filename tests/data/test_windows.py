"""Which windows make up batch k, and that an evaluation predicts every token once."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.contracts import Batch, DataModule, Share, next_tokens
from losslab.data.encoding import TokenSplit
from losslab.data.sampler import hashed_order
from losslab.data.windows import EvalWindows, TrainOrder, gather, hash_batches

TOKENS = np.arange(1000, 1403, dtype=np.uint16)
"""Every token is one of a kind, so that it tells where it stands."""
ORDER = TrainOrder(num_tokens=len(TOKENS), context=8, seed=5)
BATCH_SIZE = 12


def make_split(length: int, documents: int = 30) -> TokenSplit:
    tokens = np.arange(length, dtype=np.uint16)
    fit = (np.arange(length) * documents // length) % 3 == 0
    lengths = np.bincount(np.arange(length) * documents // length, minlength=documents)
    return TokenSplit(tokens, (tokens % 5).astype(np.uint32), fit.astype(np.uint8), lengths)


orders = st.builds(
    lambda context, windows, slack, seed: TrainOrder(context * windows + 1 + slack % context, context, seed),
    context=st.integers(1, 9),
    windows=st.integers(1, 30),
    slack=st.integers(0, 8),
    seed=st.integers(0, 2**63),
)


@settings(deadline=None, max_examples=100)
@given(orders, st.integers(0, 200), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_any_part_of_the_order_is_the_slice_of_the_whole(order, first, before, count, after) -> None:
    whole = order.starts(first, before + count + after)
    part = order.starts(first + before, count)
    assert part.tolist() == whole[before : before + count].tolist()


@settings(deadline=None, max_examples=100)
@given(orders, st.integers(0, 3))
def test_each_epoch_visits_every_window_once(order, epoch) -> None:
    windows = (order.num_tokens - 1) // order.context
    starts = np.sort(order.starts(epoch * windows, windows))
    offset = starts[0]
    assert starts.tolist() == [offset + i * order.context for i in range(windows)]
    assert offset >= 0
    assert starts[-1] + order.context + 1 <= order.num_tokens, "a window and the token after it lie in the stream"


def test_epochs_and_seeds_differ_in_order_and_offset() -> None:
    windows = (len(TOKENS) - 1) // 8
    epochs = [tuple(TrainOrder(len(TOKENS), 8, seed).starts(e * windows, windows)) for seed in (5, 6) for e in range(6)]
    assert len(set(epochs)) == 12
    assert len({min(epoch) for epoch in epochs}) > 1


def test_the_order_of_a_seed_is_for_ever() -> None:
    assert ORDER.starts(0, 12).tolist() == [49, 249, 73, 305, 345, 321, 209, 9, 385, 81, 313, 337]
    assert hash_batches(TOKENS, ORDER, BATCH_SIZE, 5).startswith("6fa19fb4a4bcd0d8")


def test_a_batch_pairs_each_token_with_the_next() -> None:
    starts = np.array([0, 40, 394])
    batch = next_tokens(gather(TOKENS, starts, 8))
    assert batch.inputs["tokens"].tolist() == [TOKENS[s : s + 8].tolist() for s in starts]
    assert batch.target.tolist() == [TOKENS[s + 1 : s + 9].tolist() for s in starts]
    assert batch.inputs["tokens"].dtype == batch.target.dtype == torch.int64
    assert batch.weight.tolist() == np.ones((3, 8)).tolist()


class Windows(DataModule):
    """TOKENS in ORDER."""

    def __init__(self, batch_size: int, workers: int) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=1)
        self.num_workers = workers

    def train_batch(self, step: int, share: Share) -> Batch:
        rows = share.rows(self.batch_size)
        starts = ORDER.starts(step * self.batch_size + rows.start, rows.stop - rows.start)
        return next_tokens(gather(TOKENS, starts, ORDER.context))


def micro_batches(micro: int, accumulate: int, ranks: int, *, first_step: int = 0, workers: int = 0, steps: int = 4):
    """[rank][step · accumulate + m]: the micro-batches of a run's ranks."""
    found = []
    for rank in range(ranks):
        data = Windows(micro * accumulate * ranks, workers)
        data.start_at(step=first_step, accumulate=accumulate, rank=rank, ranks=ranks)
        loader = data.train_dataloader()
        found.append(list(itertools.islice(loader, steps * accumulate)))
    return found


def sequences(batches: list[Batch]) -> list[tuple[int, ...]]:
    return sorted(
        tuple(row) for batch in batches for row in torch.cat([batch.inputs["tokens"], batch.target[:, -1:]], 1).tolist()
    )


def expected_sequences(step: int) -> list[tuple[int, ...]]:
    return sorted(tuple(TOKENS[start : start + 9].tolist()) for start in ORDER.starts(step * BATCH_SIZE, BATCH_SIZE))


@pytest.mark.parametrize(
    ("micro", "accumulate", "ranks"), [(12, 1, 1), (6, 2, 1), (1, 12, 1), (6, 1, 2), (3, 2, 2), (2, 2, 3), (1, 3, 4)]
)
@pytest.mark.parametrize("first_step", [0, 7])
def test_every_split_of_a_batch_trains_on_the_same_sequences(micro, accumulate, ranks, first_step) -> None:
    by_rank = micro_batches(micro, accumulate, ranks, first_step=first_step)
    for step in range(4):
        mine = slice(step * accumulate, (step + 1) * accumulate)
        together = [batch for batches in by_rank for batch in batches[mine]]
        assert {len(batch.target) for batch in together} == {micro}
        assert sequences(together) == expected_sequences(first_step + step)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_shift_nothing(workers: int) -> None:
    (plain,) = micro_batches(6, 2, 1, first_step=3)
    (shared,) = micro_batches(6, 2, 1, first_step=3, workers=workers)
    assert len(plain) == 8
    assert [b.inputs["tokens"].tolist() for b in shared] == [b.inputs["tokens"].tolist() for b in plain]


@pytest.mark.parametrize("first_step", [1, 5, 40])
def test_a_later_first_step_continues_exactly(first_step: int) -> None:
    (whole,) = micro_batches(4, 3, 1, steps=first_step + 2)
    (rest,) = micro_batches(4, 3, 1, first_step=first_step, steps=2)
    assert [b.target.tolist() for b in rest] == [b.target.tolist() for b in whole[first_step * 3 :]]


def test_the_hash_of_batches_is_of_what_is_trained_on() -> None:
    reference = hash_batches(TOKENS, ORDER, BATCH_SIZE, 3)
    assert hash_batches(TOKENS.astype(np.uint32), ORDER, BATCH_SIZE, 3) == reference
    others = [
        hash_batches(TOKENS + 1, ORDER, BATCH_SIZE, 3),
        hash_batches(TOKENS, TrainOrder(len(TOKENS), 8, 6), BATCH_SIZE, 3),
        hash_batches(TOKENS, ORDER, BATCH_SIZE, 4),
        hash_batches(TOKENS, ORDER, BATCH_SIZE + 1, 3),
    ]
    assert len({reference, *others}) == 5


def predicted(batches: list[Batch]) -> list[int]:
    """The targets that count; in `make_split` a token is its own position."""
    return [token for batch in batches for token in batch.target[batch.weight != 0].tolist()]


@pytest.mark.parametrize(
    ("length", "context"), [(101, 10), (100, 10), (102, 10), (2, 10), (11, 10), (12, 1), (57, 100)]
)
@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_every_token_but_the_first_is_predicted_once(length: int, context: int, batch_size: int) -> None:
    split = make_split(length)
    windows = EvalWindows(split, context, by_window=False)
    batches = list(windows.batches(batch_size))
    assert predicted(batches) == list(range(1, length))
    assert sum(len(batch.target) for batch in batches) == windows.count
    for batch in batches:
        counts = batch.weight != 0
        assert set(batch.weight.unique().tolist()) <= {0.0, 1.0}
        assert batch.inputs["tokens"].shape == batch.target.shape == (len(batch.target), context)
        target = batch.target[counts]
        assert torch.equal(batch.inputs["tokens"][counts], target - 1)
        assert torch.equal(batch.extras["bytes"][counts], (target % 5).float())
        assert torch.equal(batch.extras["fit"][counts], torch.from_numpy(split.fit)[target])


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 30])
def test_ranks_share_the_windows_without_duplicates(ranks: int) -> None:
    windows = EvalWindows(make_split(203), 10, by_window=False)
    shares = [predicted(list(windows.batches(4, rank=rank, ranks=ranks))) for rank in range(ranks)]
    assert sorted(itertools.chain(*shares)) == list(range(1, 203))
    sizes = [-(-len(share) // 10) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 20])
def test_halves_by_window_both_have_positions(count: int) -> None:
    windows = EvalWindows(make_split(count * 10 + 1), 10, by_window=True)
    fit = [int(batch.extras["fit"][batch.weight != 0].sum()) for batch in windows.batches(1)]
    assert len(fit) == count
    assert 0 in fit, "nothing is left to score nll_scaled on"
    assert 10 in fit, "there is nothing to fit the temperature on"


@pytest.mark.parametrize("length", [3, 8, 11])
def test_a_single_window_is_halved_within_itself(length: int) -> None:
    (batch,) = EvalWindows(make_split(length), 10, by_window=True).batches(4)
    fit = batch.extras["fit"][batch.weight != 0]
    assert len(fit) == length - 1
    assert int(fit.sum()) == (length - 1) // 2


@pytest.mark.parametrize("by_window", [True, False])
@pytest.mark.parametrize("most", [1, 35, 60, 10_000])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_fit_takes_windows_up_to_a_number_of_positions(most: int, batch_size: int, by_window: bool) -> None:
    split = make_split(405)
    windows = EvalWindows(split, 10, by_window=by_window)
    batches = list(windows.fit_batches(batch_size, most))
    per_window = [int((f * w).sum()) for b in batches for f, w in zip(b.extras["fit"], b.weight, strict=True)]
    available = sum(int((b.extras["fit"] * b.weight).sum()) for b in windows.batches(8))
    assert all(per_window)
    assert len(set(predicted(batches))) == len(predicted(batches))
    assert len(per_window) == 1 or sum(per_window) <= most
    assert sum(per_window) > min(most, available) - 10
    assert max(len(batch.target) for batch in batches) <= batch_size
    again = list(windows.fit_batches(batch_size, most))
    assert predicted(again) == predicted(batches)


def test_each_target_knows_its_document() -> None:
    split = make_split(203, documents=30)
    windows = EvalWindows(split, 10, by_window=False)
    assert windows.num_units == 30
    found = np.concatenate([batch.extras["unit"][batch.weight > 0] for batch in windows.batches(4)])
    assert found.tolist() == [k * 30 // 203 for k in range(1, 203)]


def test_of_few_documents_each_window_is_scored_apart() -> None:
    windows = EvalWindows(make_split(48, documents=2), 10, by_window=True)
    (batch,) = windows.batches(9)
    assert windows.num_units == 5
    assert (batch.extras["unit"] == torch.arange(5)[:, None]).all()


def test_of_very_many_documents_neighbours_share_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.data.windows.MOST_UNITS", 7)
    windows = EvalWindows(make_split(300, documents=30), 10, by_window=False)
    found = np.concatenate([batch.extras["unit"][batch.weight > 0] for batch in windows.batches(4)])
    sizes = np.bincount(found)
    assert len(sizes) == windows.num_units == 7 and (np.diff(found) >= 0).all()
    assert sizes.min() >= 40 - 1 and sizes.max() <= 50


splits_of_val = pytest.mark.parametrize(("length", "by_window"), [(1201, False), (1201, True), (150, True)])


def scored_in(windows: EvalWindows, most: int | None, **share: int) -> list[int]:
    """The tokens that an evaluation of a part scores; each of them says where it stands."""
    return [
        token for batch in windows.batches(3, most=most, **share) for token in batch.target[batch.weight != 0].tolist()
    ]


@splits_of_val
@pytest.mark.parametrize("most", [1, 16, 100, 500])
def test_a_part_holds_as_many_positions_as_asked_and_both_halves(length: int, by_window: bool, most: int) -> None:
    windows = EvalWindows(make_split(length), 16, by_window=by_window)
    found = scored_in(windows, most)
    assert len(set(found)) == len(found) == windows.num_positions(most)
    assert sorted(windows.targets(most).tolist()) == sorted(found)
    assert min(most, length - 1) - 16 < len(found) <= max(most, 2 * 16), "two windows where one has one half alone"
    halves = {bool(x) for b in windows.batches(3, most=most) for x in b.extras["fit"][b.weight != 0].tolist()}
    assert halves == {True, False}


@splits_of_val
def test_more_positions_hold_fewer_and_enough_are_all(length: int, by_window: bool) -> None:
    windows = EvalWindows(make_split(length), 16, by_window=by_window)
    parts = [set(scored_in(windows, most)) for most in (20, 70, 300, length - 1, None)]
    assert all(less <= more for less, more in itertools.pairwise(parts))
    assert len(parts[-2]) == len(parts[-1]) == length - 1


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_a_part_out(ranks: int) -> None:
    windows = EvalWindows(make_split(1201), 16, by_window=False)
    shares = [scored_in(windows, 200, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert sorted(itertools.chain(*shares)) == sorted(scored_in(windows, 200))
    assert len({len(list(windows.batches(3, rank=rank, ranks=ranks, most=200))) for rank in range(ranks)}) == 1


def test_the_part_is_scattered_over_the_split_and_the_same_every_time() -> None:
    part = EvalWindows(make_split(1201), 16, by_window=False).choose(200)
    assert part.tolist() == EvalWindows(make_split(1201), 16, by_window=False).choose(200).tolist()
    assert part.min() < 25 and part.max() > 50 and len(part) == 12


@pytest.mark.parametrize("most", [100, 3000])
def test_a_kept_order_chooses_the_same_windows(most: int, tmp_path, monkeypatch) -> None:
    def choose(memory: Path | None) -> tuple[list[int], list[int]]:
        windows = EvalWindows(make_split(12_001), 16, by_window=False, memory=memory)
        fit = [batch.inputs["tokens"].flatten().tolist() for batch in windows.fit_batches(8, most)]
        return windows.choose(most).tolist(), fit

    expected = choose(None)
    monkeypatch.setattr("losslab.data.sampler._MANY", 100)
    assert choose(tmp_path) == expected
    monkeypatch.setattr("losslab.data.sampler._hash", None)  # the second time nothing is hashed
    assert choose(tmp_path) == expected


def test_a_damaged_order_is_worked_out_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.sampler._MANY", 100)
    expected = hashed_order(500, tmp_path).tolist()
    (path,) = tmp_path.glob("*/order.npy")
    np.save(path, np.arange(500))
    assert hashed_order(500, tmp_path).tolist() == expected == hashed_order(500).tolist()
