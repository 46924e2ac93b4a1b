"""`losslab generate` and `losslab export --format` on one trained run, as a person types them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import losslab
from losslab.cli import main
from losslab.commands.train import train
from losslab.training.generation.text_generator import TextGenerator
from losslab.training.scoring.loading import Loaded
from runs import TINY, make_text, only_run

FEW = ("--max-tokens", "40")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("generate")
    (place / "book.txt").write_text(make_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train([*TINY, "optimizer.lr=0.03", "model.mlp=swiglu"]) == 0
    return only_run(place / "outputs/runs")[0]


@pytest.fixture(scope="module")
def loaded(run: Path) -> Loaded:
    return losslab.load(run)


def text_of(loaded: Loaded, prompt: str, *, sample: int = 0, max_tokens: int = 40, **options: float) -> str:
    texts = TextGenerator(loaded.network, loaded.tokenizer, max_tokens=max_tokens, **options)  # type: ignore[arg-type]
    return "".join(texts.stream(prompt, sample=sample))


class Typed:
    """The command line: what it prints, on both outputs, and its exit code."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch = patch
        self.capture = capture

    def __call__(self, *words: str, lines: str = "") -> tuple[int, str, str]:
        self.patch.setattr("sys.argv", ["losslab", *words])
        self.patch.setattr("sys.stdin", io.StringIO(lines))
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capture.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, printed.out, printed.err


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(monkeypatch, capsys)


def test_a_prompt_is_continued_beyond_the_context(run: Path, loaded: Loaded, typed: Typed, tmp_path: Path) -> None:
    assert typed("generate", str(run), *FEW, "--prompt", "Ab é") == (0, text_of(loaded, "Ab é") + "\n", "")
    (tmp_path / "prompt.txt").write_text("Ab é\n", encoding="utf-8")
    options = ("--temperature", "0.7", "--top-k", "20", "--top-p", "0.9", "--seed", "3", "--calibrated")
    _, printed, _ = typed("generate", str(run), *FEW, "--prompt-file", str(tmp_path / "prompt.txt"), *options)
    chosen = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "seed": 3, "scale": loaded.scale}
    assert printed == text_of(loaded, "Ab é\n", **chosen) + "\n"
    assert printed != text_of(loaded, "Ab é\n", **chosen | {"seed": 4}) + "\n"


def test_several_samples_are_headed(run: Path, loaded: Loaded, typed: Typed) -> None:
    _, printed, _ = typed("generate", str(run), *FEW, "--prompt", "", "--num-samples", "2")
    first, second = (text_of(loaded, "", sample=sample) for sample in range(2))
    assert printed == f"--- sample 1 of 2\n{first}\n--- sample 2 of 2\n{second}\n"


def test_without_a_prompt_each_line_is_continued(run: Path, loaded: Loaded, typed: Typed) -> None:
    code, printed, told = typed("generate", str(run), *FEW, lines="Abc\n\nlast")
    assert (code, told) == (0, "")
    assert printed == "".join(text_of(loaded, prompt) + "\n" for prompt in ("Abc", "", "last"))


def test_ctrl_c_stops_a_sample_and_the_next_line_is_continued(
    run: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(self: TextGenerator, prompt: str, *, sample: int) -> Iterator[str]:
        yield "so far"
        if prompt == "first":
            raise KeyboardInterrupt
        yield " and on"

    monkeypatch.setattr(TextGenerator, "stream", stream)
    assert typed("generate", str(run), lines="first\nsecond\n") == (0, "so far\nso far and on\n", "")
    assert typed("generate", str(run), "--prompt", "first") == (130, "so far\n", "losslab: interrupted\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file exclude each other: give one of them"),
        (["--prompt-file", "gone.txt"], "--prompt-file gone.txt cannot be read as UTF-8 text"),
        (["--prompt", "a", "--top-p", "0"], "top_p must be above 0 and at most 1, not 0.0"),
        (["--num-samples", "0"], "--num-samples must be 1 or more, not 0"),
        (["--max-tokens", "0"], "max_tokens must be 1 or more, not 0"),
        (["--device", "gpux"], "--device cannot be 'gpux': did you mean 'gpu'?"),
        (["--checkpoint", "lst"], "the checkpoint must be best, last or a path, and there is no file lst"),
        (["--top-k", "x"], "--top-k must be a number"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(run: Path, typed: Typed, options: list[str], told: str) -> None:
    code, printed, error = typed("generate", str(run), *options, lines="")
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"losslab: {told}")


def test_an_export_for_transformers_continues_the_same_greedy_text(run: Path, loaded: Loaded, typed: Typed) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    code, printed, _ = typed("export", str(run), "--format", "transformers")
    place = run / "export-transformers"
    assert code == 0
    assert [line.partition("  ")[0] for line in printed.splitlines()[:-1]] == [
        str(place / name)
        for name in (
            *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"),
            "tokenizer_config.json",
        )
    ]
    assert "as LlamaForCausalLM, whose logits differ by " in printed.splitlines()[-1]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    begun = loaded.encode("Abc de")
    continued = model.generate(begun, max_new_tokens=20)[0, begun.shape[1] :]
    _, greedy, _ = typed("generate", str(run), "--prompt", "Abc de", "--max-tokens", "20", "--temperature", "0")
    assert tokenizer.decode(continued) == greedy[:-1]
    code, _, error = typed("export", str(run), "--format", "onx")
    assert (code, error) == (2, "losslab: --format cannot be 'onx': did you mean 'onnx'?\n")
