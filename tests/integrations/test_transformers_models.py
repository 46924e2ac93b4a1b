"""`losslab.integrations.transformers` with the real Trainer, on tiny random GPT-2 and Llama; docs/in_your_trainer.md.

One module, for the import of transformers takes seconds.
"""

from __future__ import annotations

import inspect
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from losslab.contracts import OutputSpec
from losslab.errors import UserError
from losslab.functional import linear_loss, previous_tokens
from losslab.integrations.transformers import patch, trainer_arguments, unpatch
from losslab.losses.base import Loss
from losslab.losses.goldfish import Goldfish

ROOT = Path(__file__).parents[2]
VOCABULARY, CONTEXT = 61, 12
SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
LLAMA_LIKE = {
    **SMALL,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
CONFIGS = {
    "gpt2": transformers.GPT2Config(
        **SMALL, n_positions=32, n_embd=16, n_layer=1, n_head=2, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0
    ),
    "llama": transformers.LlamaConfig(**LLAMA_LIKE),
}
COUNTED_FROM = {"gpt2": 0, "llama": 1}
"""The first label that the Trainer counts."""


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity_warning()


def make(name: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name])).train()


def examples() -> list[dict[str, Tensor]]:
    """8 texts of 4 to 12 tokens, padded, whose labels are -100 in the padding."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in (12, 4, 9, 12, 5, 7, 12, 6):
        tokens = torch.randint(1, VOCABULARY, (CONTEXT,), generator=generator)
        inside = torch.arange(CONTEXT) < length
        labels = tokens.masked_fill(~inside, -100)
        rows.append({"input_ids": tokens * inside, "attention_mask": inside.long(), "labels": labels})
    return rows


def collated() -> dict[str, Tensor]:
    batch: dict[str, Tensor] = transformers.default_data_collator(examples())
    return batch


class Gradients(transformers.TrainerCallback):
    """Keeps what the optimizer's first step is given."""

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def train_step(
    model: Any, folder: Path, *, accumulate: int = 1, bf16: bool = False, **given: Any
) -> tuple[dict[str, Tensor], Any]:
    """The gradients of one step of the real Trainer, and that Trainer."""
    kept = Gradients()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=8 // accumulate,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=0.0,
        use_cpu=True,
        bf16=bf16,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        optim="sgd",
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=examples(), eval_dataset=examples(), callbacks=[kept], **given
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return kept.found, trainer


def in_way(way: str, model: Any, loss: str) -> dict[str, Any]:
    """Arguments of the Trainer."""
    if way == "patch":
        patch(model, loss)
        return {}
    return trainer_arguments(model, loss)


def largest_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative to the largest entry of all."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    return max(float((found[name] - gradient).abs().max()) for name, gradient in expected.items()) / largest


def dense(model: Any, loss: str, items: int) -> dict[str, Tensor]:
    """The gradients of the formula of a loss, over all logits, in float64."""
    exact, batch = deepcopy(model).double(), collated()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    log_p = exact(**inputs).logits[:, :-1].log_softmax(dim=-1)
    target = batch["labels"][:, 1:]
    log_p, target = log_p[target != -100], target[target != -100]
    own = log_p[torch.arange(len(target)), target]
    if loss == "focal":
        values = -((1 - own.exp()) ** 2) * own
    else:
        q = torch.full_like(log_p, 0.1 / VOCABULARY)
        q[torch.arange(len(target)), target] += 0.9
        values = (q * (q.log() - log_p)).sum(dim=-1)
    (values.sum() / items).backward()
    return {name: p.grad for name, p in exact.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_trainers_gradients_are_those_of_its_own_loss_and_of_the_formulas(
    name: str, accumulate: int, tmp_path: Path
) -> None:
    model = make(name)
    items = int((collated()["labels"][:, COUNTED_FROM[name] :] != -100).sum())
    own, _ = train_step(deepcopy(model), tmp_path, accumulate=accumulate)
    for way in ("patch", "arguments"):
        for loss in ("cross_entropy", "focal", "kl_divergence"):
            trained = deepcopy(model)
            found, _ = train_step(trained, tmp_path, accumulate=accumulate, **in_way(way, trained, loss))
            expected = own if loss == "cross_entropy" else dense(model, loss, items)
            assert largest_error(found, expected) < 1e-5, (way, loss)


def test_gradients_are_those_of_a_loop_of_ones_own() -> None:
    model, batch = make("llama"), collated()
    other = deepcopy(model)
    patch(model, "focal", gamma=3.0)(**batch).loss.backward()
    hidden = other.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    linear_loss(hidden[:, :-1], other.lm_head.weight, batch["labels"][:, 1:], loss="focal", gamma=3.0).backward()
    found, expected = ({name: p.grad for name, p in each.named_parameters()} for each in (model, other))
    assert largest_error(found, expected) < 1e-6


@pytest.mark.parametrize("way", ["patch", "arguments"])
@pytest.mark.parametrize("name", CONFIGS)
def test_evaluation_gives_the_loss_and_no_predictions(name: str, way: str, tmp_path: Path) -> None:
    model = make(name)
    given = in_way(way, model, "cross_entropy")
    _, trainer = train_step(model, tmp_path, **given)
    unpatch(model)
    batch = collated()
    own = model.eval()(**batch).loss.item()
    if given:
        assert trainer.evaluate()["eval_loss"] == pytest.approx(own * ratio(name, batch), rel=1e-5)
        return
    patch(model, "cross_entropy")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own * ratio(name, batch), rel=1e-5)
    outputs = model(**batch)
    assert outputs.loss.item() == pytest.approx(own, rel=1e-5)
    assert outputs.logits is None


