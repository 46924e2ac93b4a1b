"""Networks that runs trained: loaded, evaluated, exported, cleaned, and moved to another place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from torch import Tensor

import losslab
from losslab.commands.clean import clean
from losslab.commands.evaluate import evaluate
from losslab.commands.export import export
from losslab.commands.resume import resume
from losslab.errors import UserError
from losslab.records import read
from losslab.run_folder import RunFolder
from losslab.training import run as training_run
from losslab.training.module import LossModule
from runs import BETTER_EARLY, make_text, only_run, stopping_after
from warm_process import PYTHON

TOKENS = torch.arange(64).reshape(2, 32) % 257


def score(run: Path, **options: Any) -> dict[str, float]:
    """`losslab evaluate`, and what it recorded."""
    arguments: dict[str, Any] = {"checkpoint": "best", "split": None, "overrides": [], "trust": []} | options
    assert evaluate(run, **arguments) == 0
    entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    metrics: dict[str, float] = entry["metrics"]
    return metrics


def part(metrics: dict[str, float], split: str) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(f"{split}/")}


@pytest.fixture
def trained_logits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits of the networks whose training ends, on TOKENS."""
    seen: list[Tensor] = []
    finish = training_run.finish

    def look(run: RunFolder, module: LossModule, evaluator: Any, *rest: Any, **options: Any) -> None:
        network = module.network.eval()
        with torch.no_grad(), evaluator.context():
            hidden = network.backbone({"tokens": TOKENS})
        seen.append(network.loss.scores(hidden.flatten(0, 1), network.projection).detach().reshape(2, 32, -1))
        finish(run, module, evaluator, *rest, **options)

    monkeypatch.setattr(training_run, "finish", look)
    return seen


@pytest.mark.parametrize(
    "options",
    [
        ["loss=square"],
        ["model.tie_embeddings=false", "data.tokenizer=bpe", "data.vocab_size=300"],
        ["model.norm=layer", "model.positions=learned", "trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-true", "loss=square"],
    ],
    ids=["square", "untied, bpe", "bf16-mixed", "bf16-true"],
)
def test_a_fresh_process_elsewhere_gives_the_same_logits_bit_for_bit(
    run_tiny: Callable[..., int], trained_logits: list[Tensor], tmp_path: Path, options: list[str]
) -> None:
    assert run_tiny(*options) == 0
    run, record = only_run(Path("outputs/runs"))
    export(run, checkpoint="last", output=Path("exported"), trust=[])
    program = """import sys, torch, losslab
torch.set_num_threads(1)
tokens = torch.arange(64).reshape(2, 32) % 257
for path in sys.argv[1:]:
    loaded = losslab.load(path, checkpoint="last")
    torch.save([loaded.logits(tokens), loaded.log_probs(tokens), loaded.step, loaded.tokenizer.digest()],
               path.rstrip("/") + ".pt")
"""
    copy = shutil.copy(run / "checkpoints/last.ckpt", tmp_path / "alone.ckpt")
    paths = [str(run.absolute()), str(copy), str(Path("exported").absolute())]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    python = PYTHON if options == ["loss=square"] else sys.executable  # one that imports it all, and forks
    subprocess.run([python, "-c", program, *paths], cwd=elsewhere, check=True, timeout=120)
    for path in paths:
        logits, log_probs, step, digest = torch.load(f"{path}.pt", weights_only=True)
        assert torch.equal(logits, trained_logits[0])
        assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 32), atol=1e-5)
        assert (step, digest) == (8, record.hashes["tokenizer"])


