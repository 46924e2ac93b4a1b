"""Runs over changed rows and steps by length: one that was stopped goes on to the same numbers."""

import json
from collections.abc import Callable
from pathlib import Path

from losslab.commands.resume import resume
from losslab.records import read
from runs import only_run, stopping_after

OPTIONS = [
    *"task=classification data=jsonl data.path=rows.jsonl data.batch_size=32 data.batch_tokens=96".split(),
    *"data.augment.deletion=0.1 data.augment.masking=0.1 data.augment.word_swap=0.1".split(),
    "data.augment.word_deletion=0.1",
    *"data.augment.mixup=0.4 data.augment.label_noise=0.3 data.tokenizer=bytes model=encoder".split(),
    *"trainer.max_steps=6 trainer.val_check_interval=2".split(),
]


def test_a_stopped_run_goes_on_with_the_same_samples(run_tiny: Callable[..., int]) -> None:
    rows = ({"text": f"row {i} of {'abcd'[i % 4]}", "label": i % 4} for i in range(120))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_tiny("name=whole", *OPTIONS) == 0
    with stopping_after(4):
        assert run_tiny("name=stopped", "data.num_workers=1", *OPTIONS) == 1
    stopped, _ = only_run(Path("outputs/stopped"))
    assert resume(stopped, [], []) == 0
    _, whole = only_run(Path("outputs/whole"))
    assert read(stopped).metrics == whole.metrics
    assert read(stopped).hashes["batches"] == whole.hashes["batches"]
    text = whole.provenance["text"]
    assert text["augment"]["label_noise"] == 0.3
    assert text["augment"]["flipped"] > 0
    assert text["batch_tokens"]["steps_in_a_pass"] == 60 / whole.provenance["samples_per_step"]
