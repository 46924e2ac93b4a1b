"""Predictions for rows that have no target yet, and for the token after a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import DataInfo, Features, LossSum, Projection, no_objective, to_device
from losslab.data.columns import INPUTS, Vocabularies, restored, target_of
from losslab.data.frame_files import SUFFIXES as FRAME_SUFFIXES
from losslab.data.frame_files import FrameReader
from losslab.data.long_rows import LongRows
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.training.generation.prediction import ForwardContext, NextToken
from losslab.training.generation.text_generator import encode_prompt
from losslab.training.network import Network
from losslab.training.scoring.answering import AnswerPredictor
from losslab.training.scoring.fitted import Fitted
from losslab.training.scoring.given_rows import Predictor, Row, parsed
from losslab.training.scoring.predicting_texts import TextPredictor

_SHOWN = 5
_HOLDS = 0.5
"""The probability above which one of several labels holds."""


class RowPredictor:
    """Predicts the target of rows: `RowPredictor(network, info, data)([{"text": "…"}])`.

    Predictions are the loss's own: `predict_log_probs` of labels and tags, `predict_values` of values, in their unit;
    or the probabilities are those under the temperature that val fitted.

    Args:
        network: in evaluation mode.
        info: of the data that it was trained on.
        data: the run's data configuration, whose `columns` name the file's columns.
        forward_context: makes the context of each forward pass.
        fitted: the numbers under which probabilities are taken, instead of the loss's own way.

    Raises:
        UserError: for a task without rows.
    """

    def __init__(
        self,
        network: Network,
        info: DataInfo,
        data: Mapping[str, Any],
        forward_context: ForwardContext,
        fitted: Fitted | None = None,
    ) -> None:
        columns = network.task.columns
        self.target = target_of(columns)
        if self.target is None:
            raise UserError(
                f"{chosen('task', network.task)} has no column to predict in rows; for a task of next tokens: "
                "losslab generate, or losslab.load(RUN_DIR).predict([text])"
            )
        if "context" not in data:
            raise UserError(
                f"this run read its samples by {data['_target_']}, not out of a table: losslab predict is for runs on "
                "tables, such as those of data=csv"
            )
        self.network = network
        self.kind = columns[self.target]
        found = restored(columns, int(data["context"]), info, network.task.joined)
        self.vocabularies: Vocabularies = replace(found, cut=network.task.cut)
        self.names = {key: (data.get("columns") or {}).get(key, key) for key in columns if key != self.target}
        """The task's name of each column that it reads → the file's."""
        self._sequences = [name for name, kind in columns.items() if kind in INPUTS]
        self.batch_size = int(data["val_batch_size"])
        self.long = LongRows(self.vocabularies.context, data.get("eval_stride"))
        self.longer = 0
        """Rows so far of which a sequence was longer than the context: cut off, or read in windows."""
        self._reader = FrameReader.restored(info.artifacts)
        self._forward_context = forward_context
        self._fitted = fitted

    def __call__(self, rows: Sequence[Row | str], *, first: int = 1) -> list[dict[str, Any]]:
        """A dict for each row: `predicted`, a label, labels, tags, a text, a number or numbers. Beside a label, or
        labels that do not exclude one another, `probabilities` by label; beside tags `tag_probabilities`, one for each.

        Args:
            rows: cells by the columns' names in the file, the target's left out or not; or, where there is one column
                alone, its cells. Of a column of frames, arrays [T, F], or paths of files.
            first: the number of the first row, for messages.

        Raises:
            UserError: naming the row and the column that cannot be used.
        """
        cells = [self._parse(row, number) for number, row in enumerate(rows, start=first)]
        found: list[dict[str, Any]] = []
        for i in range(0, len(cells), self.batch_size):
            found += self._predict(cells[i : i + self.batch_size])
        return found

    def rows_of(self, path: Path) -> list[dict[str, Any]] | None:
        """The row of a file of frames or sound, where the task reads frames; None of a table."""
        is_row = path.suffix.lower() in FRAME_SUFFIXES and bool(self.path_columns)
        return [dict.fromkeys(self.path_columns, str(path))] if is_row else None

    def words_of(self, row: Row) -> list[str]:
        """The words of a row that have tags; none for other tasks."""
        name = next((name for name, kind in self.vocabularies.columns.items() if kind == "words"), None)
        return [] if name is None else list(self._parse(row, 1)[name])

    def notes(self) -> list[str]:
        """Sentences for people about the rows so far."""
        if not self.longer:
            return []
        how = "cut off" if self.long.stride is None else f"read in windows, {self.long.stride} apart"
        return [f"{self.longer:,} sequences are longer than data.context={self.vocabularies.context}: {how}"]

    @property
    def path_columns(self) -> list[str]:
        """The file's names of columns whose cells are paths."""
        return [column for name, column in self.names.items() if self.vocabularies.columns[name] == "frames"]

    def _parse(self, row: Row | str, number: int) -> dict[str, Any]:
        return parsed(row, number, self.names, self.vocabularies.columns, frames=self._frames)

    def _frames(self, cell: Any) -> Any:
        """Frames as the run read them, out of the file that a cell names; an array as it is."""
        if not isinstance(cell, str) or self._reader is None:
            return cell
        return self._reader.stacked(self._reader.read(Path(cell.strip()).expanduser()).frames)

    @torch.no_grad()
    def _predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert self.target is not None
        given = [{**row, self.target: self._placeholder(row)} for row in rows]
        columns, longer = self.vocabularies.encode(given, whole=self.long.stride is not None)
        self.longer += longer
        lengths = sum((columns[name].lengths() for name in self._sequences), np.zeros(len(rows), dtype=np.int64))
        found: list[dict[str, Any]] = [{}] * len(rows)
        for places in self.long.parts(lengths, self.batch_size):
            part = [{name: column[i] for name, column in columns.items()} for i in places.tolist()]
            for i, output in zip(places.tolist(), self._read(part), strict=True):
                found[i] = self._told(output, rows[i])
        return found

    def _read(self, rows: list[dict[str, Any]]) -> Tensor | list[Tensor]:
        """Outputs of encoded rows, [B, V] or [B, T, V]; of characters the classes of each text."""
        task, device = self.network.task, self.network.projection.weight.device
        batch = to_device(task.collate([task.example(row) for row in rows]), device)
        batch = batch._replace(windows=self.long.windows(self.batch_size))
        outputs: list[Tensor] = []

        def observe(features: Features | None, loss: Loss, projection: Projection) -> LossSum:
            assert features is not None
            scores = loss.scores(features.hidden, projection)
            if features.lengths is not None:
                outputs.extend(loss.decode(scores.float(), features.lengths))
            else:
                outputs.append(self._outputs(loss, scores).cpu())
            return no_objective(projection.weight)

        with self._forward_context(device):
            self.network(batch, observe)
        if self.kind == "characters":
            return outputs
        return outputs[0].reshape(*batch.weight.shape, -1)

    def _outputs(self, loss: Loss, scores: Tensor) -> Tensor:
        if self.kind in ("value", "values"):
            return self.network.task.in_units(loss.predict_values(scores))
        if self._fitted is not None:
            return self._fitted.log_probs(scores, exclusive=self.kind != "labels")
        return loss.predict_log_probs(scores).float()

    def _placeholder(self, row: Mapping[str, Any]) -> Any:
        """A target that a row may have, which no prediction reads."""
        assert self.target is not None
        if self.kind == "value":
            return 0.0
        if self.kind == "values":
            return [0.0] * self.vocabularies.widths[self.target]
        if self.kind == "labels":
            return []
        label = next(iter(self.vocabularies.labels[self.target]))
        if self.kind in ("label", "characters"):  # a text of one character
            return label
        words = next(name for name, kind in self.vocabularies.columns.items() if kind == "words")
        return [label] * len(row[words])

    def _told(self, output: Tensor, row: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs of a row, [V] or [T, V] → what is said of it."""
        assert self.target is not None
        if self.kind == "value":
            return {"predicted": output.flatten()[0].item()}
        if self.kind == "values":
            return {"predicted": output.flatten().tolist()}
        labels = list(self.vocabularies.labels[self.target])
        if self.kind == "characters":
            return {"predicted": "".join(labels[c] for c in output.tolist())}
        if self.kind in ("label", "labels"):
            shares = dict(zip(labels, output.flatten().exp().tolist(), strict=True))
            hold = [label for label, share in shares.items() if share > _HOLDS]
            return {
                "predicted": labels[int(output.argmax())] if self.kind == "label" else hold,
                "probabilities": shares,
            }
        words = next(name for name, kind in self.vocabularies.columns.items() if kind == "words")
        best = output[: len(row[words])].max(dim=-1)
        tags = [labels[int(place)] for place in best.indices]
        return {"predicted": tags, "tag_probabilities": best.values.exp().tolist()}


def predictor_of(
    network: Network,
    info: DataInfo,
    data: Mapping[str, Any],
    forward_context: ForwardContext,
    fitted: Fitted | None = None,
) -> Predictor:
    """The predictor of a run's rows. Raises UserError for a run without rows."""
    if network.task.reads_source:
        return TextPredictor(network, info, data, forward_context)
    if network.task.points:
        return AnswerPredictor(network, info, data, forward_context)
    return RowPredictor(network, info, data, forward_context, fitted)


def predict(
    network: Network,
    info: DataInfo,
    config: Mapping[str, Any],
    rows: Sequence[Row | str],
    forward_context: ForwardContext,
    fitted: Fitted | None = None,
) -> list[dict[str, Any]]:
    """See `Loaded.predict`."""
    if isinstance(rows, str | Mapping):
        raise UserError("predict takes a list of rows or texts, and not one alone: write [row]")
    if not network.task.continues_texts:
        return predictor_of(network, info, config["data"], forward_context, fitted)(rows)
    tokenizer = tokenizer_of(info.artifacts)
    if tokenizer is None:
        raise UserError(f"a run of {chosen('task', network.task)} on this data has no tokenizer")
    found = []
    for text in rows:
        if not isinstance(text, str):
            raise UserError(f"{chosen('task', network.task)} continues texts, and {text!r} is none")
        next_token = NextToken(
            network,
            context=config["data"].get("context"),
            scale=None if fitted is None else fitted.scale,
            never=tokenizer.mask,
            forward_context=forward_context,
        )
        log_probs = next_token(encode_prompt(tokenizer, text))
        values, ids = log_probs.topk(min(_SHOWN, len(log_probs)))
        table = zip(ids.tolist(), values.exp().tolist(), strict=True)
        found.append({"next": [{"token": tokenizer.decode([i]), "id": i, "probability": p} for i, p in table]})
    return found
