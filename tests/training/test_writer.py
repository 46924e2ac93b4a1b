"""Texts that a network writes: the same with and without a cache, alone and in a batch, and by the loss's own
predictions; and their judgement by an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prefix_models import slow_search
from test_generation import Letters
from tiny_network import make_losses
from torch import Tensor

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    Generation,
    Meter,
    Share,
    SplitInfo,
    TargetKind,
    Task,
    flat_hidden,
)
from losslab.data.tokenizer import ByteTokenizer, artifacts_of
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.entmax import Entmax
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import METRICS
from losslab.models.decoder import Decoder
from losslab.models.encoder_decoder import EncoderDecoder
from losslab.tasks.classification import Classification
from losslab.tasks.lm import LanguageModeling
from losslab.training.generation.writer import NetworkSteps, TextWriter, Written
from losslab.training.network import Network
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.scoring.translating import Translator

V, END, CONTEXT, BATCH = 11, 10, 9, 6


class Writes(Task):
    """A task with a source, which writes."""

    accepts = frozenset({TargetKind.CLASSES})
    metrics = METRICS
    primary = "nll_scaled"
    causal = True
    reads_source = True
    predicted = ("target",)

    def __init__(self, generation: Generation | None = None, meter: Any = None) -> None:
        self.generation = generation
        self.made = meter

    def target_size(self, info: DataInfo) -> int:
        return int(info.vocab_size or 0)

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        return Features(hidden, batch.target.flatten(), batch.weight.flatten(), extras)

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> Meter:
        found: Meter = self.made(info, split, thorough)
        return found


def make(loss: Loss | None = None, *, task: Task | None = None, seed: int = 5, vocab_size: int = V) -> Network:
    backbone = EncoderDecoder(
        num_layers=1, num_heads=2, width=8, context=CONTEXT, init_std=0.9, tie_embeddings=False, vocab_size=vocab_size,
        source_vocab_size=None, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return Network(
        backbone=backbone,
        loss=loss or make_losses()["cross_entropy"],
        task=task or Writes(),
        info=DataInfo(splits={}, mean_positions=4, vocab_size=vocab_size),
        head_init=torch.Generator().manual_seed(seed + 1),
    ).eval()


def draw(count: int = BATCH, seed: int = 5) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, CONTEXT, (count, 1), generator=stream)
    mask = torch.arange(CONTEXT) < lengths
    source = torch.where(mask, torch.randint(V, (count, CONTEXT), generator=stream), 0)
    return {"source": source, "source_mask": mask, "tokens": torch.full((count, 3), END)}


def write(network: Network, inputs: dict[str, Tensor], beams: int, **options: Any) -> list[list[Written]]:
    tokenizer = Letters(END, options.pop("mask", None))
    generation = Generation(beams, options.pop("length_penalty", 1.0))
    return TextWriter(network, tokenizer, generation, **options)(inputs)


def texts(found: list[list[Written]]) -> list[list[str]]:
    return [[each.text for each in some] for some in found]


def alone(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One sample, without the padding of its source."""
    length = int(inputs["source_mask"][row].sum())
    cut = {name: value[row : row + 1, :length] for name, value in inputs.items() if name != "tokens"}
    return {"source": cut["source"], "tokens": inputs["tokens"][row : row + 1, :1]}


