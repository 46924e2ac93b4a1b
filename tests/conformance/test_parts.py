"""`losslab check model|data|task`: right ones pass; of wrong ones the cause is named in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import wrong_parts
from wrong_parts import MASKED, MODELS, REFUSED, Wrong

from losslab.conformance.kit import try_part
from losslab.errors import UserError

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


@pytest.mark.parametrize("name", ["LSTM", "GRU", "Encoder", "DropPath"])
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
