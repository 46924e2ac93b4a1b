"""`losslab check model|data|task`: right ones pass; of wrong ones the cause is named in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import wrong_parts
from wrong_parts import DATA, MASKED, MODELS, REFUSED, TASKS, Wrong

from losslab.cli import app
from losslab.conformance import check_part, kit
from losslab.conformance.configure import configure
from losslab.conformance.kit import try_part
from losslab.errors import UserError
from losslab.training.factory import build_data, build_network, build_task, check_components
from losslab.training.random import hash_weights
from losslab.training.trial import start
from losslab.training.trial.forms import check_info
from runs import make_text

STREAM = ["data=text", "data.path=.", "data.tokenizer=bytes", "data.context=12", "data.batch_size=4"]
CONF = {
    "data/own": "_target_: right_parts.Sentences\nbatch_size: 6\n",
    "task/own": "_target_: right_parts.Tagging\n",
}
ROWS = ["data=own", "task=own"]


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own yaml files: data=own and task=own."""
    folder = tmp_path_factory.mktemp("conf")
    for name, text in CONF.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def faults(kind: str, *words: str, conf: Path | None = None) -> dict[str, str]:
    _, results, _ = try_part(kind, list(words), conf)
    return {result.check: result.said for result in results if not result.passed}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "Encoder", "DropPath", "Remembering"])
def test_right_models_pass(name: str) -> None:
    assert faults("model", f"right_parts.{name}", *STREAM) == {}


def test_a_right_model_of_padded_rows_passes(conf: Path) -> None:
    assert faults("model", "right_parts.Pool", *ROWS, conf=conf) == {}


def name_the_cause(kind: str, wrong: Wrong, *words: str, conf: Path | None = None) -> None:
    path = f"{wrong_parts.__name__}.{wrong.part.__name__}"
    if wrong.check is REFUSED:
        with pytest.raises(UserError, match=wrong.said):
            faults(kind, path, *words, conf=conf)
        return
    found = faults(kind, path, *words, conf=conf)
    assert re.search(wrong.said, found.get(wrong.check, "")), found
    assert all("\n" not in said for said in found.values())


@pytest.mark.parametrize("wrong", MODELS, ids=lambda wrong: wrong.part.__name__)
def test_the_cause_of_a_wrong_model_is_named(wrong: Wrong) -> None:
    name_the_cause("model", wrong, *STREAM)


@pytest.mark.parametrize("wrong", MASKED, ids=lambda wrong: wrong.part.__name__)
def test_the_cause_of_a_wrong_model_of_padded_rows_is_named(wrong: Wrong, conf: Path) -> None:
    name_the_cause("model", wrong, *ROWS, conf=conf)


@pytest.mark.parametrize("name", ["Rows", "Sentences"])
def test_right_data_passes(name: str, conf: Path) -> None:
    assert faults("data", f"right_parts.{name}", "task=own", conf=conf) == {}


@pytest.mark.parametrize("wrong", DATA, ids=lambda wrong: wrong.part.__name__)
def test_the_cause_of_wrong_data_is_named(wrong: Wrong, conf: Path) -> None:
    name_the_cause("data", wrong, "task=own", conf=conf)


def test_a_right_task_passes(conf: Path) -> None:
    assert faults("task", "right_parts.Tagging", "data=own", conf=conf) == {}


@pytest.mark.parametrize("wrong", TASKS, ids=lambda wrong: wrong.part.__name__)
def test_the_cause_of_a_wrong_task_is_named(wrong: Wrong, conf: Path) -> None:
    name_the_cause("task", wrong, "data=own", conf=conf)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "book.txt").write_text(make_text())
    return [*STREAM[2:], "data=text", f"data.path={folder / 'book.txt'}"]


def try_in_training(config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials of `losslab train` of a run's own parts: before data is read, and before the first step; its notes."""
    notes: list[str] = []
    monkeypatch.setattr(start, "note", notes.append)
    check_components(config)
    before = torch.get_rng_state()
    data = build_data(config)
    data.info = data.prepare(folder, build_task(config))
    check_info(data, data.info)
    network = build_network(config, data.info)
    weights = hash_weights(network)
    start.try_own_parts(config, network, data)
    assert hash_weights(network) == weights
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)
    return notes


