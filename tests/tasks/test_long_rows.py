"""Rows longer than the context: read in windows, each token once, as a plain loop in float64 finds it."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.contracts import Batch, DataInfo, EvalWindows, Features, LossSum, Share, TargetKind, no_objective
from losslab.data.rows import RowsDataModule
from losslab.data.tokenizer import ByteTokenizer, artifacts_of
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.models.encoder import Encoder
from losslab.models.lstm import LSTM
from losslab.tasks.classification import Classification
from losslab.tasks.completion import Completion
from losslab.tasks.mlm import MaskedLanguageModeling
from losslab.tasks.pooling import Pooling
from losslab.tasks.tagging import Tagging
from losslab.training.long_inputs import InWindows, window_table
from losslab.training.network import Network
from losslab.training.scoring.predicting import RowPredictor
from losslab.training.scoring.teacher import TeacherRun
from losslab.training.trial.data import equal

SIZE, STRIDE, V = 8, 3, 257
WINDOWS = EvalWindows(SIZE, STRIDE, 4)
LABELS = ["x", "y", "z"]
INFO = DataInfo(
    splits={}, mean_positions=1, vocab_size=V, num_classes=3,
    artifacts=artifacts_of(ByteTokenizer()) | {"labels.json": json.dumps({"label": LABELS})},
)  # fmt: skip
MODELS = {"encoder": Encoder, "decoder": Decoder, "lstm": LSTM}


def network_of(model: str, pooling: Pooling = "mean") -> Network:
    sizes: dict[str, Any] = {"num_layers": 2, "width": 8, "vocab_size": V, "context": SIZE, "tie_embeddings": False}
    sizes |= {} if model == "lstm" else {"num_heads": 2, "init_std": 0.3}
    backbone = MODELS[model](**sizes, generator=torch.Generator().manual_seed(0))
    head = torch.Generator().manual_seed(1)
    task = Classification(pooling=pooling)
    return Network(backbone=backbone, loss=CrossEntropy(), task=task, info=INFO, head_init=head).eval()


def rows_of(*lengths: int, seed: int = 0) -> list[list[int]]:
    draws = random.Random(seed)
    return [[draws.randrange(256) for _ in range(length)] for length in lengths]


def batch_of(rows: list[list[int]], windows: EvalWindows | None = WINDOWS) -> Batch:
    examples = [{"text": torch.tensor(row), "label": i % 3} for i, row in enumerate(rows)]
    return Classification().collate(examples)._replace(windows=windows)


@torch.no_grad()
def logits(network: Network, batch: Batch) -> Tensor:
    found: list[Tensor] = []

    def observe(features: Features, loss: CrossEntropy, projection: Any) -> LossSum:
        found.append(projection(features.hidden))
        return no_objective(projection.weight)

    network(batch, observe)
    return found[0]


@torch.no_grad()
def expected(network: Network, row: list[int], pooling: str) -> Tensor:
    """The logits of a row: a window at a time, and for each token the window with most context."""
    last = max(len(row) - SIZE, 0)
    starts = [*range(0, last, STRIDE), last]
    states = [network.backbone({"tokens": torch.tensor([row[s : s + SIZE]])})[0] for s in starts]
    causal = not isinstance(network.backbone, Encoder)
    kept = []
    for t in range(len(row)):
        context = {}
        for k, start in enumerate(starts):
            if start <= t < start + SIZE:
                before, after = t - start, start + SIZE - 1 - t
                context[k] = before if causal else min(before, after)
        best = next(k for k, value in context.items() if value == max(context.values()))
        kept.append(states[best][t - starts[best]])
    stack = torch.stack(kept)
    pooled = {"mean": stack.mean(0), "first": stack[0], "last": stack[-1]}[pooling]
    return network.projection(pooled[None])[0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_logits_are_those_of_a_plain_loop(model: str, pooling: Pooling) -> None:
    network = network_of(model, pooling).double()
    rows = rows_of(3, 30, SIZE, SIZE + 1, 1, 19)
    found = logits(network, batch_of(rows))
    torch.testing.assert_close(
        found, torch.stack([expected(network, row, pooling) for row in rows]), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("model", ["encoder", "decoder"])
def test_other_rows_and_the_windows_of_a_call_change_nothing(model: str) -> None:
    network, rows = network_of(model), rows_of(5, 40, 9, 8, 23)
    together = logits(network, batch_of(rows))
    for i, row in enumerate(rows):
        assert (logits(network, batch_of([row])) - together[i]).abs().max() < 1e-6
    for at_once in (1, 100):
        other = logits(network, batch_of(rows, WINDOWS._replace(at_once=at_once)))
        assert (other - together).abs().max() < 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_rows_that_fit_are_read_as_ever(model: str) -> None:
    network, rows = network_of(model), rows_of(3, SIZE, 1, 6)
    assert torch.equal(logits(network, batch_of(rows)), logits(network, batch_of(rows, None)))


class Tokens:
    """The hidden state of a token is its id and the tokens before it in its window; the number of calls is counted."""

    width = 2

    def __init__(self, **declared: bool) -> None:
        self.calls: list[int] = []
        self.__dict__.update(declared)

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["tokens"]
        self.calls.append(len(tokens))
        assert tokens.shape[1] <= SIZE
        return torch.stack([tokens, torch.arange(tokens.shape[1]).expand_as(tokens)], dim=-1).double()


def test_each_token_is_taken_once_whatever_the_lengths() -> None:
    draws = random.Random(0)
    for _ in range(300):
        size = draws.randint(1, 9)
        windows = EvalWindows(size, draws.randint(1, size), 3)
        lengths = [draws.randint(1, 40) for _ in range(3)]
        for back_alone in (True, False):
            table = window_table(windows, lengths, back_alone=back_alone)
            for row, length in enumerate(lengths):
                own = [entry[1:] for entry in table if entry[0] == row]
                assert len(own) == windows.number(length)
                assert [t for _, first, stop in own for t in range(first, stop)] == list(range(length))
                for start, first, stop in own:
                    assert start <= first < stop <= start + size and (start + size <= length or length < size)


def test_every_hidden_state_stands_at_its_token() -> None:
    rows = rows_of(30, 5, 17)
    for declared, least in (({"causal": True}, SIZE - STRIDE), ({}, 1)):
        model = Tokens(**declared)
        batch = batch_of(rows)
        found = InWindows(model, WINDOWS)(batch.inputs)
        assert torch.equal(found[..., 0].long() * batch.inputs["mask"], batch.inputs["tokens"])
        before = found[0, SIZE:, 1]
        assert before.min() >= least, "tokens before it that a later token has read"
        assert max(model.calls) == WINDOWS.at_once


def test_a_sharded_model_is_called_once_whatever_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks whose rows have other numbers of windows would wait for one another otherwise."""
    monkeypatch.setattr("losslab.training.long_inputs.is_sharded", lambda backbone: True)
    model, rows = Tokens(), rows_of(60, 5)
    found = InWindows(model, WINDOWS)(batch_of(rows).inputs)
    assert model.calls == [WINDOWS.number(60) + 1]
    assert found[0, :, 0].tolist() == rows[0]


