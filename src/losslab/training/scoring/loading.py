"""Rebuild what a run trained, from its folder, one checkpoint or an export, in any process and place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from losslab.choices import chosen
from losslab.config.binding import bind_components
from losslab.config.stored import open_config
from losslab.contracts import DataInfo, context_of
from losslab.data.tokenizer import Tokenizer, tokenizer_of
from losslab.errors import UserError
from losslab.run_folder import RunFolder
from losslab.training.compute import precision_context
from losslab.training.factory import build_network
from losslab.training.generation.text_generator import TextGenerator
from losslab.training.network import Network
from losslab.training.output.checkpoints import read_checkpoint
from losslab.training.scoring.averaged import AVERAGES, Averaged, averaged_in, choose
from losslab.training.scoring.fitted import Fitted, TemperatureChoice
from losslab.training.scoring.predicting import predict
from losslab.training.scoring.stored_info import exported_info, stored_info

PREFIX = "network."
"""The prefix of the network's weights in a checkpoint, where they are a LightningModule's."""
EMBEDDING, PROJECTION = "backbone.embedding.weight", "projection.weight"
WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
"""The files of an export."""


@dataclass(frozen=True)
class Loaded:
    """A trained network with everything that gives its numbers a meaning. On the CPU, in evaluation mode."""

    network: Network
    """Backbone, projection and loss."""
    info: DataInfo
    """Sizes and artifacts of the data that it was trained on."""
    config: dict[str, Any]
    """The run's resolved configuration."""
    step: int
    """Optimizer steps that the weights have seen."""
    scale: float
    """s of softmax(s · z), as nll_scaled fitted it at the last validation before that step; 1 before the first."""
    averaged: Averaged | None = None
    """Averages of the weights beside them, whichever of both the network has (`callbacks=ema`)."""
    shift: float = 0.0
    """b of σ(s · z + b), fitted with s where targets are labels that do not exclude one another."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises UserError where the data has none."""
        tokenizer = tokenizer_of(self.info.artifacts)
        if tokenizer is None:
            raise UserError(f"a run of {chosen('task', self.network.task)} on this data has no tokenizer")
        return tokenizer

    def encode(self, text: str) -> Tensor:
        """A text as int64 [1, T]: the end of a document, after which each begins, and then its tokens."""
        tokenizer = self.tokenizer
        ((tokens, _),) = tokenizer.encode([text])
        return torch.tensor([tokens if tokenizer.end is None else [tokenizer.end, *tokens]])

    def decode(self, tokens: Tensor) -> str:
        """int64 [T] or [1, T] → text."""
        return self.tokenizer.decode(tokens.flatten().tolist())

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """int64 [B, T] → what predictions are made from, float32 [B, T, V], in the precision that it trained with.

        Raises:
            UserError: for another shape, more than `context` tokens, ids that the vocabulary lacks, or a task that does
                not predict next tokens.
        """
        if not self.network.task.continues_texts:
            raise UserError(
                f"{chosen('task', self.network.task)} continues no text: make a batch with "
                "network.task.collate, and score network.task.features(…).hidden with network.loss.scores"
            )
        context, vocab_size = context_of(self.network.backbone), len(self.network.projection.weight)
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise UserError("tokens must be an int64 tensor [B, T], such as encode(text) gives")
        context = tokens.shape[1] if context is None else context
        if tokens.shape[1] > context or not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
            raise UserError(f"tokens must be at most {context} in a row, from 0 to {vocab_size - 1}")
        with self.autocast(tokens.device):
            hidden = self.network.backbone({"tokens": tokens})
        scores = self.network.loss.scores(hidden.flatten(0, 1), self.network.projection)
        return scores.reshape(*tokens.shape, -1)

    def log_probs(self, tokens: Tensor | str) -> Tensor:
        """int64 [B, T] → log-probabilities [B, T, V] of the token after each position, as this loss predicts them; a
        text stands for `encode(text)`.

        Those of the run's nll, that is: the temperature of nll_scaled is not applied, but where the loss itself does.
        """
        tokens = self.encode(tokens) if isinstance(tokens, str) else tokens
        log_probs = self.network.loss.predict_log_probs(self.logits(tokens).flatten(0, 1))
        return log_probs.reshape(*tokens.shape, -1)

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        calibrated: bool = False,
    ) -> str:
        """A continuation of the prompt, without it: that of `losslab generate` with these options.

        Args:
            calibrated: predict by the temperature of nll_scaled, instead of the loss's own way.
            Others: see `TextGenerator`.

        Raises:
            UserError: for settings out of range, and a task that predicts no next tokens.
        """
        text_generator = TextGenerator(
            self.network,
            self.tokenizer,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            context=self.config["data"].get("context"),
            scale=self.scale if calibrated else None,
            forward_context=self.autocast,
        )
        return "".join(text_generator.stream(prompt))

    def predict(
        self, rows: Sequence[Mapping[str, Any] | str], *, temperature: TemperatureChoice = "none"
    ) -> list[dict[str, Any]]:
        """Predictions for rows, or for what comes after texts, as this loss makes them.

        Args:
            rows: of a task with rows, cells by column, or texts alone; of a task of next tokens, texts; of one that
                writes texts, sources, as cells or alone.
            temperature: `fitted`: probabilities are those of nll_scaled, softmax(s · z), instead of the loss's own.

        Returns:
            A dict for each: `predicted`, and of a label `probabilities` by label (`RowPredictor`); of a text `next`,
            its most probable next tokens with `token`, `id` and `probability`.

        Raises:
            UserError: naming the row that cannot be used, and for a task whose targets are of another kind.
        """
        fitted = Fitted.choose(temperature, self.network.task, self.info, self.scale, self.shift)
        return predict(self.network, self.info, self.config, rows, self.autocast, fitted)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context that Lightning puts around the run's forward passes."""
        return precision_context(self.config["trainer"]["precision"], device)()


