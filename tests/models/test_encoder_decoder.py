"""The encoder-decoder: torch's own, incremental decoding, padding and the other samples of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import cache_of
from losslab.errors import UserError
from losslab.models.encoder_decoder import EncoderDecoder

V, CONTEXT, WIDTH, HEADS, INNER = 13, 12, 16, 4, 24
SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": HEADS, "width": WIDTH, "context": CONTEXT, "vocab_size": V}
SIZES |= {"source_vocab_size": None}
SOURCE_MASK = torch.arange(9) < torch.tensor([9, 5, 1])[:, None]
MASK = torch.arange(CONTEXT) < torch.tensor([7, 12, 2])[:, None]
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "2017": {"positions": "sinusoidal", "norm": "layer", "norm_placement": "post", "mlp": "relu"},
    "learned": {"positions": "learned", "decoder_layers": 3, "embedding_norm": True, "source_vocab_size": 11},
    "grouped": {"num_kv_heads": 2, "qk_norm": True, "mlp": "swiglu", "share_embeddings": False},
}


def make(**options: Any) -> EncoderDecoder:
    return EncoderDecoder(
        **{"source_vocab_size": None, **SIZES, **options}, generator=torch.Generator().manual_seed(0)
    ).eval()


def varied(model: nn.Module) -> Any:
    """Weights, norms and biases with values of their own, wide enough for attention that is not uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def draw(seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "source": torch.randint(11, (3, 9), generator=generator),
        "source_mask": SOURCE_MASK,
        "tokens": torch.randint(V, (3, CONTEXT), generator=generator),
        "mask": MASK,
    }


