"""The scores of every test token: parts of the record's sum, with the predictions and the attention of the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import CONTEXT, V, make_network
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

import losslab
from losslab.commands.tokens import score_runs
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer
from losslab.errors import UserError
from losslab.metrics.token_scores import TokenScores, is_up_to_date
from losslab.models.attention import SelfAttention
from losslab.records import read
from losslab.run_folder import RunFolder
from losslab.training.scoring.token_scores import attention_weights, score_tokens, token_bytes
from runs import only_run

TWO_LAYERS = ["model.num_layers=2", "data.tokenizer=bpe", "data.vocab_size=300"]


@pytest.fixture
def run(run_tiny: Callable[..., int]) -> Path:
    """A finished run whose scale is far from 1."""
    assert run_tiny("loss=square", *TWO_LAYERS) == 0
    return only_run(Path("outputs/runs"))[0]


@pytest.fixture
def scores(run: Path) -> TokenScores:
    return score_tokens(RunFolder(run), layer=None, trust=[])


def test_the_scores_are_those_of_the_record_and_of_a_dense_computation(run: Path, scores: TokenScores) -> None:
    best = read(run).metrics["best"]
    assert abs(best["val/scale"] - 1) > 0.05
    assert scores.nll.dtype == np.float32
    assert scores.nll.sum(dtype=np.float64) == pytest.approx(best["test/nll_scaled"] * len(scores.nll), rel=1e-5)

    loaded = losslab.load(run)
    window = torch.from_numpy(scores.tokens[:33].astype(np.int64))
    log_probs = (best["val/scale"] * loaded.logits(window[None, :-1])[0]).log_softmax(dim=-1)
    expected = -log_probs.gather(-1, window[1:, None])[:, 0].numpy()
    np.testing.assert_allclose(scores.nll[:32], expected, rtol=1e-4)
    order = log_probs.numpy().argsort(axis=-1)[:, ::-1][:, :5]
    assert scores.top_tokens[:32].tolist() == order.tolist()
    np.testing.assert_allclose(
        scores.top_probabilities[:32], np.take_along_axis(log_probs.exp().numpy(), order, -1), rtol=2e-3
    )


def test_what_occurs_is_told_with_its_text_and_its_count_in_train(run: Path, scores: TokenScores) -> None:
    loaded = losslab.load(run)
    assert scores.position[[0, 31, 32]].tolist() == [1, 32, 1]
    assert scores.documents.sum() == len(scores.tokens) == len(scores.nll) + 1
    texts = [scores.texts[row] for row in scores.rows(scores.tokens)]
    text = b"".join(t for t, token in zip(texts, scores.tokens, strict=True) if token != scores.end).decode()
    assert text == loaded.decode(torch.from_numpy(scores.tokens.astype(np.int64)))
    assert scores.train_counts[scores.rows(np.array([scores.end]))] > 50
    assert set(scores.vocabulary) == {*scores.tokens.tolist(), *scores.top_tokens.flatten().tolist()}


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_the_weights_are_those_that_mix_the_values(positions: str, norm: str) -> None:
    backbone = make_network(positions=positions, norm=norm).backbone.eval()
    tokens = torch.randint(V, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    weights = torch.from_numpy(attention_weights(backbone, tokens, 2, nullcontext)).float()
    attention = backbone.layers[1].attention
    assert isinstance(attention, SelfAttention)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    attention.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        backbone({"tokens": tokens})
        ((hidden, output),) = seen
        exact = attention.weights(hidden)
        values = attention.qkv(hidden).chunk(3, dim=-1)[2].unflatten(-1, (2, -1)).transpose(1, 2)
        torch.testing.assert_close(attention.output((exact @ values).transpose(1, 2).flatten(-2)), output)
    torch.testing.assert_close(weights, exact[0], atol=5e-4, rtol=0)
    assert torch.equal(weights, weights.tril()) and weights[:, 1:].std() > 0.01


def test_a_layer_is_chosen_and_a_missing_one_refused(run: Path, scores: TokenScores) -> None:
    first = score_tokens(RunFolder(run), layer=1, trust=[])
    assert (first.layer, scores.layer, scores.num_layers) == (1, 2, 2)
    assert first.attention.shape == scores.attention.shape == (2, 32, 32)
    assert np.array_equal(first.nll, scores.nll) and not np.array_equal(first.attention, scores.attention)
    for layer in (0, 3):
        with pytest.raises(UserError, match="--layer must be from 1 to 2"):
            score_tokens(RunFolder(run), layer=layer, trust=[])


def test_what_is_up_to_date_is_not_made_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tokens"
    (path,) = score_runs([RunFolder(run)], target, layer=None, trust=[])
    content = path.read_bytes()
    assert path == target / f"{run.name}.npz" and "scoring" in capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(
            "losslab.training.scoring.token_scores.score_tokens", lambda *_, **__: pytest.fail("scored again")
        )
        assert (
            score_runs([RunFolder(run)], target, layer=None, trust=[])
            == score_runs([RunFolder(run)], target, layer=2, trust=[])
            == [path]
        )
    assert "scored before" in capsys.readouterr().out

    score_runs([RunFolder(run)], target, layer=1, trust=[])
    assert TokenScores.read(path).layer == 1
    path.write_bytes(content[:1000])
    score_runs([RunFolder(run)], target, layer=None, trust=[])
    assert path.read_bytes() == content, "damaged scores are made again, and come out the same"
    with pytest.raises(UserError, match="--layer"):
        score_runs([RunFolder(run)], target, layer=0, trust=[])


def test_scores_of_another_run_step_or_layer_are_not_up_to_date(scores: TokenScores, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    wanted = {"identity": scores.identity, "step": scores.step}
    assert not is_up_to_date(path, **wanted, layer=None)
    scores.write(path)
    assert is_up_to_date(path, **wanted, layer=None) and is_up_to_date(path, **wanted, layer=2)
    assert not is_up_to_date(path, **wanted, layer=1)
    assert not is_up_to_date(path, **wanted | {"step": scores.step + 1}, layer=None)
    assert not is_up_to_date(path, **wanted | {"identity": "another"}, layer=None)


def test_a_run_without_a_result_or_with_another_text_is_refused(run: Path) -> None:
    record = read(run)
    book = Path("book.txt")
    text = book.read_text(encoding="utf-8")
    book.write_text("Another. " + text, encoding="utf-8")
    with pytest.raises(UserError, match="no longer the text"):
        score_tokens(RunFolder(run), layer=None, trust=[])
    book.write_text(text, encoding="utf-8")
    replace(record, metrics={}).write(run)
    with pytest.raises(UserError, match="no result on test"):
        score_tokens(RunFolder(run), layer=None, trust=[])
    replace(record, metrics={"best": record.metrics["best"] | {"step": 1}}).write(run)
    with pytest.raises(UserError, match="is of step"):
        score_tokens(RunFolder(run), layer=None, trust=[])


def test_tokens_stand_for_their_bytes() -> None:
    assert [token_bytes(ByteTokenizer(), token) for token in (65, 195, 256)] == [b"A", b"\xc3", b""]
    trained = FileTokenizer.train(["été the the"] * 9, 259)
    vocabulary = trained.backend.get_vocab()
    for name, expected in [("Ã", b"\xc3"), ("Ġ", b" "), ("Ċ", b"\n"), ("<|endoftext|>", b"<|endoftext|>")]:
        assert token_bytes(trained, vocabulary[name]) == expected
    assert {token_bytes(trained, token) for token in range(257, 259)} & {"é".encode(), b"th", b" t", b"he", b" the"}


def test_decoders_that_drop_a_leading_space_lose_none() -> None:
    backend = Backend(models.WordLevel({"▁the": 0, "##ing": 1}, unk_token="▁the"))
    backend.decoder = decoders.Metaspace()
    assert token_bytes(FileTokenizer(backend.to_str(), "sentencepiece"), 0) == b" the"
    backend.decoder = decoders.WordPiece()
    assert token_bytes(FileTokenizer(backend.to_str(), "wordpiece"), 1) == b"ing"


def test_asking_for_scores_imports_no_torch() -> None:
    program = "import sys, losslab.commands.tokens; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
