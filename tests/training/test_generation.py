"""Generated text: windows, predictions of the loss, whole characters, independent samples."""

from __future__ import annotations

import codecs
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_network import CONTEXT, V, make_network

from losslab.data.tokenizer import ByteTokenizer, FileTokenizer
from losslab.errors import UserError
from losslab.losses.entmax import Entmax
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.training.generation.prediction import NextToken, window_start
from losslab.training.generation.text_generator import TextGenerator
from losslab.training.generation.text_stream import TextStream
from losslab.training.network import Network

LENGTH = 5 * CONTEXT


class Letters(ByteTokenizer):
    """Tokens that fit the tiny network: the letters from a to k; the last of them may end the text."""

    vocab_size = V

    def __init__(self, end: int | None, mask: int | None = None) -> None:
        self.end, self.mask = end, mask

    def encode(self, documents: list[str]) -> Any:
        for text in documents:
            yield [ord(letter) - ord("a") for letter in text], [1] * len(text)

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(ord("a") + token) for token in tokens)


def some_tokens(count: int = LENGTH) -> list[int]:
    tokens: list[int] = torch.randint(V, (count,), generator=torch.Generator().manual_seed(4)).tolist()
    return tokens


@torch.no_grad()
def recomputed(network: Network, tokens: list[int], context: int = CONTEXT) -> torch.Tensor:
    """Log-probabilities after the tokens, from a pass over the window alone."""
    window = torch.tensor([tokens[window_start(len(tokens), context) :]])
    hidden = network.backbone({"tokens": window})[:, -1]
    return network.loss.predict_log_probs(network.loss.scores(hidden, network.projection))[0]