def test_a_sentence_is_scored_as_the_docs_say(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("data.tokenizer=bpe", "data.vocab_size=300") == 0
    run, _ = only_run(Path("outputs/runs"))
    loaded = losslab.load(run)
    tokens = loaded.encode("Naïve tests.")
    assert tokens.shape[0] == 1 and loaded.decode(tokens[0, 1:]) == "Naïve tests."
    log_probs = loaded.log_probs(tokens[:, :-1])
    picked = log_probs.gather(-1, tokens[:, 1:, None])
    assert picked.shape == (1, tokens.shape[1] - 1, 1) and bool((picked < 0).all())
    for wrong in (7, tokens[0], tokens.float(), torch.full((1, 3), 300), torch.zeros(1, 33, dtype=torch.int64)):
        with pytest.raises(UserError, match="tokens must be"):
            loaded.log_probs(wrong)  # type: ignore[arg-type]


def test_evaluate_prints_the_run_s_own_metrics_again(run_tiny: Callable[..., int]) -> None:
    assert run_tiny(*BETTER_EARLY) == 0
    run, record = only_run(Path("outputs/runs"))
    final, best = record.metrics["final"], record.metrics["best"]
    assert best["step"] < record.step
    assert score(run) == part(best, "test")
    assert score(run, split="val") == part(best, "val")
    assert score(run, checkpoint="last") == part(final, "test")
    assert score(run, checkpoint=str(run / "checkpoints/last.ckpt"), split="val") == part(final, "val")
    assert score(run, overrides=["data.val_batch_size=5"])["test/nll"] == pytest.approx(best["test/nll"], abs=1e-6)
    assert len((run / "evaluations.jsonl").read_text().splitlines()) == 5


def test_another_text_is_scored_whole_with_the_run_s_tokenizer_and_temperature(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("data.tokenizer=bpe", "data.vocab_size=300", "loss=square") == 0
    run, record = only_run(Path("outputs/runs"))
    Path("other.txt").write_text(make_text(seed=5, paragraphs=3))
    values = score(run, overrides=["data.path=other.txt"])
    assert values["text/scale"] == record.metrics["best"]["val/scale"]
    assert values["text/nll"] == pytest.approx(values["text/nll_scaled"])
    assert "text/unigram_nll" not in values
    Path("copy.txt").write_text(Path("book.txt").read_text())
    assert score(run, overrides=["data.path=copy.txt"]) == part(record.metrics["best"], "test")


def test_a_moved_run_resumes_evaluates_and_compares(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*BETTER_EARLY, "name=whole") == 0
    with stopping_after(6):
        assert run_tiny(*BETTER_EARLY, "name=moved") == 1
    _, whole = only_run(Path("outputs/whole"))
    old, _ = only_run(Path("outputs/moved"))
    # The text went along; only one run's folder did, without the cache.
    place = Path("elsewhere/outputs/moved") / old.name
    place.parent.mkdir(parents=True)
    old.rename(place)
    Path("book.txt").rename("elsewhere/book.txt")
    assert resume(place, [], []) == 0
    assert read(place).metrics == whole.metrics
    assert score(place) == part(whole.metrics["best"], "test")
    for path in place.rglob("*"):
        assert not path.is_symlink()
    again = Path("anywhere")
    place.rename(again)
    Path("elsewhere/book.txt").rename("tome.txt")
    with pytest.raises(UserError, match=r"say where it lies now, data\.path=…"):
        score(again)
    assert score(again, overrides=["data.path=tome.txt"]) == part(whole.metrics["best"], "test")
    from losslab.commands.compare import compare

    Path("sweep").mkdir()
    again.rename("sweep/run")
    capsys.readouterr()
    assert compare(Path("sweep"), baseline="cross_entropy", metric="test/nll_scaled") == 0
    assert f"{whole.metrics['best']['test/nll_scaled']:.4f}" in capsys.readouterr().out


def test_an_unfinished_run_takes_other_devices_and_a_text_that_moved(run_tiny: Callable[..., int]) -> None:
    with stopping_after():
        assert run_tiny("trainer.accumulate_grad_batches=2") == 1
    run, _ = only_run(Path("outputs/runs"))
    Path("book.txt").rename("novel.txt")
    for wrong in (["optimizer.lr=1"], ["seed=2"], ["trainer.devices"], ["data.path=nowhere.txt"]):
        with pytest.raises(UserError):
            resume(run, [], wrong)
    overrides = ["data.path=novel.txt", "trainer.micro_batch_size=1", "data.num_workers=1", "checkpoints.keep=2"]
    assert resume(run, [], overrides) == 0
    record = read(run)
    assert (record.hardware["micro_batch_size"], record.hardware["accumulate_grad_batches"]) == (1, 4)
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == [
        "step-0000000004.ckpt",
        "step-0000000008.ckpt",
    ]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_an_export_is_read_by_other_libraries(run_tiny: Callable[..., int], tokenizer: str) -> None:
    assert run_tiny(f"data.tokenizer={tokenizer}", "data.vocab_size=300") == 0
    run, _ = only_run(Path("outputs/runs"))
    assert export(run, checkpoint="best", output=None, trust=[]) == 0
    folder = run / "export"
    loaded = losslab.load(run)
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {name for name, _ in loaded.network.named_parameters()}
    about = json.loads((folder / "config.json").read_text())
    assert about["parameters"] == sum(value.numel() for value in weights.values())
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    text = "Naïve café, 北京 🙂\n\ttabs  and   spaces.\x00"
    ((ids, _),) = loaded.tokenizer.encode([text])
    assert backend.encode(text, add_special_tokens=False).ids == ids
    assert backend.decode(ids) == text
    assert backend.token_to_id("<|endoftext|>") == loaded.tokenizer.end
    assert backend.get_vocab_size() == about["vocab_size"]


def test_clean_frees_what_nothing_needs_and_says_how_much(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(*BETTER_EARLY, "checkpoints.keep=3") == 0
    run, record = only_run(Path("outputs/runs"))
    (run / "export-onnx/.onnx.abc.tmp").mkdir(parents=True)
    for torn in ("checkpoints/.last.ckpt.abc.tmp", "export-onnx/.onnx.abc.tmp/model.onnx"):
        (run / torn).write_bytes(bytes(100_000))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def used() -> int:
        files = {path.stat().st_ino: path.stat().st_blocks * 512 for path in Path("outputs").rglob("*")}
        return sum(files.values())

    space = used()
    options: dict[str, bool] = {"checkpoints": False, "cache": False}
    assert clean(Path("outputs"), **options, dry_run=True) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    would = capsys.readouterr().out.splitlines()[-1]
    assert clean(Path("outputs"), **options, dry_run=False) == 0
    did = capsys.readouterr().out.splitlines()[-1]
    assert did == would.replace("would free", "freed")
    assert float(did.split()[1]) == pytest.approx((space - used()) / 1024, abs=12)  # KiB; files end in half blocks
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt"]
    assert not list((run / "export-onnx").iterdir())
    assert score(run) == part(record.metrics["best"], "test")
    assert run_tiny(*BETTER_EARLY, "checkpoints.keep=3") == 0
    assert read(run).metrics == record.metrics
    assert clean(Path("outputs"), checkpoints=True, cache=True, dry_run=False) == 0
    assert not list(Path("outputs").rglob("*.ckpt"))
    assert not [path for path in Path("outputs/.cache").iterdir() if path.is_dir()]
    assert read(run).metrics == record.metrics


def test_clean_leaves_unfinished_runs_alone(run_tiny: Callable[..., int]) -> None:
    assert run_tiny() == 0
    run, record = only_run(Path("outputs/runs"))
    record.status = "interrupted"
    record.write(run)
    before = sorted((run / "checkpoints").iterdir())
    assert clean(run, checkpoints=True, cache=False, dry_run=False) == 0
    assert sorted((run / "checkpoints").iterdir()) == before


def test_compiled_and_uncompiled_checkpoints_are_interchangeable(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def eager(function: Any) -> Any:  # as torch.compile, without the C++ compiler that a test machine may lack
        compiled.append(function)
        return lambda *args: function(*args)

    monkeypatch.setattr(torch, "compile", eager)
    assert run_tiny("name=plain") == 0
    assert run_tiny("name=compiled", "trainer.compile=true") == 0
    assert len(compiled) == 1
    (plain, one), (other, two) = only_run(Path("outputs/plain")), only_run(Path("outputs/compiled"))
    assert one.identity == two.identity
    contents = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (plain, other)]
    assert contents[0].keys() == contents[1].keys()
    assert all(torch.equal(contents[0][name], contents[1][name]) for name in contents[0])
    assert score(plain, checkpoint=str(other / "checkpoints/best.ckpt")) == score(plain)
