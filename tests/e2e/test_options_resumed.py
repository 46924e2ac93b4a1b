"""Options that change how a run trains, in runs that are stopped and end as the undisturbed ones do, bit for bit: on
one rank, and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
from short_runs import COMMON, cheaply, ending, evaluate_together, killed, numbers, train, train_together
from task_loss_pairs import make_rows, short_documents

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.run_folder import CACHE, RunFolder
from losslab.training.factory import check_components
from losslab.training.run import execute

BYTES = "data.tokenizer=bytes"
TEXT = ["data=text", "data.path=book.txt", BYTES]
ROWS = ["task=classification", "data=jsonl", "data.path=rows.jsonl", BYTES]
DIGITS = ["task=classification", "model=patches", "data=digits", "model.num_heads=2"]
MODEL = ["model.num_layers=2", "model.width=8"]
OPTIONS = {
    "sampled": [
        *[*TEXT, "loss=sampled_softmax", "loss.samples=8", "loss.proposal=unigram"],
        *["optimizer.l1=1e-3", "optimizer.l2=1e-2", "optimizer.layer_decay=0.7"],
    ],
    "changed words": [
        *[*ROWS, "data.augment.word_deletion=0.2", "data.augment.word_swap=0.2", "data.augment.masking=0.1"],
        *["data.augment.deletion=0.1", "data.augment.label_noise=0.4", "optimizer.layer_decay=0.5"],
    ],
    "mixed": [*ROWS, "data.augment.mixup=0.4", "data.augment.label_noise=0.4", "data.balance=0.5"],
    "bpe dropout": [*ROWS, "data.tokenizer=bpe", "data.vocab_size=300", "data.augment.bpe_dropout=0.3"],
    "batch of tokens": [*ROWS, "data.batch_tokens=80", "data.batch_size=8"],
    "hidden words": [*TEXT, "task=mlm", "model=encoder", "task.whole_words=true", "data.packing=documents"],
    "packed": [*TEXT, "data.packing=documents", "optimizer.l1=1e-3"],
    "further heads": [*TEXT, "data.packing=documents", "loss=multi_token", "loss.curriculum=forward"],
    "order of tokens": [*TEXT, "loss=token_order"],
    "contrastive": [*ROWS, "loss=supervised_contrastive"],
    "drop path": [*TEXT, "model.drop_path=0.5", "model.dropout=0.1"],
    "drop path of patches": [*DIGITS, "model.drop_path=0.5"],
    "batch norm": [*DIGITS, "model.norm=batch"],
    "lstm": [*TEXT, "model=lstm", "model.dropout=0.1"],
    "lstm of both sides": [*ROWS, "model=lstm", "model.bidirectional=true"],
    "transformer_2017": [*TEXT, "model=transformer_2017"],
}
ON_TWO_RANKS = [
    *["sampled", "changed words", "mixed", "bpe dropout", "batch of tokens", "hidden words", "packed"],
    *["further heads", "order of tokens"],
]
DRAWING = ["drop path", "transformer_2017"]
"""Trained on two ranks, too, where each rank draws its own dropout: their numbers are not those of one rank."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("options")
    (place / CACHE).mkdir()
    (place / "book.txt").write_text(short_documents(), encoding="utf-8")
    (place / "rows.jsonl").write_text(make_rows({"text": "text", "label": "label"}), encoding="utf-8")
    return place


def make_config(name: str, place: Path, *further: str) -> dict[str, object]:
    options = OPTIONS[name]
    sizes = [*MODEL, *([] if "data=digits" in options else ["model.context=16"])]
    heads = [] if "model=lstm" in options else ["model.num_heads=2"]
    inputs = [f"data.path={place / each.partition('=')[2]}" for each in options if each.startswith("data.path=")]
    config = compose_plain([*COMMON, *options, *sizes, *heads, *inputs, f"output_dir={place}", *further])
    return resolve_split(resolve_budget(bind_components(check_run(config))))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_run_ends_as_the_undisturbed_one(name: str, place: Path) -> None:
    config, run = make_config(name, place), RunFolder(place / "one" / name)
    check_components(config)
    with cheaply():
        evaluator, best = train(run, config, stopped=True)
        execute(killed(run))
    assert ending(killed(run)) == ending(run)
    (meeting := place / f"meeting of {name}").mkdir()
    together = evaluate_together({name: evaluator}, meeting)[name]
    assert numbers(together) == pytest.approx(numbers(best), rel=1e-4, abs=1e-7, nan_ok=True)


def test_two_ranks_end_as_one_and_continue_what_they_began(place: Path) -> None:
    split = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    runs = {RunFolder(place / "two" / name): make_config(name, place, *split) for name in (*ON_TWO_RANKS, *DRAWING)}
    (meeting := place / "meeting of two").mkdir()
    train_together(runs, meeting)
    for run in runs:
        assert run.record().hardware["ranks"] == 2
        assert ending(killed(run)) == ending(run), run.name
    for name in ON_TWO_RANKS:
        one, two = (RunFolder(place / ranks / name) for ranks in ("one", "two"))
        if not one.path.exists():
            with cheaply():
                train(one, make_config(name, place), stopped=True)
        assert two.record().hashes == one.record().hashes
        found, expected = (numbers(run.record().metrics["final"]) for run in (two, one))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True), name