@pytest.mark.parametrize("loss", [None, "square", "entmax"])
def test_a_batch_writes_what_a_slow_search_over_whole_passes_finds(loss: str | None) -> None:
    """The search is one of a sample alone, without padding and cache, over float32 predictions of the loss."""
    chosen = {"square": make_losses()["square"], "entmax": Entmax()}.get(loss or "")
    network, inputs = make(chosen), draw()
    found = write(network, inputs, 3, nbest=3, length_penalty=0.7, exact=True)
    for row, some in enumerate(found):
        own = alone(inputs, row)

        def model(prefix: tuple[int, ...], own: dict[str, Tensor] = own) -> list[float]:
            given = own | {"tokens": torch.cat([own["tokens"], torch.tensor([prefix], dtype=torch.int64)], dim=1)}
            with torch.no_grad():
                scores = network.loss.scores(network.backbone(given)[:, -1], network.projection)
                values: list[float] = network.loss.predict_log_probs(scores)[0].tolist()
            return values

        # The slow search ends texts at token 0: there the tokens are turned round, so that END is 0.
        turned = slow_search(lambda p: model(tuple(END - t for t in p))[::-1], CONTEXT, 3, 0.7)
        wanted = [(score, [END - t for t in text]) for score, text in turned if score > -float("inf")]
        assert [each.text for each in some] == [
            Letters(END).decode(text[:-1] if text[-1] == END else text) for _, text in wanted
        ]
        assert [each.score for each in some] == pytest.approx([score for score, _ in wanted], abs=1e-4)
        assert [each.ended for each in some] == [text[-1] == END for _, text in wanted]
    assert len({some[0].text for some in found}) > 2


def test_a_model_without_a_cache_and_another_order_of_samples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = make(), draw()
    found, backwards = write(network, inputs, 4), write(network, {name: v.flip(0) for name, v in inputs.items()}, 4)
    assert texts(found) == texts(backwards)[::-1]
    monkeypatch.delattr(EncoderDecoder, "new_cache")
    assert texts(write(network, inputs, 4)) == texts(found)


def test_the_mask_token_is_never_written_and_the_others_share_its_probability() -> None:
    network, inputs = make(), draw()
    often = max(
        range(END), key=lambda token: sum(chr(97 + token) in some[0].text for some in write(network, inputs, 2))
    )
    found = write(network, inputs, 2, mask=often)
    assert all(chr(97 + often) not in some[0].text for some in found)
    steps = NetworkSteps(network, {**inputs, "tokens": inputs["tokens"][:, :1]}, often)
    with torch.no_grad():
        log_probs = steps(inputs["tokens"][:, 0], torch.arange(BATCH))
    assert torch.allclose(log_probs.exp().sum(dim=-1), torch.ones(BATCH))


def test_a_decoder_goes_on_after_its_first_tokens_with_its_cache() -> None:
    sizes: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "width": 8, "context": 12, "init_std": 0.9}
    network = make()
    network.backbone = Decoder(**sizes, vocab_size=V, generator=torch.Generator().manual_seed(1)).eval()
    prompt = torch.randint(V, (4, 3), generator=torch.Generator().manual_seed(2))
    steps, whole = NetworkSteps(network, {"tokens": prompt}, None), prompt
    rows = torch.arange(4)
    with torch.no_grad():
        for tokens, after in (
            (prompt[:, -1], [2, 0, 0]),
            (torch.tensor([1, 2, 3]), [1, 1]),
            (torch.tensor([5, 6]), [0]),
        ):
            found = steps(tokens, rows)
            whole = whole[rows] if whole is prompt else torch.cat([whole[rows], tokens[:, None]], dim=1)
            scores = network.loss.scores(network.backbone({"tokens": whole})[:, -1], network.projection)
            assert torch.allclose(found, network.loss.predict_log_probs(scores), atol=1e-5)
            rows = torch.tensor(after)


def test_a_tokenizer_without_an_end_and_an_unknown_context_are_refused() -> None:
    network = make()
    with pytest.raises(UserError, match="no end of text"):
        TextWriter(network, Letters(None), Generation())
    network.backbone.context = None
    with pytest.raises(UserError, match="has no `context`"):
        TextWriter(network, Letters(END), Generation())
    assert {each.ended for (each,) in write(make(), draw(), 1, context=2)} == {True, False}


@pytest.mark.parametrize(
    ("task", "command"), [(LanguageModeling(), "losslab generate"), (Classification(), "losslab predict")]
)
def test_a_run_of_another_task_is_sent_to_its_own_command(task: Task, command: str) -> None:
    network: Any = SimpleNamespace(task=task)
    info = DataInfo(splits={}, mean_positions=1)
    with pytest.raises(UserError, match=f"and this one is one of task=.*: {command}"):
        Translator(network, info, {"context": 9}, lambda device: nullcontext())


