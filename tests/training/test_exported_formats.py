"""Networks that transformers and onnxruntime compute as losslab does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import DataInfo
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer, Tokenizer, artifacts_of
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.entmax import Entmax
from losslab.losses.harmonic import Harmonic
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.losses.regularizers import Regularized
from losslab.losses.square import Square
from losslab.losses.stablemax import StableMax
from losslab.models.decoder import Decoder
from losslab.tasks.classification import Classification
from losslab.tasks.lm import LanguageModeling
from losslab.training.export import onnx_format
from losslab.training.export.onnx_format import export_onnx
from losslab.training.export.output_layer import output_layer
from losslab.training.export.transformers_format import export_transformers
from losslab.training.generation.text_generator import TextGenerator
from losslab.training.network import Network
from losslab.training.scoring.loading import Loaded, load

CONTEXT = 24
TEXT = "naïve café — 漢字 🙂\n\nand  the <end> "


def make(loss: Loss | None = None, tokenizer: Tokenizer | None = None, **options: Any) -> Loaded:
    """A small network with weights of size 1, not trained, as a run's."""
    tokenizer = tokenizer or ByteTokenizer()
    info = DataInfo(
        splits={}, mean_positions=CONTEXT, vocab_size=tokenizer.vocab_size, artifacts=artifacts_of(tokenizer)
    )
    sizes = {"num_layers": 2, "num_heads": 2, "width": 16, "context": CONTEXT, "mlp_width": 24, "init_std": 0.3}
    backbone = Decoder(**(sizes | options), vocab_size=tokenizer.vocab_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    network = Network(
        backbone=backbone,
        loss=loss or CrossEntropy(),
        task=LanguageModeling(),
        info=info,
        head_init=torch.Generator().manual_seed(1),
    )
    return Loaded(network.eval(), info, {"trainer": {"precision": "32-true"}}, step=7, scale=1.0)


def some_tokens(loaded: Loaded) -> Tensor:
    assert loaded.info.vocab_size is not None
    return torch.randint(loaded.info.vocab_size, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


MODELS = {
    "LlamaForCausalLM": {"mlp": "swiglu"},
    "ArceeForCausalLM": {"mlp": "gelu"},
    "GPT2LMHeadModel": {"norm": "layer", "positions": "learned"},
    "GPTNeoXForCausalLM": {"norm": "layer", "mlp": "relu"},
}
CASES = [
    *((name, options | {"tie_embeddings": tied}) for name, options in MODELS.items() for tied in (True, False)),
    ("GPT2LMHeadModel", {"norm": "layer", "positions": "sinusoidal", "mlp": "relu"}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_transformers_computes_the_same_logits_and_the_same_greedy_text(
    name: str, options: dict[str, Any], transformers: Any, tmp_path: Path
) -> None:
    loaded = make(**options)
    _, about = export_transformers(loaded, tmp_path)
    assert about.startswith(f"{name}, whose logits differ by ")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == name
    tokens = some_tokens(loaded)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, loaded.logits(tokens), rtol=0, atol=1e-5)
    prompt = loaded.encode("ab")
    greedy = model.generate(prompt, max_new_tokens=CONTEXT - prompt.shape[1])[0, prompt.shape[1] :]
    texts = TextGenerator(loaded.network, loaded.tokenizer, max_tokens=CONTEXT - prompt.shape[1], temperature=0)
    assert loaded.decode(greedy) == "".join(texts.stream("ab")) != ""
    sizes = [sum(p.numel() for p in network.parameters()) for network in (model, loaded.network)]
    assert sizes[0] == sizes[1] or options.get("positions") == "sinusoidal"


@pytest.mark.parametrize("trained", [False, True], ids=["bytes", "bpe"])
def test_the_tokenizer_of_an_export_gives_the_same_ids_and_ends(
    trained: bool, transformers: Any, tmp_path: Path
) -> None:
    loaded = make(tokenizer=FileTokenizer.train([TEXT], 270) if trained else ByteTokenizer(), mlp="swiglu")
    export_transformers(loaded, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    end = loaded.tokenizer.end
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == end
    assert tokenizer.model_max_length == CONTEXT
    assert [end, *tokenizer(TEXT)["input_ids"]] == loaded.encode(TEXT)[0].tolist()
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["bos_token_id"] == generation["eos_token_id"] == end
    with pytest.raises(UserError, match=r"is an export for transformers, which lacks the run's loss"):
        load(tmp_path)


def scaled_square() -> Loss:
    loss = Square()
    loss.calibrate(0.3)
    return loss


class Adjusted(LogitAdjustment):
    """With a prior that is not flat."""

    def bind(self, spec: Any) -> None:
        super().bind(spec)
        self.log_prior -= torch.arange(len(self.log_prior)) / 30


@pytest.mark.parametrize("make_loss", [scaled_square, lambda: CrossEntropy(temperature=1.7), Adjusted])
def test_a_factor_of_the_loss_is_in_the_projection(make_loss: Any, transformers: Any, tmp_path: Path) -> None:
    loaded = make(make_loss(), norm="layer", positions="learned")
    export_transformers(loaded, tmp_path)
    model, tokens = transformers.AutoModelForCausalLM.from_pretrained(tmp_path), some_tokens(loaded)
    with torch.no_grad():
        log_probs = model(tokens).logits.log_softmax(dim=-1)
    torch.testing.assert_close(log_probs, loaded.log_probs(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [Harmonic(), StableMax(), Entmax(), Regularized(CrossEntropy(), soft_cap=30.0)],
    ids=lambda x: type(x).__name__,
)
def test_a_loss_that_predicts_otherwise_is_refused(loss: Loss) -> None:
    network = make(loss, tie_embeddings=False).network
    with pytest.raises(UserError, match=f"and {chosen('loss', loss)} of this run predicts otherwise"):
        output_layer(network)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"norm": "rms", "positions": "learned"}, "model.norm=rms with model.positions=learned and model.mlp=gelu"),
        ({"norm": "rms", "positions": "sinusoidal"}, "model.norm=rms with model.positions=sinusoidal"),
        ({"norm": "layer", "mlp": "swiglu"}, "model.norm=layer with model.positions=rotary and model.mlp=swiglu"),
    ],
    ids=str,
)
def test_a_model_without_a_counterpart_is_refused(
    options: dict[str, Any], told: str, transformers: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"transformers has no counterpart of {told}"):
        export_transformers(make(**options), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_other_models_and_tasks_are_refused(transformers: Any, tmp_path: Path) -> None:
    class Own(Decoder):
        pass

    loaded = make()
    loaded.network.backbone.__class__ = Own
    with pytest.raises(UserError, match="no counterpart of model=Own, only of model=decoder"):
        export_transformers(loaded, tmp_path)
    loaded.network.task = Classification()
    for export in (export_transformers, export_onnx):
        with pytest.raises(UserError, match="task=classification does not: --format safetensors"):
            export(loaded, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_stays_half(transformers: Any, tmp_path: Path) -> None:
    loaded = make(norm="layer", positions="learned")
    loaded.network.bfloat16().loss.float()
    export_transformers(loaded, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.transformer.wte.weight, loaded.network.backbone.embedding.weight)
    computed = make(scaled_square(), norm="layer", positions="sinusoidal")
    computed.network.bfloat16().loss.float()
    export_transformers(computed, tmp_path)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.float32


def test_onnx_computes_the_same_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    loaded = make(StableMax(), mlp="swiglu", num_layers=1)
    (small, large), save = (tmp_path / "small", tmp_path / "large"), onnx_format._save

    def save_both(program: Any, folder: Path, **options: bool) -> list[Path]:
        large.mkdir()
        assert save(program, large, large=True) == [large / "model.onnx", large / "model.onnx.data"]
        return save(program, folder, **options)

    monkeypatch.setattr(onnx_format, "_save", save_both)
    assert export_onnx(loaded, small) == [small / "model.onnx", small / "tokenizer.json"] == sorted(small.iterdir())
    sessions = [runtime.InferenceSession(folder / "model.onnx") for folder in (small, large)]
    for tokens in (some_tokens(loaded), some_tokens(loaded)[:1, :1], some_tokens(loaded)[:, :7]):
        for session in sessions:
            (logits,) = session.run(["logits"], {"input_ids": tokens.numpy()})
            log_probs = torch.from_numpy(logits).log_softmax(dim=-1)
            torch.testing.assert_close(log_probs, loaded.log_probs(tokens), rtol=0, atol=1e-4)


def test_a_model_that_cannot_be_traced_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match=r"^torch\.onnx cannot trace Decoder: no such operator$"):
        export_onnx(make(), tmp_path)


@pytest.mark.parametrize(
    ("export", "package", "extra"), [(export_transformers, "transformers", "hf"), (export_onnx, "onnxscript", "onnx")]
)
def test_a_missing_package_is_one_sentence(
    export: Any, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'losslab\[{extra}\]'"):
        export(make(), tmp_path)


TASK = """
task: own_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
PAGE = Path(__file__).parents[2] / "docs/generate_and_export.md"


def test_lm_evaluation_harness_finds_the_same_bits_per_byte(transformers: Any, tmp_path: Path) -> None:
    evaluation = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded, text = make(mlp="swiglu"), TEXT * 3
    assert 3 * CONTEXT < len(text.encode()) % CONTEXT + 3 * CONTEXT < len(text.encode())
    export_transformers(loaded, tmp_path / "export")
    (tmp_path / "own.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (tmp_path / "own.yaml").write_text(TASK.format(data=tmp_path / "own.jsonl", cache=tmp_path / "cache"))
    found = evaluation.simple_evaluate(
        model=HFLM(pretrained=str(tmp_path / "export"), device="cpu", dtype="float32", batch_size=1),
        tasks=["own_text"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    theirs = found["results"]["own_text"]["bits_per_byte,none"]
    (code,) = [code for code in PAGE.read_text().split("```python\n")[1:] if "def bits_per_byte" in code]
    names: dict[str, Any] = {}
    exec(code.partition("```")[0].partition("\n\nloaded =")[0], names)
    loaded.config["data"] = {"context": CONTEXT}
    assert names["bits_per_byte"](loaded, text) == pytest.approx(theirs, abs=1e-4, rel=0)