def load(path: str | Path, *, checkpoint: str = "best", trust: Iterable[str] = (), weights: str = "raw") -> Loaded:
    """Rebuild tokenizer, model and loss.

    Args:
        path: a run's folder, a checkpoint file, or the folder of an export.
        checkpoint: `best` or `last`, of a run's folder.
        trust: the classes outside losslab that the stored configuration may name, such as my_losses.Poly1.
        weights: `raw`, or `ema`: the averages that callbacks=ema kept.

    Raises:
        UserError: when there is nothing to load, it is damaged, or it names code that nobody vouched for.
    """
    path = Path(path)
    names = [trust] if isinstance(trust, str) else list(trust)
    if (path / WEIGHTS).is_file():
        return _load_export(path, names, weights)
    return rebuild(find_checkpoint(RunFolder(path), checkpoint) if path.is_dir() else path, names, weights)


def find_checkpoint(run: RunFolder, choice: str) -> Path:
    """`best` or `last` of a run's folder, or the path of a checkpoint. Raises UserError when there is none."""
    if choice not in ("best", "last"):
        path = Path(choice)
        if not path.is_file():
            raise UserError(f"the checkpoint must be best, last or a path, and there is no file {choice}")
        return path
    run.record()  # names a folder that is no run's
    path = run.best if choice == "best" else run.last
    if not path.is_file():
        there = [file.name for file in run.checkpoint_files()]
        none = "none was written yet, trainer.fast_dev_run kept none, or losslab clean removed them"
        others = f"there is {', '.join(there)}" if there else none
        raise UserError(f"{run} has no {path.name}: {others}")
    return path


def rebuild(path: Path, trust: list[str], choice: str = "raw") -> Loaded:
    """The network that a checkpoint file holds."""
    content = read_checkpoint(path)
    config = bind_components(open_config(content["config"], trust, path))
    info = stored_info(content)
    if info is None:
        raise UserError(f"{path} was written by an older losslab, without its tokenizer; continue its run once")
    weights = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    state = content["losslab"]
    averaged = averaged_in(content)
    latest = state.get("latest", {})
    fitted = latest.get("val/scale", 1.0), latest.get("val/shift", 0.0)
    weights, scale, shift = choose(choice, weights, fitted, averaged, path)
    return _assemble(path, config, weights, info, state["step"], scale, averaged, shift)


def _load_export(folder: Path, trust: list[str], choice: str) -> Loaded:
    try:
        about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if "model_type" in about:
            raise UserError(
                f"{folder} is an export for transformers, which lacks the run's loss: losslab.load reads the run's "
                "folder, or what losslab export writes without --format"
            )
        weights = load_file(folder / WEIGHTS)
        info = exported_info(folder, about)
        config, step, scale = (about[key] for key in ("config", "step", "scale"))
        averages = folder / AVERAGES
        averaged: Averaged | None = None
        if averages.is_file():
            fitted = float(about["ema_scale"]), float(about.get("ema_shift", 0.0))
            averaged = Averaged(load_file(averages), *fitted)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(f"{folder} is no whole export: {type(error).__name__}: {error}") from None
    if (
        not isinstance(config, dict)
        or not isinstance(info.vocab_size, int | None)
        or not isinstance(scale, int | float)
    ):
        raise UserError(f"{folder} is no whole export: {DESCRIPTION} does not hold what losslab writes there")
    weights, scale, shift = choose(choice, weights, (scale, float(about.get("shift", 0.0))), averaged, folder)
    config = bind_components(open_config(config, trust, folder / DESCRIPTION))
    return _assemble(folder, config, weights, info, step, scale, averaged, shift)


def _assemble(
    path: Path,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    info: DataInfo,
    step: int,
    scale: float,
    averaged: Averaged | None,
    shift: float,
) -> Loaded:
    embedding = None if info.vocab_size is None else weights.get(EMBEDDING)
    if embedding is not None and (embedding.ndim == 0 or len(embedding) != info.vocab_size):
        raise UserError(f"the weights of {path} do not fit its vocabulary of {info.vocab_size}")
    network = build_network(config, info)
    tied = {id(value): name for name, value in network.backbone.named_parameters(prefix="backbone")}
    source = tied.get(id(network.projection.weight))
    if source in weights:
        weights = {PROJECTION: weights[source], **weights}
    # Weights of a run in half precision stay what they are; its loss computes in float32.
    network.to(_dtype_of(weights)).loss.float()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the weights of {path} do not fit its configuration: {' '.join(str(error).split())}") from None
    return Loaded(network.eval(), info, config, step, scale, averaged, shift)


def _dtype_of(weights: dict[str, Tensor]) -> torch.dtype:
    """The type of the first weight of the model that is a floating-point number."""
    own = (value.dtype for name, value in weights.items() if name.startswith("backbone.") and value.is_floating_point())
    return next(own, torch.float32)