def test_a_teacher_reads_long_rows_in_windows_too() -> None:
    teacher, rows = network_of("encoder"), rows_of(30, 5)
    found = TeacherRun(teacher, INFO).hidden(batch_of(rows))
    with torch.no_grad():
        assert torch.equal(teacher.projection(found), logits(teacher, batch_of(rows)))


def test_inputs_without_positions_go_along_with_each_window() -> None:
    class Shifted(Tokens):
        def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
            return super().__call__(inputs) + inputs["shift"][:, None, None]

    tokens = torch.arange(40).reshape(2, 20)
    found = InWindows(Shifted(), WINDOWS)({"tokens": tokens, "shift": torch.tensor([100, 200])})
    assert torch.equal(found[..., 0].long(), tokens + torch.tensor([[100], [200]]))


def test_a_model_with_one_state_a_text_gives_the_mean_of_its_windows() -> None:
    class Sums(Tokens):
        def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
            return (super().__call__(inputs) * inputs["mask"][..., None]).sum(dim=1)

    rows = rows_of(10, 5)
    features = Classification().features(InWindows(Sums(), WINDOWS), batch_of(rows), TargetKind.CLASSES, {})
    windows = [sum(rows[0][:8]), sum(rows[0][2:10])]  # five tokens are taken from each
    assert features.hidden[:, 0].tolist() == [sum(windows) / 2, sum(rows[1])]


def prepared(folder: Path, task: Any = None, **settings: Any) -> RowsDataModule:
    path = folder / "rows.jsonl"
    if not path.exists():
        draws = random.Random(3)
        rows: list[dict[str, Any]] = []
        for i in range(120):
            words = [draws.choice(["ab", "c", "def"]) for _ in range(draws.choice([1, 2, 3, 9, 25]))]
            rows.append({"text": f"{i} {' '.join(words)}", "label": LABELS[i % 3]})
            rows[-1] |= {"words": words, "tags": ["B-N" if word == "ab" else "O" for word in words]}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = RowsDataModule(path=str(path), rules=2, **({"context": 16, "val_batch_size": 8} | settings))
    task = task or Classification()
    data.check_task(task)
    data.seed = 1
    data.info = data.prepare(folder, task)
    return data


def samples(data: RowsDataModule, split: str, share: Share = Share(), most: int | None = None) -> dict[int, list[int]]:  # noqa: B008
    found = {}
    for batch in data.eval_batches(split, share, "all", most):
        kept = zip(batch.extras["id"].tolist(), batch.inputs["tokens"], batch.inputs["mask"], strict=True)
        part = {i: tokens[mask].tolist() for i, tokens, mask in kept}
        assert not part.keys() & found.keys() and len(part) == len(batch.weight)
        found |= part
    return found


