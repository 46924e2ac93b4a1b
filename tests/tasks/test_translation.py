"""Translation: what is predicted, a run that is killed and resumed, exported and loaded; models and tasks apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import losslab
from losslab.commands.export import export
from losslab.conformance import kit
from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.tasks.translation import Translation
from runs import only_run, stopping_after

WORDS = [
    *("task=translation", "task.beams=0", "model=encoder_decoder", "data=pairs", "data.path=null"),
    *("data.source=a.de", "data.target=a.en"),
    *("data.tokenizer=bpe", "data.vocab_size=270", "data.val_fraction=0.2", "data.test_fraction=0.2"),
    *("data.batch_size=8", "data.batch_tokens=200", "model.dropout=0.1"),
]


@pytest.fixture
def pairs(workplace: Path) -> Path:
    sources = [f"{'ja ' * (i % 5)}nummer {i}" for i in range(60)]
    (workplace / "a.de").write_text("".join(f"{text}\n" for text in sources))
    (workplace / "a.en").write_text("".join(f"{text.replace('nummer', 'number')}\n" for text in sources))
    return workplace


def test_positions_are_those_of_the_target() -> None:
    ends = [torch.tensor([5, 6, 0]), torch.tensor([7, 0])]
    examples = [
        {"source": ends[0], "target": torch.tensor([0, 1, 2, 0])},
        {"source": ends[1], "target": torch.tensor([0, 3, 0])},
    ]
    batch = Translation(beams=0).collate(examples)
    assert batch.inputs["source"].tolist() == [[5, 6, 0], [7, 0, 0]]
    assert batch.inputs["source_mask"].tolist() == [[True, True, True], [True, True, False]]
    assert batch.inputs["tokens"].tolist() == [[0, 1, 2], [0, 3, 0]]
    assert batch.target.tolist() == [[1, 2, 0], [3, 0, 0]]
    assert batch.weight.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_run_is_resumed_bit_for_bit_and_exported(
    pairs: Path, run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_tiny(*WORDS, "name=whole", "data.joint=false") == 0
    with stopping_after(4):
        run_tiny(*WORDS, "name=parts", "data.joint=false")
    assert run_tiny(*WORDS, "name=parts", "data.joint=false") == 0
    (whole, record), (_, other) = only_run(pairs / "outputs/whole"), only_run(pairs / "outputs/parts")
    assert record.hashes == other.hashes
    assert record.metrics["final"] == other.metrics["final"]
    assert record.metrics["final"]["test/nll"] > 0 and "test/nll_scaled_frequency_1" in record.metrics["final"]
    loaded = losslab.load(whole)
    assert loaded.info.source_vocab_size is not None
    assert export(whole, output=pairs / "exported", checkpoint="best", trust=[]) == 0
    again = losslab.load(pairs / "exported")
    assert (pairs / "exported/source_tokenizer.json").is_file()
    inputs = {"source": torch.tensor([[1, 2, 3]]), "tokens": torch.tensor([[4, 5]])}
    with torch.no_grad():
        assert torch.equal(loaded.network.backbone(inputs), again.network.backbone(inputs))
    with pytest.raises(UserError, match="predicts them from a source"):
        loaded.generate("ja")
    assert RunFolder(whole).record().status == "completed"


def test_parts_of_a_step_together_have_its_gradient(pairs: Path, run_tiny: Callable[..., int]) -> None:
    assert run_tiny(*WORDS, "name=one", "model.dropout=0") == 0
    assert run_tiny(*WORDS, "name=two", "model.dropout=0", "trainer.accumulate_grad_batches=2") == 0
    (_, one), (_, two) = only_run(pairs / "outputs/one"), only_run(pairs / "outputs/two")
    assert one.hashes == two.hashes
    assert one.metrics["final"]["test/nll"] == pytest.approx(two.metrics["final"]["test/nll"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["task=translation", "task.beams=0", "data=pairs", "model=decoder"],
            "does not read it: choose model=encoder_decoder",
        ),
        (["task=lm", "model=encoder_decoder"], "and task=lm gives none: choose task=translation"),
        (
            ["task=translation", "task.beams=0", "data=python_docs", "model=encoder_decoder"],
            "task=translation reads no stream of tokens",
        ),
        (["task=classification", "data=pairs", "model=encoder"], "task=classification reads none: task=translation"),
        (["task=lm", "data=pairs", "model=decoder"], "task=lm reads none: task=translation model=encoder_decoder does"),
    ],
)
def test_models_and_tasks_that_do_not_fit_are_refused(words: list[str], sentence: str, pairs: Path) -> None:
    *others, model = words
    files = ["data.source=a.de", "data.target=a.en"] if "data=pairs" in words else []
    with pytest.raises(UserError, match=sentence):
        kit.run("model", [model.removeprefix("model="), *others, *files], None)


def test_the_kits_pass(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["model.num_layers=1", "model.num_heads=2", "model.width=16", "model.context=32"]
    assert kit.run("model", ["encoder_decoder", *(w for w in WORDS if not w.startswith("model=")), *sizes], None) == 0
    assert kit.run("task", ["translation", *(w for w in WORDS if not w.startswith("task=")), *sizes], None) == 0
    assert "one input after the other has the hidden states of the whole" in capsys.readouterr().out
