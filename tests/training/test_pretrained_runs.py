"""Runs of model=pretrained: continued without its folder bit for bit, and exported with the same outputs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from losslab.commands.resume import resume
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.models.pretrained_folder import quiet
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.export.pretrained_format import export_pretrained
from losslab.training.scoring.exporting import export
from losslab.training.scoring.loading import Loaded, load
from runs import only_run, stopping_after
from tiny_pretrained import save_bert, save_gpt2

COMMON = [
    *"model=pretrained data.tokenizer=pretrained data.batch_size=8 loggers=none scheduler.warmup_steps=1".split(),
    *"trainer.max_steps=4 trainer.val_check_interval=2 trainer.threads=1 trainer.enable_progress_bar=false".split(),
]
ROWS = ["task=classification", "data=csv", "data.path=rows.csv", *COMMON]
TEXT = ["data=text", "data.path=book.txt", "model.context=16", *COMMON]
WORDS = ["abc de", "fg", "hij, klm. no"]


@pytest.fixture
def place(workplace: Path) -> Path:
    """A folder with rows, models and book.txt in it."""
    draws = random.Random(0)
    lines = [f"{''.join(draws.choices('abcdef', k=4))} {label},{label}" for label in ["good", "bad", "odd"] * 110]
    (workplace / "rows.csv").write_text("\n".join(["text,label", *lines]))
    save_bert(workplace / "bert")
    save_gpt2(workplace / "gpt2")
    return workplace


def trained(name: str, *arguments: str) -> tuple[Path, Record]:
    assert train([f"name={name}", *arguments]) == 0
    return only_run(Path("outputs") / name)


def weights(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return found


def test_a_run_needs_its_models_folder_only_to_begin(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*ROWS, "model.name=bert", "model.frozen=1"]
    whole, expected = trained("whole", *arguments)
    assert "-model=pretrained-warmup_steps=1-name=bert-frozen=1-" in whole.name  # nothing that its folder filled in
    before = load_file("bert/model.safetensors")
    after = weights(whole)
    prefix = "network.backbone.body."
    for layer, moved in (("0", False), ("1", True)):
        name = f"encoder.layer.{layer}.output.dense.weight"
        assert torch.equal(after[prefix + name], before[f"bert.{name}"]) is not moved
    states = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    trained_tensors = {key for key in after if ".layer.1." in key or "projection" in key}
    assert len(states) == len(trained_tensors)

    shutil.copytree("bert", "copy")
    with stopping_after(2):
        train(["name=stopped", *ROWS, "model.name=copy", "model.frozen=1"])
    stopped, record = only_run(Path("outputs/stopped"))
    assert record.step == 2 and record.identity == expected.identity
    for name in ("config.json", "model.safetensors"):  # the tokenizer belongs to the data
        (place / "copy" / name).unlink()
    assert resume(stopped, [], []) == 0
    found = RunFolder(stopped).record()
    assert found.metrics["final"] == expected.metrics["final"] and found.hashes == expected.hashes
    assert all(torch.equal(value, after[name]) for name, value in weights(stopped).items())

    shutil.rmtree("bert")
    loaded = load(whole)
    export(loaded, place / "exported")
    shown = [{"text": word} for word in WORDS]
    assert load(place / "exported").predict(shown) == loaded.predict(shown)
    capsys.readouterr()
    assert train(["name=whole", *arguments, "loss=focal"]) == 2
    told = capsys.readouterr().err
    assert "model.name=bert is no folder" in told and "\n" not in told.strip()


def test_weights_that_changed_since_the_run_was_planned_are_refused(place: Path) -> None:
    arguments = [*ROWS, "model.name=bert"]
    with stopping_after(2):
        train(["name=first", *arguments])
    run, record = only_run(Path("outputs/first"))
    shutil.rmtree(run / "checkpoints")
    save_gpt2(place / "other")
    shutil.copy("other/model.safetensors", "bert/model.safetensors")
    assert record.hashes["model.name"]
    with pytest.raises(UserError, match="holds other files than when this run was planned: put those back"):
        resume(run, [], [])


def predicted(loaded: Loaded) -> Tensor:
    """[N, C]: logits of WORDS, as the run computes them."""
    from losslab.data.columns import restored

    task = loaded.network.task
    kept = restored(task.columns, 48, loaded.info)
    columns, _ = kept.encode([{"text": word, "label": "odd"} for word in WORDS])
    batch = task.collate([{name: column[i] for name, column in columns.items()} for i in range(len(WORDS))])
    with torch.no_grad():
        features = task.features(loaded.network.backbone, batch, loaded.network.loss.target_kind, {})  # type: ignore[arg-type]
        return loaded.network.projection(features.hidden)


@pytest.mark.parametrize("extra", [["model.frozen=all"], ["model.lora_rank=2", "model.lora_targets=[query,dense]"]])
def test_transformers_gives_the_logits_of_a_run(extra: list[str], place: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    run, _ = trained("rows", *ROWS, "model.name=bert", *extra)
    loaded, folder = load(run), place / "out"
    expected = predicted(loaded)
    if "all" in extra[0]:
        base, found = load_file("bert/model.safetensors"), weights(run)
        kept = {key: found[f"network.backbone.body.{key.removeprefix('bert.')}"] for key in base if "bert." in key}
        assert all(torch.equal(value, base[key]) for key, value in kept.items())
    paths, note, reader = export_pretrained(loaded, folder)
    assert reader == "AutoModel" and "BertModel, whose hidden states differ by" in note
    assert {path.name for path in paths} == {file.name for file in folder.iterdir()}
    with quiet():
        model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(WORDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    logits = pooled @ load_file(folder / "head.safetensors")["weight"].T
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "extra"), [("gpt2", []), ("bert", ["task=mlm"])])
def test_language_models_are_exported_with_their_own_projection(name: str, extra: list[str], place: Path) -> None:
    import transformers

    run, _ = trained(name, *TEXT, f"model.name={name}", *extra)
    loaded, folder = load(run), place / "out"
    _, note, reader = export_pretrained(loaded, folder)
    assert reader == ("AutoModelForCausalLM" if name == "gpt2" else "AutoModelForMaskedLM") and "logits differ" in note
    with quiet():
        theirs: Any = getattr(transformers, reader).from_pretrained(folder).eval()
    tokens = torch.randint(5, 59, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = loaded.network.projection(loaded.network.backbone({"tokens": tokens}))
        torch.testing.assert_close(theirs(input_ids=tokens).logits, logits, atol=1e-5, rtol=0)
    if name == "gpt2":
        assert loaded.generate("ab", max_tokens=20, temperature=0.0) is not None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data.tokenizer=bytes"], "data.tokenizer=pretrained takes the model's own"),
        (["model.name=null"], "model.name is missing"),
        (["model.trust_remote_code=true"], "runs no code out of a model's folder"),
        (["model=encoder"], "data.tokenizer=pretrained takes the tokenizer of model=pretrained"),
    ],
)
def test_commands_that_cannot_be_are_refused(
    arguments: list[str], told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [] if "model=encoder" in arguments else ["model.name=bert"]
    given = {argument.partition("=")[0]: argument for argument in [*ROWS, *named, *arguments]}
    assert train([*given.values()]) == 2
    assert told in capsys.readouterr().err
