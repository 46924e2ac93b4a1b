"""Runs whose long rows are read in windows: stopped, evaluated again, by two ranks, and used for predictions."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from short_runs import evaluate_together, numbers

from losslab import load
from losslab.commands.evaluate import evaluate
from losslab.commands.resume import resume
from losslab.records import read
from losslab.run_folder import RunFolder
from losslab.training.scoring.reevaluate import reopen
from runs import only_run, stopping_after

OPTIONS = [
    *"task=classification data=jsonl data.path=rows.jsonl model=encoder data.val_batch_size=8".split(),
    *"trainer.max_steps=6 trainer.val_check_interval=2".split(),
]


def test_a_stopped_run_and_two_ranks_find_the_same(
    run_tiny: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = ({"text": f"row {i} " + "abcd"[i % 4] * (7 * i % 120), "label": i % 4} for i in range(120))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_tiny("name=whole", "data.eval_stride=12", *OPTIONS) == 0
    told = capfd.readouterr()
    assert "test rows are longer than data.context=32: read in windows, 12 apart" in told.out
    assert " train sequences are longer than data.context=32 and were cut off" in told.err
    with stopping_after(4):
        assert run_tiny("name=stopped", "data.eval_stride=12", *OPTIONS) == 1
    stopped, _ = only_run(Path("outputs/stopped"))
    assert resume(stopped, [], []) == 0
    folder, whole = only_run(Path("outputs/whole"))
    assert read(stopped).metrics == whole.metrics

    opened = reopen(RunFolder(folder), checkpoint="best", overrides=[], trust=[])
    evaluator = opened.evaluator(opened.own_data())
    together = evaluate_together({"run": evaluator}, tmp_path)["run"]
    best = numbers(whole.metrics["best"])
    assert numbers(together) == pytest.approx(best, rel=1e-4, abs=1e-7, nan_ok=True)

    for stride in (12, "null"):
        assert (
            evaluate(folder, checkpoint="best", split="test", overrides=[f"data.eval_stride={stride}"], trust=[]) == 0
        )
    in_windows, cut = map(json.loads, (folder / "evaluations.jsonl").read_text().splitlines())
    assert (in_windows["eval_stride"], cut["eval_stride"]) == (12, None)
    assert in_windows["metrics"]["test/nll"] == best["test/nll"] != cut["metrics"]["test/nll"]

    text = "row 1 " + "b" * 90
    loaded = load(folder)
    (told_whole,) = loaded.predict([text])
    loaded.config["data"]["eval_stride"] = None
    (told_cut,), (told_beginning,) = loaded.predict([text]), loaded.predict([text[:32]])
    assert told_cut == told_beginning != told_whole
