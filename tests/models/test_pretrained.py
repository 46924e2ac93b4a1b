"""Backbones of transformers: the same hidden states, what is trained of them, and folders that are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.config.binding import bind_component
from losslab.contracts import cache_of
from losslab.errors import UserError
from losslab.models.pretrained import Pretrained
from losslab.models.pretrained_folder import quiet
from losslab.models.pretrained_parts import merge_adapters
from losslab.tasks.classification import Classification
from losslab.tasks.completion import Completion
from losslab.tasks.copying import Copying
from losslab.tasks.lm import LanguageModeling
from losslab.tasks.mlm import MaskedLanguageModeling
from losslab.training.network import _without_activations
from losslab.training.optimizers import make_optimizer
from tiny_pretrained import LONGEST, save_bert, save_gpt2, save_llama

SAVE: dict[str, Callable[..., Path]] = {"bert": save_bert, "gpt2": save_gpt2, "llama": save_llama}
SIZES = {"bert": 59, "gpt2": 257, "llama": 257}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(root / name) for name, save in SAVE.items()}


def completed(folder: Path | str, task: type = Classification, **settings: Any) -> dict[str, Any]:
    node = {"_target_": "losslab.models.pretrained.Pretrained", "name": str(folder), **settings}
    bound = bind_component("model", node | {"vocab_size": 1})
    del bound["vocab_size"]
    return Pretrained.complete(bound, task)


def make(
    folder: Path | str, size: int, task: type = Classification, *, begin: bool = True, **settings: Any
) -> Pretrained:
    node = completed(folder, task, **settings)
    del node["_target_"]
    model = Pretrained(**node, vocab_size=size)
    if begin:
        model.begin()
    return model.eval()


def batch(size: int) -> dict[str, Tensor]:
    """Two texts, the second of them shorter."""
    tokens = torch.randint(5, size, (2, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    types = (torch.arange(9) >= 4).long().expand(2, 9)
    return {"tokens": tokens, "mask": mask, "types": types}


@pytest.mark.parametrize("name", SAVE)
def test_hidden_states_are_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModel

    model, inputs = make(folders[name], SIZES[name]), batch(SIZES[name])
    with quiet():
        theirs = AutoModel.from_pretrained(folders[name]).eval()
    given = {"token_type_ids": inputs["types"]} if name == "bert" else {}
    with torch.no_grad():
        expected = theirs(input_ids=inputs["tokens"], attention_mask=inputs["mask"].long(), **given).last_hidden_state
        kept = inputs["mask"]
        torch.testing.assert_close(model(inputs)[kept], expected[kept], atol=1e-6, rtol=0)
    assert (model.width, model.context, model.causal) == (16, LONGEST, name != "bert")
    assert len(model.blocks()) == 2 and model.flops_per_sample() > 0


@pytest.mark.parametrize("name", SAVE)
def test_the_models_own_projection_gives_its_logits(name: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    size = SIZES[name]
    model, tokens = make(folders[name], size, LanguageModeling), batch(size)["tokens"]
    projection = model.output_projection(size, torch.Generator())
    auto = AutoModelForMaskedLM if name == "bert" else AutoModelForCausalLM
    with quiet():
        theirs = auto.from_pretrained(folders[name]).eval()
    with torch.no_grad():
        logits = projection(model({"tokens": tokens}))
        torch.testing.assert_close(logits, theirs(input_ids=tokens).logits[..., :size], atol=1e-5, rtol=0)
    tied = projection.weight is model.body.get_input_embeddings().weight  # type: ignore[operator]
    assert tied == (name != "llama") and projection.weight.shape == (size, 16)
    assert (projection.bias is not None) == (name == "bert")


@pytest.mark.parametrize(
    ("task", "head"),
    [
        (LanguageModeling, "pretrained"),
        (MaskedLanguageModeling, "pretrained"),
        (Completion, "pretrained"),
        (Classification, "fresh"),
        (Copying, "fresh"),
    ],
)
def test_tasks_that_predict_tokens_keep_the_models_projection(task: type, head: str, folders: dict[str, Path]) -> None:
    assert completed(folders["gpt2"], task)["head"] == head
    other = "fresh" if head == "pretrained" else "pretrained"
    assert completed(folders["gpt2"], task, head=other)["head"] == other


def test_a_fresh_projection_is_drawn_from_the_stream_of_heads(folders: dict[str, Path]) -> None:
    model = make(folders["bert"], 59, begin=False)
    first, again = (model.output_projection(7, torch.Generator().manual_seed(3)).weight for _ in range(2))
    assert first.shape == (7, 16) and torch.equal(first, again)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_cache_gives_the_hidden_states_of_the_whole(name: str, folders: dict[str, Path]) -> None:
    model, tokens = make(folders[name], 257), batch(257)["tokens"]
    cache = cache_of(model)
    with torch.no_grad():
        parts = [model({"tokens": part}, cache) for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:])]
        torch.testing.assert_close(torch.cat(parts, dim=1), model({"tokens": tokens}), atol=1e-5, rtol=0)


def test_an_encoder_has_no_cache(folders: dict[str, Path]) -> None:
    assert cache_of(make(folders["bert"], 59, begin=False)) is None


@pytest.mark.parametrize(
    ("name", "frozen", "trained"),
    [
        ("bert", "none", {"embeddings", "encoder.layer.0", "encoder.layer.1"}),
        ("bert", "embeddings", {"encoder.layer.0", "encoder.layer.1"}),
        ("bert", 1, {"encoder.layer.1"}),
        ("bert", "all", set()),
        ("gpt2", 2, {"ln_f"}),
        ("llama", "embeddings", {"layers.0", "layers.1", "norm"}),
    ],
)
def test_frozen_parts_have_no_optimizer_state_and_no_dropout(
    name: str, frozen: Any, trained: set[str], folders: dict[str, Path]
) -> None:
    model = make(folders[name], SIZES[name], begin=False, frozen=frozen)
    parts = ("embeddings", "encoder.layer.0", "encoder.layer.1", "layers.0", "layers.1", "ln_f", "norm", "wte", "h.0")
    free = [key for key, value in model.body.named_parameters() if value.requires_grad]
    assert {part for part in parts if any(key.startswith(f"{part}.") for key in free)} == trained
    network = nn.ModuleDict({"backbone": model, "projection": nn.Linear(16, 3)})
    optimizer = make_optimizer({"_target_": "torch.optim.AdamW", "lr": 1e-3}, network)
    held = sum(value.numel() for group in optimizer.param_groups for value in group["params"])
    assert held == sum(value.numel() for value in network.parameters() if value.requires_grad)
    drops = [part for part in model.train().body.modules() if isinstance(part, nn.Dropout) and part.training]
    assert bool(drops) == (name != "llama" and trained not in (set(), {"ln_f"}))


def test_frozen_weights_cost_fewer_operations(folders: dict[str, Path]) -> None:
    whole, half, none = (
        make(folders["bert"], 59, begin=False, frozen=frozen).flops_per_sample() for frozen in ("none", 1, "all")
    )
    assert none < half < whole and none == pytest.approx(whole / 3)


def test_adapters_begin_as_the_base_model_and_merge_into_it(folders: dict[str, Path]) -> None:
    inputs = batch(59)
    base = make(folders["bert"], 59)
    model = make(folders["bert"], 59, lora_rank=2, lora_targets=["query", "dense"])
    free = {key for key, value in model.named_parameters() if value.requires_grad}
    assert free and all(".lora_" in key for key in free)
    with torch.no_grad():
        assert torch.equal(model(inputs), base(inputs))
        for key, value in model.named_parameters():
            if ".lora_B" in key:
                nn.init.normal_(value, std=0.1)
        changed = model(inputs)
        assert (changed - base(inputs)).abs().max() > 1e-3
        merge_adapters(model.body)
        torch.testing.assert_close(model(inputs), changed, atol=1e-5, rtol=0)
    assert [key for key, _ in model.named_parameters()] == [key for key, _ in base.named_parameters()]


def test_the_layers_that_peft_names_have_adapters(folders: dict[str, Path]) -> None:
    model = make(folders["gpt2"], 257, LanguageModeling, begin=False, lora_rank=2)
    found = {key.split(".lora_")[0].rpartition(".")[2] for key, _ in model.named_parameters() if ".lora_" in key}
    assert found == {"c_attn"}
    assert not model.output_projection(257, torch.Generator()).weight.requires_grad


def test_the_hash_is_of_the_weights_and_not_of_their_place(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "moved"
    other.mkdir()
    for file in folders["bert"].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    first, moved = (Pretrained.content_hashes(completed(folder)) for folder in (folders["bert"], other))
    assert first == moved and first.keys() == {"name", "architecture"}
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((other / "config.json").read_bytes())
    assert Pretrained.content_hashes(completed(tmp_path))["name"] != first["name"]


def test_a_name_on_the_hub_is_looked_for_in_its_cache_first(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        return str(folders["gpt2"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    node = completed("someone/tiny")
    assert (node["name"], node["vocabulary"], set(asked)) == ("someone/tiny", 257, {("someone/tiny", True)})


def test_without_a_network_a_name_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any, **options: Any) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match=r"gave no model of that name .OSError: no network.: download it") as error:
        completed("someone/tiny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("missing", "settings"), [("transformers", {}), ("peft", {"lora_rank": 2})])
def test_a_missing_package_names_the_extra(
    missing: str, settings: dict[str, Any], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = completed(folders["bert"], **settings)
    del node["_target_"]
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"needs the package {missing}: pip install 'losslab.hf.'"):
        Pretrained(**node, vocab_size=59)


CONFIGS = {
    "none of a model": ({}, "names no model_type"),
    "code of its own": ({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}, "auto_map.*runs no code"),
    "quantized": ({"model_type": "bert", "quantization_config": {"bits": 4}}, "quantized weights"),
    "a target": ({"model_type": "bert", "rope": {"_target_": "os.system"}}, "holds the key _target_"),
    "unknown": ({"model_type": "nonesuch", "max_position_embeddings": 9}, "makes no model of model_type='nonesuch'"),
    "no tokens": ({"model_type": "vit"}, "models of model_type='vit' have no vocabulary"),
    "two texts": ({"model_type": "t5"}, "an encoder with a decoder"),
    "no text": ({"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1}, "model.context is missing"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations_that_cannot_be_are_refused(case: str, tmp_path: Path) -> None:
    content, told = CONFIGS[case]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        completed(tmp_path)


def test_settings_that_choose_code_are_left_out(folders: dict[str, Path]) -> None:
    node = completed(folders["bert"])
    node["architecture"] |= {"attn_implementation": "someone/kernels", "_attn_implementation": "someone/kernels"}
    del node["_target_"]
    assert Pretrained(**node, vocab_size=59).config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"context": LONGEST + 1}, "context=49 is longer than the 48 positions"),
        ({"context": 0}, "context must be above 0"),
        ({"frozen": 3}, "the model has 2 layers; give 1 to 2"),
        ({"frozen": "all", "head": "pretrained"}, "leave nothing to train"),
        ({"frozen": 1, "lora_rank": 2}, "leave out model.frozen"),
        ({"lora_rank": 2, "lora_targets": ["nothing"]}, "name some of dense"),
        ({"lora_rank": -1}, "lora_rank must be above 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"trust_remote_code": True}, "trust_remote_code=true is refused"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str, folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=told):
        make(folders["bert"], 59, begin=False, **settings)


def test_another_tokenizer_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"has 257 tokens, and the model in .* on 59: data.tokenizer=pretrained"):
        make(folders["bert"], 257, begin=False)
    make(folders["bert"], 1, begin=False)  # a vocabulary that is not known yet


def test_folders_that_hold_another_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder: give"):
        completed(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"has no config.json"):
        completed(tmp_path)
    (tmp_path / "config.json").write_bytes((folders["bert"] / "config.json").read_bytes())
    with pytest.raises(UserError, match="has no weights"):
        Pretrained.content_hashes(completed(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((folders["gpt2"] / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"holds no weights of .*: its config.json is of another model"):
        make(tmp_path, 59)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no weights that can be read"):
        Pretrained.content_hashes(completed(tmp_path))


def test_a_body_alone_has_no_projection_to_take_over(tmp_path: Path) -> None:
    save_bert(tmp_path, body_only=True)
    with pytest.raises(UserError, match=r"model.head=fresh needs no output layer"):
        make(tmp_path, 59, LanguageModeling)


def test_packed_windows_and_frames_are_refused(folders: dict[str, Path]) -> None:
    model, tokens = make(folders["gpt2"], 257, begin=False), batch(257)["tokens"]
    with pytest.raises(UserError, match=r"leave data.packing=stream"):
        model({"tokens": tokens, "segments": torch.zeros_like(tokens)})
    with pytest.raises(UserError, match="reads tokens, and this data and task give frames"):
        model({"frames": torch.zeros(1, 2, 3)})


def test_a_scaled_logit_is_no_projection(tmp_path: Path) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=59, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LONGEST, logit_scale=0.5, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with quiet():
        CohereForCausalLM(config).save_pretrained(tmp_path)
    make(tmp_path, 59)
    with pytest.raises(UserError, match=r"model.head=fresh leaves them out"):
        make(tmp_path, 59, LanguageModeling)


@pytest.mark.parametrize("name", SAVE)
def test_layers_computed_twice_give_the_same_gradients(name: str, folders: dict[str, Path]) -> None:
    found = []
    for twice in (False, True):
        model = make(folders[name], SIZES[name])
        for layer in model.blocks() if twice else ():
            layer.forward = partial(_without_activations, layer.forward)
        model(batch(SIZES[name])).square().sum().backward()
        found.append([value.grad for value in model.parameters() if value.grad is not None])
    assert len(found[0]) == len(found[1]) and all(map(torch.equal, *found))


def test_dropout_is_the_models_own_or_what_is_asked(folders: dict[str, Path]) -> None:
    rates = [make(folders["bert"], 59, begin=False, dropout=rate).dropout for rate in (None, 0.0, 0.3)]
    assert rates == [0.1, 0.0, 0.3]
    model = make(folders["bert"], 59, begin=False, dropout=0.0).train()
    inputs = batch(59)
    assert torch.equal(F.normalize(model(inputs)), F.normalize(model(inputs)))