@given(st.integers(1, 300), st.integers(1, 20))
def test_windows_hold_more_than_half_of_the_context_and_at_most_all(length: int, context: int) -> None:
    start = window_start(length, context)
    assert length - start <= context
    assert start == 0 or length - start > context - max(1, context // 2)
    assert window_start(length, None) == 0
    assert window_start(length + 1, context) >= start


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
@pytest.mark.parametrize("prompt", [1, CONTEXT, 2 * CONTEXT + 1])
def test_beyond_the_context_predictions_are_those_of_the_recomputed_window(positions: str, prompt: int) -> None:
    network, tokens = make_network(positions=positions).eval(), some_tokens()
    next_token = NextToken(network)
    for length in range(prompt, LENGTH):
        torch.testing.assert_close(
            next_token(tokens[:length]), recomputed(network, tokens[:length]), rtol=1e-5, atol=1e-6
        )


def test_a_model_without_a_cache_recomputes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, tokens = make_network().eval(), some_tokens()
    monkeypatch.setattr("losslab.training.generation.prediction.cache_of", lambda backbone: None)
    next_token = NextToken(network)
    for length in range(1, LENGTH):
        assert torch.equal(next_token(tokens[:length]), recomputed(network, tokens[:length]))


def test_the_window_is_that_of_the_data_where_it_is_shorter() -> None:
    network, tokens = make_network().eval(), some_tokens()
    next_token = NextToken(network, context=4)
    for length in range(1, 20):
        expected = recomputed(network, tokens[:length], context=4)
        torch.testing.assert_close(next_token(tokens[:length]), expected, rtol=1e-5, atol=1e-6)


def test_predictions_are_the_loss_s_own_or_those_of_the_fitted_temperature() -> None:
    network = make_network("square", tie_embeddings=False).eval()
    network.loss.calibrate(1.0)
    with torch.no_grad():
        scores = network.loss.scores(network.backbone({"tokens": torch.tensor([[3]])})[0], network.projection)[0]
    torch.testing.assert_close(NextToken(network)([3]), scores.log_softmax(dim=-1))
    network.loss.calibrate(7.0)
    torch.testing.assert_close(NextToken(network)([3]), (7 * scores).log_softmax(dim=-1))
    torch.testing.assert_close(NextToken(network, scale=2.0)([3]), (2 * scores).log_softmax(dim=-1))
    network.loss = Entmax(alpha=2.0)
    network.projection.weight.data.mul_(30)
    log_probs = NextToken(network)([3])
    assert torch.isneginf(log_probs).any() and math.isclose(log_probs.exp().sum(), 1, rel_tol=1e-5)
    network.loss = LogitAdjustment()
    network.loss.log_prior = -torch.arange(V).float()
    torch.testing.assert_close(NextToken(network)([3]), (30 * scores).log_softmax(dim=-1))


def test_a_sample_is_the_same_however_many_there_are() -> None:
    network = make_network().eval()

    def make(seed: int, sample: int, **options: Any) -> str:
        options = {"max_tokens": LENGTH, "seed": seed} | options
        return "".join(TextGenerator(network, Letters(end=None), **options).stream("abc", sample=sample))

    texts = [make(0, sample) for sample in range(4)] + [make(1, 0)]
    assert len({*texts}) == 5
    assert make(0, 2) == texts[2]
    assert make(0, 2, max_tokens=2) == texts[2][:2]
    assert make(0, 1, temperature=0) == make(5, 3, top_k=1)


def test_a_text_ends_at_the_end_of_text() -> None:
    network = make_network("square", norm="rms", tie_embeddings=False).eval()
    network.loss.calibrate(1e4)
    with torch.no_grad():
        hidden = network.backbone({"tokens": torch.tensor([[V - 1, 1]])})[0, -1]
        network.projection.weight.zero_()
        network.projection.weight[V - 1] = hidden
    assert list(TextGenerator(network, Letters(end=V - 1)).stream("b")) == []


def test_the_mask_token_is_never_produced() -> None:
    network = make_network().eval()
    likeliest = int(NextToken(network)([0]).argmax())
    without = NextToken(network, never=likeliest)([0])
    assert without[likeliest] == -torch.inf
    assert math.isclose(without.exp().sum(), 1, rel_tol=1e-5)
    generator = TextGenerator(network, Letters(end=None, mask=likeliest), max_tokens=LENGTH)
    assert chr(ord("a") + likeliest) not in "".join(generator.stream("a"))


def test_a_network_that_cannot_generate_is_refused() -> None:
    with pytest.raises(UserError, match="call its eval"):
        NextToken(make_network())
    network = make_network().eval()
    network.task.causal = False  # type: ignore[misc]
    with pytest.raises(UserError, match="text comes from runs that predict next tokens, and task=lm"):
        NextToken(network)


@given(st.binary(max_size=40))
def test_pieces_are_whole_characters_and_together_the_text(content: bytes) -> None:
    text, pieces = TextStream(ByteTokenizer(), [256]), []
    for byte in content:
        pieces.append(text.add(byte))
    shown = "".join(pieces)
    pieces.append(text.finish())
    assert "".join(pieces) == content.decode(errors="replace")
    whole = codecs.getincrementaldecoder("utf-8")("replace").decode(content)
    assert shown == whole.rstrip("\N{REPLACEMENT CHARACTER}") or not whole


def test_pieces_of_a_trained_tokenizer_join_to_the_text() -> None:
    text = "naïve café — 漢字, 🙂🙂 and the end"
    tokenizer = FileTokenizer.train([text], 270)
    ((tokens, _),) = tokenizer.encode([text])
    stream, pieces = TextStream(tokenizer, tokens[:5]), []
    for token in tokens[5:]:
        pieces.append(stream.add(token))
    assert tokenizer.decode(tokens[:5]) + "".join(pieces) + stream.finish() == text
    assert "🙂" in pieces and not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"the prompt 'a\\udcff' is not UTF-8 text"):
        TextGenerator(make_network().eval(), ByteTokenizer()).stream("a\udcff")


def test_an_empty_prompt_needs_an_end_of_text() -> None:
    tokenizer = Letters(end=None)
    with pytest.raises(UserError, match="no end-of-text token to begin with"):
        TextGenerator(make_network().eval(), tokenizer).stream("")
    assert len("".join(TextGenerator(make_network().eval(), tokenizer, max_tokens=9).stream("a"))) == 9