def ratio(name: str, batch: dict[str, Tensor]) -> float:
    """The Trainer's count over that of the targets, inverted."""
    labels = batch["labels"]
    return float((labels[:, 1:] != -100).sum() / (labels[:, COUNTED_FROM[name] :] != -100).sum())


def test_a_patched_model_is_the_model_in_everything_but_its_loss(tmp_path: Path) -> None:
    model, batch = make("llama").eval(), collated()
    kind, keys = type(model), list(model.state_dict())
    signature, logits = inspect.signature(model.forward), model(batch["input_ids"]).logits
    tokens = model.generate(batch["input_ids"][:1, :4], max_new_tokens=3, do_sample=False)
    assert patch(patch(model), "square") is model
    assert isinstance(model, kind) and type(model).__name__ == kind.__name__
    assert inspect.signature(model.forward) == signature
    assert (
        list(model.state_dict()) == keys and not list(model.parameters())[len(list(kind(model.config).parameters())) :]
    )
    assert torch.equal(model(batch["input_ids"]).logits, logits)
    assert torch.equal(model.generate(batch["input_ids"][:1, :4], max_new_tokens=3, do_sample=False), tokens)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    copies = [deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert all(torch.equal(copied(**batch).loss, model(**batch).loss) for copied in copies)
    assert type(unpatch(unpatch(model))) is kind
    assert model(**batch).logits is not None
    for copied in copies:
        assert copied(**batch).logits is None
        assert not any(one is other for one, other in zip(copied.parameters(), model.parameters(), strict=True))
        assert type(unpatch(copied)) is kind


def test_each_way_to_call_forward_is_served() -> None:
    model, batch = patch(make("gpt2"), "cross_entropy").eval(), collated()
    tokens, labels = batch["input_ids"], batch["labels"]
    loss = model(**batch).loss.item()
    positions = int((labels[:, 1:] != -100).sum())
    assert model(**batch, num_items_in_batch=10).loss.item() == pytest.approx(loss * positions / 10, rel=1e-5)
    assert model(**batch, num_items_in_batch=torch.tensor(10)).loss.item() == pytest.approx(
        loss * positions / 10, rel=1e-5
    )
    as_tuple = model(tokens, labels=labels, attention_mask=batch["attention_mask"], return_dict=False)
    assert isinstance(as_tuple, tuple) and as_tuple[0].item() == pytest.approx(loss, rel=1e-6)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    assert model(**batch, shift_labels=shifted).loss.item() == pytest.approx(loss, rel=1e-6)
    embedded = {**batch, "inputs_embeds": model.transformer.wte(tokens), "input_ids": None}
    found = model(**embedded, output_hidden_states=True)
    assert found.loss.item() == pytest.approx(loss, rel=1e-5) and len(found.hidden_states) == 2
    nothing = model(tokens, labels=torch.full_like(labels, -100))
    assert nothing.loss.item() == 0
    patch(model, Goldfish(k=2, context=2))
    kept = ~Goldfish(k=2, context=2).dropped(previous_tokens(tokens, 2)[:, :-1].flatten(0, 1)).view(8, -1)
    target = labels[:, 1:].masked_fill(~kept, -100)
    unpatched = unpatch(deepcopy(model))
    logits = unpatched(tokens, attention_mask=batch["attention_mask"]).logits[:, :-1]
    assert 0 < int((target != -100).sum()) < positions
    wanted = F.cross_entropy(logits.flatten(0, 1), target.flatten()).item()
    assert model(**batch).loss.item() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(UserError, match="Goldfish reads the tokens before each target: give input_ids"):
        model(**embedded)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_fsdp_and_gradient_checkpointing_change_no_gradient(tmp_path: Path) -> None:
    model, batch = make("llama"), collated()
    plain = patch(deepcopy(model), "focal")
    plain(**batch).loss.backward()
    expected = {name: p.grad for name, p in plain.named_parameters()}
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        patch(model, "focal").gradient_checkpointing_enable()
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model(**batch).loss.backward()
        found = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        assert largest_error(found, expected) < 1e-6
        with pytest.raises(UserError, match="wrapped after it was patched"):
            unpatch(model)
        with pytest.raises(UserError, match="sharded here: call the loss inside the forward"):
            linear_loss(torch.zeros(2, 16), model.lm_head.weight, torch.zeros(2, dtype=torch.int64))
    finally:
        distributed.destroy_process_group()


def test_mixed_precision_multiplies_in_bfloat16_and_leaves_a_model_that_can_be_unpatched(tmp_path: Path) -> None:
    model = make("llama")
    own, _ = train_step(deepcopy(model), tmp_path, bf16=True)
    exact, _ = train_step(deepcopy(model), tmp_path)
    patch(model, "cross_entropy")
    found, trainer = train_step(model, tmp_path, bf16=True)
    assert largest_error(found, exact) > 1e-5 and largest_error(found, own) < 2e-2
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    copied = unpatch(deepcopy(model))
    copied.forward = copied.forward
    with pytest.raises(UserError, match="another tool has replaced the forward of this LlamaForCausalLM"):
        patch(copied)
    assert unpatch(model)(**collated()).logits is not None


def test_a_head_that_an_adapter_replaces_later_is_refused() -> None:
    model = patch(make("gpt2"))
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(UserError, match="are a Sequential, not a plain"):
        model(**collated())


class WithParameters(Loss):
    def bind(self, spec: OutputSpec) -> None:
        self.scale = nn.Parameter(torch.ones(spec.num_outputs))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits * self.scale, target, reduction="none")


