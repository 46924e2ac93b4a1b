"""The base of data modules over datasets: batches that are a function of seed and step, each sample scored once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from losslab.contracts import Batch, Share, raw_bytes
from losslab.data.samples import SamplesDataModule
from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling

SIZES = {"train": 23, "val": 9, "test": 7}


class Tagging(LanguageModeling):
    """Sequences of numbers, padded; the target of each is whether it is odd."""

    of_stream = False

    def collate(self, examples: Sequence[Any]) -> Batch:
        longest = max(len(example) for example in examples)
        tokens = torch.tensor([[*example, *[0] * (longest - len(example))] for example in examples])
        lengths = torch.tensor([len(example) for example in examples])
        weight = (torch.arange(longest) < lengths[:, None]).float()
        return Batch({"tokens": tokens}, tokens % 2, weight, {})


class Numbers(SamplesDataModule):
    vocab_size = 100
    num_classes = 2

    def datasets(self) -> Mapping[str, Sequence[Any]]:
        return {split: [[i, *range(i % 4)] for i in range(size)] for split, size in SIZES.items()}


def prepared(**options: Any) -> Numbers:
    data = Numbers(**({"batch_size": 6, "val_batch_size": 4} | options))
    data.seed = options.get("seed", 5)
    data.info = data.prepare(Path(), Tagging())
    return data


def ids(batches: Iterable[Batch]) -> list[int]:
    return [number for batch in batches for number in batch.extras["id"][:, 0].tolist()]


def test_the_sizes_are_counted() -> None:
    info = prepared().info
    lengths = [1 + i % 4 for i in range(SIZES["train"])]
    assert info.splits["train"].positions == sum(lengths)
    assert info.mean_positions == pytest.approx(sum(lengths) / len(lengths))
    odd = sum(number % 2 for i in range(SIZES["train"]) for number in [i, *range(i % 4)])
    assert info.class_counts is not None
    assert info.class_counts.tolist() == [sum(lengths) - odd, odd]


def test_each_pass_visits_every_sample_once_in_an_order_of_its_own() -> None:
    data = prepared(batch_size=1)
    first, second = ([ids([data.train_batch(step + start, Share())])[0] for step in range(23)] for start in (0, 23))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again = prepared(), prepared()
    late = again.train_batch(7, Share())
    assert torch.equal(first.train_batch(7, Share()).inputs["tokens"], late.inputs["tokens"])
    again.seed = 6
    assert ids([again.train_batch(7, Share())]) != ids([late])


@pytest.mark.parametrize(("ranks", "micros"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 3)])
def test_shares_make_up_the_batch(ranks: int, micros: int) -> None:
    data = prepared()
    shares = [Share(rank, ranks, micro, micros) for micro in range(micros) for rank in range(ranks)]
    assert ids(data.train_batch(4, share) for share in shares) == ids([data.train_batch(4, Share())])


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("val_batch_size", [1, 4, 100])
def test_each_sample_is_scored_once(ranks: int, val_batch_size: int) -> None:
    data = prepared(val_batch_size=val_batch_size)
    parts = [ids(data.eval_batches("val", Share(rank, ranks))) for rank in range(ranks)]
    assert sorted(number for part in parts for number in part) == list(range(SIZES["val"]))


def test_a_part_of_a_split_is_the_same_always_and_has_both_halves() -> None:
    data = prepared()
    few, more = (ids(data.eval_batches("val", Share(), "all", most)) for most in (6, 12))
    assert set(few) < set(more) < set(range(SIZES["val"]))
    for most in (1, 6):
        batches = list(data.eval_batches("val", Share(), "all", most))
        assert {int(value) for batch in batches for value in batch.extras["fit"].flatten()} == {0, 1}
    fitting = list(data.eval_batches("val", Share(), "fit"))
    assert all(bool(batch.extras["fit"].all()) for batch in fitting)
    assert len(ids(fitting)) == 5


@pytest.mark.parametrize("count", [1, 2])
def test_files_are_hashed_into_the_identity(count: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"rows{i}" for i in range(count)]

    class OnDisk(Numbers):
        def files(self) -> Mapping[str, Path | Sequence[Path]]:
            return {"data.path": paths[0] if count == 1 else paths}

    data = OnDisk(batch_size=6)
    with pytest.raises(UserError, match=r"data.path: .*rows0 cannot be read: No such file"):
        data.content_hashes(Tagging())
    for path in paths:
        path.write_text("1")
    first = data.content_hashes(Tagging())
    paths[-1].write_text("2")
    assert data.content_hashes(Tagging()).keys() == first.keys() == {"data.path"}
    assert data.content_hashes(Tagging()) != first


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"task=lm has no collate"):
        Numbers(batch_size=6).check_task(LanguageModeling())
    monkeypatch.setattr(Numbers, "num_classes", 1)
    with pytest.raises(UserError, match=r"a target of Numbers is the class 1, and there are 1, from 0"):
        prepared()
    monkeypatch.setattr(Numbers, "splits", ("train", "val", "test", "dev"))
    with pytest.raises(UserError, match=r"Numbers.datasets gives no samples for its split dev"):
        prepared()


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(1.5).expand(1), torch.ones(3, 2).T, torch.tensor(3), torch.ones(0), torch.ones(1).expand(4, 1)],
)
def test_the_bytes_of_a_tensor_are_its_values_whatever_its_strides(tensor: torch.Tensor) -> None:
    assert raw_bytes(tensor) == tensor.clone(memory_format=torch.contiguous_format).numpy().tobytes()
    half = tensor.bfloat16()
    assert len(raw_bytes(half)) == 2 * half.numel()