def test_val_and_test_are_whole_and_train_is_cut(tmp_path: Path) -> None:
    data, cut = prepared(tmp_path, eval_stride=8), prepared(tmp_path)
    assert data.hash_batches(5) == cut.hash_batches(5) and data.info.artifacts == cut.info.artifacts
    longer = {}
    for split in ("val", "test"):
        whole = samples(data, split)
        assert {i: row[:16] for i, row in whole.items()} == samples(cut, split)
        longer[split] = sum(len(row) > 16 for row in whole.values())
        assert all(row[-1] == 256 for row in whole.values()), "the end of text is there"
        for ranks in (2, 3):
            parts = [samples(data, split, Share(rank, ranks)) for rank in range(ranks)]
            assert {i: row for part in parts for i, row in part.items()} == whole
        few = samples(data, split, most=7)
        assert few.keys() == samples(cut, split, most=7).keys() and all(whole[i] == row for i, row in few.items())
    assert min(longer.values()) > 2 and data.summary()["in_windows"] == longer == {
        split: cut.summary()["truncated"][split] for split in longer
    }  # fmt: skip
    assert "in_windows" not in cut.summary() and data.summary()["truncated"]["test"] == 0
    told = "\n".join(line for line, _ in data.introduction(0))
    assert f"{longer['val']} val · {longer['test']} test rows are longer than data.context=16: read in windows" in told
    assert " train sequences are longer than data.context=16 and were cut off" in told and " 0 val" not in told
    assert data.content("test").cut == 0 and data.content("test").lengths.max() > 16


def test_a_batch_has_at_most_val_batch_size_windows_or_is_one_row(tmp_path: Path) -> None:
    data, alone = prepared(tmp_path, eval_stride=4, val_batch_size=6), 0
    for batch in data.eval_batches("val", Share()):
        assert batch.windows == EvalWindows(16, 4, 6)
        windows = len(batch.weight) * batch.windows.number(batch.inputs["tokens"].shape[1])
        assert windows <= 6 or len(batch.weight) == 1
        alone += windows > 6
    assert alone


def test_batches_without_a_longer_row_are_those_of_before(tmp_path: Path) -> None:
    data, cut = (prepared(tmp_path, context=200, eval_stride=stride) for stride in (100, None))
    for one, other in zip(data.eval_batches("val", Share()), cut.eval_batches("val", Share()), strict=True):
        assert equal(one, other)


def test_words_beyond_the_context_have_tags(tmp_path: Path) -> None:
    data, cut = (prepared(tmp_path, Tagging(), vocab_size=9, **more) for more in ({"eval_stride": 16}, {}))
    assert data.info.splits["test"].positions > cut.info.splits["test"].positions
    batch = next(b for b in data.eval_batches("test", Share()) if b.inputs["tokens"].shape[1] == 25)
    features = Tagging().features(InWindows(Tokens(), WINDOWS), batch, TargetKind.CLASSES, {})
    assert torch.equal(features.hidden[:, 0].long(), batch.inputs["tokens"].flatten())
    assert features.weight.sum() == batch.inputs["mask"].sum() == (batch.weight != 0).sum()


def test_hidden_tokens_stand_anywhere_in_a_row(tmp_path: Path) -> None:
    data = prepared(tmp_path, MaskedLanguageModeling(), eval_stride=8)
    places = [int(batch.weight.nonzero()[:, 1].max()) for batch in data.eval_batches("test", Share())]
    assert max(places) >= 16


@pytest.mark.parametrize(
    ("task", "settings", "sentence"),
    [
        (Classification(), {"eval_stride": 0}, "must be from 1 to data.context=16, or null, which cuts off"),
        (Classification(), {"eval_stride": 17}, "data.eval_stride must be from 1 to data.context=16"),
        (Classification(pair=True), {"eval_stride": 8}, "task=classification makes one sequence of text and text_pair"),
        (Completion(), {"eval_stride": 8}, "task=lm_prompts makes one sequence of prompt and completion"),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(task: Any, settings: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        prepared(tmp_path, task, **settings)


def test_predictions_are_those_of_the_whole_row() -> None:
    network = network_of("encoder")
    texts = ["a text that is longer than the context", "ab", "abcdefgh", "and another one"]
    data: dict[str, Any] = {"context": SIZE, "val_batch_size": 3, "eval_stride": STRIDE}
    predictor = RowPredictor(network, INFO, data, lambda device: nullcontext())
    found = predictor([{"text": text} for text in texts])
    assert predictor.longer == 3
    for text, told in zip(texts, found, strict=True):
        scores = expected(network, [*text.encode(), 256], "mean")
        assert list(told["probabilities"].values()) == pytest.approx(scores.softmax(-1).tolist(), rel=1e-5)
    cut = RowPredictor(network, INFO, data | {"eval_stride": None}, lambda device: nullcontext())(texts)
    assert cut[1]["probabilities"] == pytest.approx(found[1]["probabilities"], rel=1e-6)
    assert cut[0]["probabilities"] != pytest.approx(found[0]["probabilities"], rel=1e-4)