def bert(kind: Any) -> Any:
    return kind(
        transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            is_decoder=True,
        )
    )


def with_other_head() -> Any:
    model = make("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "soft cap": (
        lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**LLAMA_LIKE)),
        {},
        r"Gemma2ForCausalLM soft-caps its logits \(config.final_logit_softcapping=30.0\), which would be left out",
    ),
    "scale": (
        lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**LLAMA_LIKE)),
        {},
        r"CohereForCausalLM scales its logits \(config.logit_scale=0.0625\)",
    ),
    "router": (
        lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**LLAMA_LIKE, output_router_logits=True)),
        {},
        "adds a loss of its router",
    ),
    "layers between": (lambda: bert(transformers.BertLMHeadModel), {}, "something stands between or after"),
    "no head": (lambda: transformers.GPT2Model(CONFIGS["gpt2"]), {}, "GPT2Model has no output embeddings over a body"),
    "another head": (
        with_other_head,
        {},
        "embeddings of LlamaForCausalLM are a Sequential, not a plain",
    ),
    "no model": (lambda: nn.Linear(2, 2), {}, "Linear is no PreTrainedModel"),
    "parameters": (lambda: make("gpt2"), {"loss": WithParameters()}, r"parameters of its own \(scale\)"),
    "name": (lambda: make("gpt2"), {"loss": "focl"}, "no loss named 'focl': did you mean 'focal'"),
    "option": (lambda: make("gpt2"), {"gama": 1.0}, "did you mean 'loss.gamma'"),
    "counts": (lambda: make("gpt2"), {"loss": "logit_adjustment"}, "how often each class is a target"),
}


@pytest.mark.parametrize("function", [patch, trainer_arguments])
@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_served_is_refused_in_a_sentence(why: str, function: Any) -> None:
    model, options, sentence = REFUSED[why]
    made = model()
    kind = type(made)
    with pytest.raises(UserError, match=sentence):
        function(made, **options)
    assert type(made) is kind


def test_refusals_of_one_way_name_the_other() -> None:
    with pytest.raises(UserError, match=r"Goldfish reads 'previous'.*use losslab.integrations.transformers.patch"):
        trainer_arguments(make("gpt2"), "goldfish")
    counted = patch(make("gpt2"), "logit_adjustment", class_counts=torch.arange(VOCABULARY))
    assert math.isfinite(counted(**collated()).loss.item())


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'losslab\[hf\]' brings it, and accelerate"):
        patch(nn.Linear(2, 2))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset a process's peak memory")
