"""Packed windows and hidden tokens as a person trains on them: resumed bit for bit, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from losslab.commands.evaluate import evaluate
from losslab.commands.resume import resume
from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.training.scoring.token_scores import score_tokens
from runs import only_run, stopping_after

SHORT = ["trainer.max_steps=4", "trainer.val_check_interval=2"]
KINDS = {
    "packed": [*SHORT, "data.packing=documents", "loss=unlikelihood", "data.eval_stride=16"],
    "mlm": [*SHORT, "task=mlm", "model=encoder", "task.whole_words=true", "data.packing=documents"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_continues_bit_for_bit(
    kind: str, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*KINDS[kind], "name=whole") == 0
    printed = capsys.readouterr().out
    assert "each window tells its documents apart" in printed
    assert ("15% of the words are predicted" in printed) == (kind == "mlm")
    with stopping_after(2):
        run_tiny(*KINDS[kind], "name=stopped")
    stopped, record = only_run(Path("outputs/stopped"))
    assert (record.status, record.step) == ("interrupted", 2)
    assert resume(stopped, [], []) == 0
    whole, expected = only_run(Path("outputs/whole"))
    found = RunFolder(stopped).record()
    assert found.hashes == expected.hashes
    assert found.metrics["final"] == expected.metrics["final"]
    ours, theirs = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (stopped, whole)
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    for_tokens = "does not score every token" if kind == "packed" else "no run of task=lm with model=decoder"
    with pytest.raises(UserError, match=for_tokens):
        score_tokens(RunFolder(whole), layer=None, trust=[])
    if kind == "mlm":
        with pytest.raises(UserError, match=r"data.eval_stride=8 gives each token more text before it"):
            evaluate(whole, checkpoint="best", split=None, overrides=["data.eval_stride=8"], trust=[])
    names = {name.removeprefix("test/") for name in found.metrics["best"] if name.startswith("test/")}
    assert not names & {"bits_per_byte", "word_perplexity"}
    assert ("masked_perplexity" in names) == (kind == "mlm") == ("unigram_nll" not in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task=mlm"], "model=decoder reads what stands before a position alone"),
        (["task=mlm", "model=encoder", "data.eval_stride=8"], "reads what stands on both sides: leave it null"),
        (["task=mlm", "model=encoder", "loss=goldfish"], "previous"),
        (["task=lm_prompts"], "reads no stream of tokens"),
        (["task=mlm", "model=encoder", "task.random_share=0.5"], "task.mask_share=0.8 and task.random_share=0.5"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], said: str, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*arguments) == 2
    assert said in capsys.readouterr().err