def torch_weights(theirs: nn.Transformer) -> dict[str, Tensor]:
    """The weights of torch's two stacks by our names."""
    found: dict[str, Tensor] = {}
    for name, value in theirs.state_dict().items():
        stack, _, rest = name.partition(".")
        for their, our in (
            ("self_attn.in_proj_", "attention.qkv."),
            ("self_attn.out_proj.", "attention.output."),
            ("multihead_attn.out_proj.", "cross_attention.output."),
            ("linear1.", "mlp.input."),
            ("linear2.", "mlp.output."),
            ("norm1.", "attention_norm."),
            ("norm2.", "mlp_norm." if stack == "encoder" else "cross_norm."),
            ("norm3.", "mlp_norm."),
            ("norm.", "last_norm."),
        ):
            if rest.partition("layers.")[2].partition(".")[2].startswith(their) or rest.startswith(their):
                rest = rest.replace(their, our)
                break
        if "multihead_attn.in_proj_" in rest:
            kind = rest.rpartition("in_proj_")[2]
            start = rest.partition("multihead_attn")[0]
            found[f"{stack}.{start}cross_attention.query.{kind}"] = value[:WIDTH]
            found[f"{stack}.{start}cross_attention.kv.{kind}"] = value[WIDTH:]
        else:
            found[f"{stack}.{rest}"] = value
    return found


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_is_torchs_transformer(placement: str, activation: str) -> None:
    theirs = nn.Transformer(
        WIDTH, HEADS, 2, 3, INNER, dropout=0.0, activation=activation, batch_first=True, norm_first=placement == "pre"
    )
    if placement == "post":  # torch has a last norm all the same
        theirs.encoder.norm = theirs.decoder.norm = None
    theirs = varied(theirs)
    ours = varied(
        make(decoder_layers=3, mlp_width=INNER, mlp=activation, norm="layer", norm_placement=placement,
             positions="sinusoidal")
    )  # fmt: skip
    lacking = ours.load_state_dict(torch_weights(theirs), strict=False)
    assert lacking.missing_keys == ["embedding.weight"] and not lacking.unexpected_keys
    inputs = draw()
    embedded = ours.embedding.weight / ours.init_std
    table = ours.encoder.position_table
    wanted = theirs(
        embedded[inputs["source"]] + table[:9], embedded[inputs["tokens"]] + table,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(CONTEXT),
        src_key_padding_mask=~SOURCE_MASK, memory_key_padding_mask=~SOURCE_MASK,
    )  # fmt: skip
    found = ours(inputs)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_the_other_samples_change_nothing(kind: str) -> None:
    model, inputs, others = varied(make(**KINDS[kind])), draw(), draw(3)
    whole = model(inputs)
    edited = inputs | {"source": torch.where(SOURCE_MASK, inputs["source"], others["source"])}
    edited["tokens"] = torch.where(MASK, inputs["tokens"], others["tokens"])
    near = 1e-6 * whole.abs().max()
    assert (model(edited) - whole)[MASK].abs().max() <= near
    for i in range(3):
        size, length = int(SOURCE_MASK[i].sum()), int(MASK[i].sum())
        alone = model({"source": inputs["source"][i : i + 1, :size], "tokens": inputs["tokens"][i : i + 1, :length]})
        assert (alone[0] - whole[i, :length]).abs().max() <= near
    other = inputs | {"source": inputs["source"].roll(1, 0)}
    assert (model(other) - whole).abs().max() > 0.01  # the source is read


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_one_token_after_the_other_is_decoding_all(kind: str) -> None:
    model, inputs = varied(make(**KINDS[kind])), draw()
    whole, cache = model(inputs), cache_of(model)
    with torch.no_grad():
        parts = [model(inputs | {"tokens": inputs["tokens"][:, :4]}, cache)]
        for i in range(4, CONTEXT):
            parts.append(model({"tokens": inputs["tokens"][:, i : i + 1]}, cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)
    assert cache.length == CONTEXT


def test_a_cache_follows_its_samples_through_a_search() -> None:
    model, inputs = varied(make()), draw()
    memory, cache = model.encode(inputs["source"], SOURCE_MASK), model.new_cache()
    rows, tokens = torch.tensor([2, 0, 0, 1, 2]), inputs["tokens"]
    with torch.no_grad():
        model.decode(tokens[:, :3], memory, SOURCE_MASK, cache)
        cache.reorder(rows)
        more = torch.randint(V, (5, 2), generator=torch.Generator().manual_seed(4))
        found = [model.decode(more[:, :1], memory, SOURCE_MASK, cache)]
        found.append(model.decode(more[:, 1:], memory, SOURCE_MASK, cache))
    texts = torch.cat([tokens[rows, :3], more], dim=1)
    wanted = model.decode(texts, memory[rows], SOURCE_MASK[rows])
    torch.testing.assert_close(torch.cat(found, dim=1), wanted[:, 3:], rtol=1e-5, atol=1e-5)


def test_embeddings_are_tied_as_asked() -> None:
    def tensors(**options: Any) -> int:
        model = make(**options)
        model.output_projection = model.output_projection(V, torch.Generator().manual_seed(0))  # type: ignore[assignment]
        return sum(p.numel() for p in model.parameters() if p.shape in ((V, WIDTH), (11, WIDTH))) // WIDTH

    assert tensors() == V
    assert tensors(tie_embeddings=False) == 2 * V
    assert tensors(share_embeddings=False) == 2 * V
    assert tensors(source_vocab_size=11, tie_embeddings=False) == 2 * V + 11
    with pytest.raises(UserError, match="vocabularies are separate: leave it null"):
        make(source_vocab_size=11, share_embeddings=True)
    with pytest.raises(UserError, match=r"model\.decoder_layers must be above 0"):
        make(decoder_layers=0)


def test_flops_are_those_of_every_product() -> None:
    """6 for each entry of a weight matrix a position, and 12 · D for each pair of query and key that may meet."""
    model = make(decoder_layers=3)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name)
    scores = 12 * WIDTH * (2 * CONTEXT + 3 * (CONTEXT / 2 + CONTEXT))
    assert model.flops_per_sample() == CONTEXT * (6 * matrices + scores)
    assert len(model.blocks()) == 5
    with pytest.raises(UserError, match="reads two texts"):
        model({"tokens": draw()["tokens"]})
    with pytest.raises(UserError, match=r"give model\.context=13"):
        model(draw() | {"source": torch.zeros(3, 13, dtype=torch.int64), "source_mask": torch.ones(3, 13).bool()})