@pytest.mark.parametrize("way", ["patch", "trainer_arguments"])
def test_the_peak_is_far_below_that_of_the_models_own_loss(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 50,257 tokens, above the resident memory of the model; in processes of their own, forked from this one, which
    copy a few MiB more of it after many tests. 0.22 and 0.30 were seen here: glibc may or may not put logits where the
    last ones were.
    """
    from benchmarks import other_loops as benchmark

    def peak(way: str) -> float:
        case = benchmark.Case("gpt2", way, "cross_entropy", width=32, batch=4)
        return float(benchmark.measure_apart(case, repeats=0).mib)

    assert peak(way) < peak("own") / 3.2


class LitGPT(nn.Module):
    """The parts of litgpt's GPT that a hook meets: the names of its modules, and the signature of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(8, VOCABULARY)
        block = nn.Linear(8, 8)
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(VOCABULARY, 8), "h": nn.ModuleList([block]), "ln_f": nn.LayerNorm(8)}
        )

    def forward(
        self,
        idx: Tensor,
        input_pos: Tensor | None = None,
        input_pos_maxp1: int | None = None,
        lm_head_chunk_size: int = 0,
    ) -> Tensor | list[Tensor]:
        x = self.transformer["wte"](idx)
        for block in self.transformer["h"]:
            x = x + block(x)
        x = self.transformer["ln_f"](x)
        if lm_head_chunk_size > 0:
            return [self.lm_head(part) for part in x.split(lm_head_chunk_size, dim=1)]
        logits: Tensor = self.lm_head(x)
        return logits


def blocks_of_the_page() -> dict[str, str]:
    """Heading → its block of Python."""
    page = (ROOT / "docs" / "in_your_trainer.md").read_text(encoding="utf-8")
    sections = [section.partition("\n") for section in page.split("\n## ")]
    return {
        heading: body.partition("```python\n")[2].partition("```")[0]
        for heading, _, body in sections
        if "```python" in body
    }


def run_block(heading: str, **given: Any) -> dict[str, Any]:
    namespace = {"__name__": "__main__", **given}
    exec(compile(blocks_of_the_page()[heading], f"docs/in_your_trainer.md, {heading}", "exec"), namespace)
    return namespace


def test_the_page_has_no_block_that_is_not_run() -> None:
    page = (ROOT / "docs" / "in_your_trainer.md").read_text(encoding="utf-8")
    assert page.count("```python") == len(blocks_of_the_page()) == 6


@pytest.mark.filterwarnings("ignore")
def test_the_page_trains_in_a_plain_loop_and_in_lightning(workplace: Path) -> None:
    torch.manual_seed(0)
    assert run_block("A PyTorch loop")["loss"].item() < 4
    trainer = run_block("A LightningModule")["trainer"]
    assert trainer.global_step == 4 and trainer.callback_metrics["train/loss"] < 4.6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["a patched model", "an untouched model"])
def test_the_page_trains_in_the_trainer(way: str, workplace: Path) -> None:
    found = run_block(f"transformers: {way}")
    trained = next(entry for entry in found["trainer"].state.log_history if "train_loss" in entry)
    assert 0 < trained["train_loss"] < 6 and 0 < found["scores"]["eval_loss"] < 6


def test_the_page_hooks_litgpts_head() -> None:
    torch.manual_seed(0)
    model = LitGPT()
    tokens = torch.randint(VOCABULARY, (2, 9))
    input_ids, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[0, :3] = -100
    expected = deepcopy(model)
    log_p = expected(input_ids)[targets != -100].log_softmax(dim=-1)
    own = log_p.gather(-1, targets[targets != -100][:, None])
    wanted = (-((1 - own.exp()) ** 2) * own).mean()
    wanted.backward()
    loss = run_block("litgpt, by a hook", model=model, input_ids=input_ids, targets=targets)["loss"]
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    of_ours, of_logits = ({name: p.grad for name, p in each.named_parameters()} for each in (model, expected))
    assert largest_error(of_ours, of_logits) < 1e-5
    assert model(input_ids).shape == (2, 8, VOCABULARY)


def test_the_page_gives_losses_what_they_read() -> None:
    found = run_block("Losses that read more")
    assert all(found[name].isfinite() for name in ("goldfish", "balanced", "taught"))