class Judged(ClassMeter):
    """Keeps what it is given to judge."""

    seen: list[tuple[str, list[str]]]
    units: list[int]

    def __init__(self, info: DataInfo, split: str, thorough: bool) -> None:
        super().__init__(info, split, 1.0, thorough=False)
        self.seen, self.units, self.thorough = [], [], thorough

    def judge(self, written: Any, references: Any, units: Any) -> None:
        assert self.thorough
        self.seen += zip(written, references, strict=True)
        self.units += units


class Pairs:
    """Members of a data module that an Evaluator uses: bytes, of which the last batch has a sample without weight."""

    max_eval_tokens = None
    artifacts = artifacts_of(ByteTokenizer())

    def __init__(self, references: list[str] | None) -> None:
        self.own = references
        self.info = DataInfo(
            splits={"val": SplitInfo(12, 4), "test": SplitInfo(12, 4)}, mean_positions=4, vocab_size=257,
            artifacts=self.artifacts,
        )  # fmt: skip

    def eval_batches(self, split: str, share: Share, subset: str = "all", most: int | None = None) -> Iterator[Batch]:
        for ids, words in (([2, 0], ["ab", "c"]), ([1, 3], ["def", ""])):
            rows = [[*word.encode(), 256] if word else [] for word in words]
            target = torch.tensor([row + [0] * (4 - len(row)) for row in rows])
            weight = torch.tensor([[1.0] * len(row) + [0.0] * (4 - len(row)) for row in rows])
            inputs = draw(2, seed=ids[0]) | {"tokens": torch.cat([torch.full((2, 1), 256), target[:, :-1]], dim=1)}
            extras = {name: torch.tensor(ids)[:, None].expand(2, 4) for name in ("id", "unit")}
            yield Batch(inputs, target, weight, {**extras, "fit": torch.ones(2, 4)})

    def references(self, split: str, most: int | None) -> dict[str, float]:
        return {}

    def texts(self, split: str, column: str) -> list[list[str]] | None:
        assert column == "target"
        return None if self.own is None else [[text] for text in self.own]


def judged(thorough: bool, references: list[str] | None = None) -> tuple[Judged, list[Any], Network]:
    made: list[Judged] = []
    work: list[Any] = []

    @contextmanager
    def shown(what: str, total: int) -> Iterator[Any]:
        work.append((what, total))
        yield work.append

    def meter(info: DataInfo, split: str, thorough: bool) -> Judged:
        made.append(Judged(info, split, thorough))
        return made[-1]

    network = make(task=Writes(Generation(2, 0.5), meter), vocab_size=257)
    evaluator = Evaluator(network, Pairs(references), device=torch.device("cpu"), work=shown)  # type: ignore[arg-type]
    evaluator.validate(thorough=thorough)
    return made[-1], work, network


def test_a_thorough_evaluation_writes_and_judges_every_text_once_and_another_none() -> None:
    meter, work, network = judged(True)
    seen = meter.seen
    assert [references for _, references in seen] == [["ab"], ["c"], ["def"]]
    assert work == [("writing the texts of val", 3), 2, 1]
    batches = list(Pairs(None).eval_batches("val", Share()))
    writer = TextWriter(network, ByteTokenizer(), Generation(2, 0.5))
    assert [text for text, _ in seen] == [some[0].text for batch in batches for some in writer(batch.inputs)][:3]
    assert meter.units == [2, 0, 1]
    meter, work, _ = judged(False)
    assert meter.seen == work == []


def test_references_are_those_of_the_data_by_the_number_of_the_sample() -> None:
    meter, _, _ = judged(True, ["zero", "one", "two", "three"])
    assert [references for _, references in meter.seen] == [["two"], ["zero"], ["one"]]