def is_named_in_training(
    kind: str, wrong: Wrong, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, conf: Path | None = None
) -> None:
    config = configure(kind, [f"{wrong_parts.__name__}.{wrong.part.__name__}", *words], conf)
    if wrong.train == "refuses":
        with pytest.raises(UserError, match=wrong.said_in_training or wrong.said):
            try_in_training(config, folder, monkeypatch)
    else:
        (said,) = try_in_training(config, folder, monkeypatch)
        assert re.search(wrong.said, said)


@pytest.mark.parametrize("wrong", [wrong for wrong in MODELS if wrong.train], ids=lambda wrong: wrong.part.__name__)
def test_training_names_it_before_the_first_step(
    wrong: Wrong, tokens: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_named_in_training("model", wrong, tokens, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["LSTM", "Encoder", "DropPath"])
def test_training_passes_right_models(
    name: str, tokens: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("model", [f"right_parts.{name}", *tokens], None)
    assert try_in_training(config, tmp_path, monkeypatch) == []


@pytest.mark.parametrize("wrong", [wrong for wrong in DATA if wrong.train], ids=lambda wrong: wrong.part.__name__)
def test_training_names_wrong_data_before_the_first_step(
    wrong: Wrong, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_named_in_training("data", wrong, ["task=own", "model.num_layers=1"], tmp_path, monkeypatch, conf)


@pytest.mark.parametrize("wrong", [wrong for wrong in TASKS if wrong.train], ids=lambda wrong: wrong.part.__name__)
def test_training_names_a_wrong_task_before_the_first_step(
    wrong: Wrong, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=own", "model.num_layers=1"]
    is_named_in_training("task", wrong, words, tmp_path, monkeypatch, conf)


@pytest.mark.parametrize("wrong", MASKED, ids=lambda wrong: wrong.part.__name__)
def test_training_names_a_wrong_model_of_padded_rows(
    wrong: Wrong, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_named_in_training("model", wrong, ROWS, tmp_path, monkeypatch, conf)


def test_a_loss_needs_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(kit, "run", lambda kind, words, config_dir: asked.append((kind, words)) or 0)
    for words in (["focal", "loss.gamma=3"], ["loss", "focal", "loss.gamma=3"], ["model", "decoder"]):
        app(["check", *words], standalone_mode=False)
    assert asked == [("loss", ["focal", "loss.gamma=3"])] * 2 + [("model", ["decoder"])]


def test_the_command_prints_a_table_and_has_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.run("model", ["wrong_parts.Detached", *STREAM], None) == 1
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row[:6] for row in rows] == ["passed"] * 11 + ["FAILED"]
    assert last == "Detached: 1 of 12 checks failed"
    assert kit.run("model", ["wrong_parts.Logits", *STREAM], None) == 1
    assert capsys.readouterr().out.endswith("Logits: the first of 12 checks failed, and the others need it\n")
    assert kit.run("model", ["right_parts.LSTM", *STREAM], None) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["decoder", "width=64"], r"width=64 is no option of the model: they are written model\.width=…"),
        (["decoder", "other"], r"takes one name, and 'other' is a second"),
        (["right_parts.LSTM", "model.widht=3"], r"there is no key 'model\.widht': did you mean 'model\.width'"),
        (["decodr"], r"decoder"),
        (["right_parts.Tagging"], r"model: Tagging must derive from torch\.nn\.Module"),
    ],
)
def test_wrong_use_is_answered_in_a_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        try_part("model", words)


def test_a_test_of_ones_own_lists_every_fault() -> None:
    check_part("model", "right_parts.LSTM", *STREAM)
    with pytest.raises(AssertionError, match=r"ReadsAhead has 1 fault\(s\)\ncausality: hidden states before"):
        check_part("model", "wrong_parts.ReadsAhead", *STREAM)
