"""Score every token of a run's test split, and look at one layer's attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection, Share
from losslab.data.byte_level import byte_characters
from losslab.data.module import TextDataModule
from losslab.data.tokenizer import FileTokenizer, Tokenizer
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.metrics.class_metrics import scoring_rows
from losslab.metrics.token_scores import TokenScores
from losslab.models.decoder import Decoder
from losslab.models.layer import TransformerLayer
from losslab.run_folder import RunFolder
from losslab.training.scoring.reevaluate import Reopened, reopen

TOP = 5
ATTENTION_POSITIONS = 128
"""Positions of the first window, few enough to look at. Attention is causal, so these are whole by themselves."""
_BYTES = 256


def score_tokens(run: RunFolder, *, layer: int | None, trust: list[str]) -> TokenScores:
    """Score the test split with the best checkpoint of a finished run, at the scale of its record.

    Args:
        layer: whose attention to look at, from 1; None: the last.
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a run that cannot be opened, has no result, or has no such layer; and for a text that changed.
    """
    opened = reopen(run, checkpoint="best", overrides=[], trust=trust)
    scale = _recorded_scale(opened)
    backbone = opened.loaded.network.backbone
    if not isinstance(backbone, Decoder) or not opened.loaded.network.task.of_stream:
        raise UserError(f"{run} is no run of task=lm with model=decoder: only those have a page of tokens")
    layer = backbone.num_layers if layer is None else layer
    told_apart = opened.config["data"].get("packing", "stream") != "stream"
    if told_apart or opened.config["data"].get("eval_stride") is not None or not opened.loaded.network.task.causal:
        raise UserError(
            f"{run} does not score every token of its text from windows side by side (data.packing, data.eval_stride, "
            "task): only such runs have a page of tokens"
        )
    if not 1 <= layer <= backbone.num_layers:
        raise UserError(f"--layer must be from 1 to {backbone.num_layers}, the layers of {run}, not {layer}")
    if not opened.own:
        raise UserError(f"{opened.config['data']['path']} is no longer the text that {run} was made from")
    data = opened.own_data()
    assert isinstance(data, TextDataModule)
    collector = _Collector(scale)
    opened.evaluator(data).run(data.eval_batches("test", Share()), collector.observe)
    nll, top_tokens, top_probabilities = collector.arrays()

    split = data.cache.splits["test"]
    tokens = np.asarray(split.tokens)
    first = torch.from_numpy(tokens[: min(data.context, ATTENTION_POSITIONS, len(nll))].astype(np.int64))
    vocabulary = np.union1d(tokens, top_tokens)
    tokenizer = data.tokenizer()
    return TokenScores(
        identity=opened.record.identity,
        step=opened.loaded.step,
        layer=layer,
        num_layers=backbone.num_layers,
        end=-1 if tokenizer.end is None else tokenizer.end,
        tokens=tokens,
        documents=np.asarray(split.lengths, dtype=np.int64),
        position=1 + np.arange(len(nll), dtype=np.int32) % data.context,
        nll=nll,
        top_tokens=top_tokens.astype(tokens.dtype),
        top_probabilities=top_probabilities,
        vocabulary=vocabulary.astype(tokens.dtype),
        texts=tuple(token_bytes(tokenizer, token) for token in vocabulary.tolist()),
        train_counts=data.train_counts[vocabulary],
        attention=attention_weights(backbone, first[None].to(opened.device), layer, opened.context),
    )


def attention_weights(
    backbone: Decoder, tokens_BT: Tensor, layer: int, context: Callable[[], AbstractContextManager[object]]
) -> NDArray[np.float16]:
    """The attention of layer `layer` (from 1) in the first of these windows, float16 [H, T, T]; see
    `SelfAttention.weights`."""
    found: list[Tensor] = []
    block = backbone.layers[layer - 1]
    assert isinstance(block, TransformerLayer)
    hook = block.attention.register_forward_pre_hook(lambda module, inputs: found.append(module.weights(*inputs[:2])))
    try:
        with torch.no_grad(), context():
            backbone({"tokens": tokens_BT})
    finally:
        hook.remove()
    return found[0][0].cpu().numpy().astype(np.float16)


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes that a token stands for in the middle of a text; its name where there are none (the end of a document).

    A single token need not be whole characters: of byte-level tokenizers these are the very bytes.
    """
    if not isinstance(tokenizer, FileTokenizer):
        return bytes([token]) if token < _BYTES else b""
    # Some decoders drop the space before the first token of a text: what the second of two adds is the token's own.
    once, twice = tokenizer.decode([token]), tokenizer.decode([token, token])
    text = twice.removeprefix(once) if twice.startswith(once) else once
    name: str = tokenizer.backend.id_to_token(token) or ""
    if "\N{REPLACEMENT CHARACTER}" in text and set(name) <= set(byte_characters()):
        return bytes(byte_characters().index(character) for character in name)
    return (text or name).encode()


class _Collector:
    """An observer that keeps the scores of the targets it sees, in their order."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.nll: list[NDArray[Any]] = []
        self.top: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def observe(self, features: Features | None, loss: Loss, projection: Projection) -> LossSum:
        assert features is not None
        for chunk in features.kept().chunks(scoring_rows(loss.num_classes(len(projection.weight)))):
            with torch.autocast(device_type=chunk.hidden.device.type, enabled=False):
                log_probs = (self.scale * loss.scores(chunk.hidden, projection).float()).log_softmax(dim=-1)
            best = log_probs.topk(min(TOP, log_probs.shape[-1]), dim=-1)
            self.nll.append(-log_probs.gather(-1, chunk.target[:, None])[:, 0].cpu().numpy())
            self.top.append((best.indices.cpu().numpy(), best.values.exp().half().cpu().numpy()))
        return LossSum(total=torch.zeros(()), weight=torch.zeros(()))

    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """nll float32 [N], top tokens int64 [N, 5], their probabilities float16 [N, 5]."""
        tokens, probabilities = zip(*self.top, strict=True)
        return np.concatenate(self.nll), np.concatenate(tokens), np.concatenate(probabilities)


def _recorded_scale(opened: Reopened) -> float:
    """The temperature of the record's best metrics, so that these scores are parts of that sum."""
    best = opened.record.metrics.get("best", {})
    scale = best.get("val/scale")
    if scale is None or best.get("test/nll_scaled") is None or not math.isfinite(scale):
        raise UserError(f"{opened.run} has no result on test: let it train to its end first")
    if best.get("step") != opened.loaded.step:
        raise UserError(
            f"{opened.path} is of step {opened.loaded.step}, and the result of its run of step {best.get('step')}: "
            "one of the two was changed; train the run again"
        )
    return scale
