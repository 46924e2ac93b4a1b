"""The rows of train as a run sees them: their order, labels flipped once and for all, changes drawn for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from losslab.contracts import MIXED_WEIGHT, Batch, Share, Task
from losslab.data.augmentation import Augmentation
from losslab.data.cells import Columns
from losslab.data.columns import INPUTS, target_of
from losslab.data.frame_files import bands_of
from losslab.data.label_noise import noisy_labels
from losslab.data.mixup import mix
from losslab.data.paraphrases import Paraphrases
from losslab.data.row_changes import RowChanges
from losslab.data.row_draws import RowDraws
from losslab.data.row_order import Balanced, Bucketed, RowOrder, Shuffled, padding
from losslab.data.row_store import RowStore
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The keys that decide which rows make up an optimizer step.

    Args:
        batch_size: rows, or the most of them where there is a budget of tokens.
        batch_tokens: tokens of a step of rows of similar length, padding included; None: any rows.
        balance: 0: rows as they are; 1: each class as often.
    """

    batch_size: int
    batch_tokens: int | None = None
    balance: float = 0.0

    def check(self) -> None:
        """Raises UserError for values that cannot be."""
        if self.batch_tokens is not None and self.batch_tokens <= 0:
            raise UserError(f"data.batch_tokens must be above 0, or null, not {self.batch_tokens}")
        if not 0 <= self.balance <= 1:
            raise UserError(
                f"data.balance must be from 0 (rows as they are) to 1 (each class as often), not {self.balance}"
            )
        if self.balance and self.batch_tokens is not None:
            raise UserError(
                "data.balance and data.batch_tokens do not go together: steps of rows of similar length need the same "
                "rows in every pass; leave one out"
            )

    def check_columns(self, columns: Columns, task: str) -> None:
        """Refuse what a task's columns do not have. Raises UserError naming the task."""
        target = target_of(columns)
        if self.balance and (target is None or columns[target] != "label"):
            raise UserError(f"data.balance draws by the one label of each row, and the target of {task} is none")
        if self.batch_tokens is not None and not any(kind in INPUTS for kind in columns.values()):
            raise UserError(f"data.batch_tokens counts tokens, and {task} reads none: give data.batch_size")


class TrainRows:
    """Rows of train under a seed.

    Args:
        store: prepared.
        task: whose examples they become.
        seed: the data's.
        names: the task's name of a column → that in the files.

    Raises:
        UserError: where a row has more tokens than a step, and for paraphrases that cannot be read, or of no row.
    """

    def __init__(
        self,
        store: RowStore,
        task: Task,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        seed: int,
        names: Mapping[str, str],
    ) -> None:
        self.store = store
        self.task = task
        self.sampling = sampling
        self.augmentation = augmentation
        self.seed = seed
        self.target = target_of(task.columns)
        tokenizer, context = source_tokenizer_of(store.meta["artifacts"]), store.meta["settings"]["context"]
        self.read = {name: kind for name, kind in task.columns.items() if name not in task.predicted}
        """Columns that changes may touch."""
        self.paraphrases: Paraphrases | None = None
        if augmentation.paraphrases is not None and tokenizer is not None:
            column = names[augmentation.text_column(self.read)]
            self.paraphrases = Paraphrases(augmentation.paraphrases, column, tokenizer, context)
            if not self.reworded:
                raise UserError(
                    f"data.augment.paraphrases={augmentation.paraphrases} has other words for no text of train: its "
                    f"column {column!r} holds texts as train has them"
                )
        self.changes = RowChanges(
            augmentation,
            self.read,
            tokenizer,
            seed,
            context=context,
            joined=[name for name in task.joined if name in self.read],
            paraphrases=self.paraphrases,
            bands=bands_of(store.meta),
        )
        self.draws = RowDraws(task, store)
        self.order = self._make_order()

    def _make_order(self) -> RowOrder:
        seed, size, asked = self.seed, self.sampling.batch_size, self.sampling
        if asked.balance:
            labels = self._true if self.labels is None else self.labels
            return Balanced(labels=labels, balance=asked.balance, seed=seed, batch_size=size)
        if asked.batch_tokens is None:
            return Shuffled(count=self.store.count("train"), seed=seed, batch_size=size)
        if (longest := int(self.lengths.max())) > asked.batch_tokens:
            raise UserError(
                f"data.batch_tokens={asked.batch_tokens} is fewer than the {longest} {self._units} of the longest row "
                "of train: give at least as many, or a smaller data.context"
            )
        return Bucketed(lengths=self.lengths, batch_tokens=asked.batch_tokens, seed=seed, batch_size=size)

    @property
    def _units(self) -> str:
        """The things whose number is the length of a row."""
        return "frames" if "frames" in self.task.columns.values() else "tokens"

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[N]: tokens of each row before any change, those of all of its texts together, or frames. Of a source and a
        target, which are padded apart, twice those of the longer one, so that no step is larger."""
        sides = self.sides.shape[1]
        return np.asarray(sides * self.sides.max(axis=1), dtype=np.int64)

    @cached_property
    def sides(self) -> NDArray[np.int64]:
        """[N, 1]: tokens of each row; or [N, 2], those of its source and of its target."""
        columns = self.store.columns["train"]
        found = {name: columns[name].lengths() for name, kind in self.task.columns.items() if kind in INPUTS}
        target = [lengths - 1 for name, lengths in found.items() if name in self.task.predicted]  # the last is no input
        source = [lengths for name, lengths in found.items() if name not in self.task.predicted]
        return np.stack([sum(side) for side in (source, target) if side], axis=1).astype(np.int64)

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """[N]: the classes that train has after label noise; None without it."""
        if not self.augmentation.label_noise or self.target is None:
            return None
        asked = self.augmentation.label_noise_seed
        return noisy_labels(
            self._true,
            self.store.hashes["train"],
            self.store.meta["num_classes"],
            share=self.augmentation.label_noise,
            kind=self.augmentation.label_noise_kind,
            seed=self.seed if asked is None else asked,
        )

    @property
    def _true(self) -> NDArray[np.int64]:
        assert self.target is not None
        return np.asarray(self.store.columns["train"][self.target].values)

    @cached_property
    def reworded(self) -> int:
        """The number of rows whose text has paraphrases."""
        if self.paraphrases is None:
            return 0
        texts = self.store.columns["train"][self.augmentation.text_column(self.read)]
        return sum(bool(self.paraphrases.of(texts[row].tolist())) for row in range(self.store.count("train")))  # type: ignore[union-attr]

    def flipped(self) -> int | None:
        """The number of rows whose label is not the true one; None without label noise."""
        return None if self.labels is None else int((self.labels != self._true).sum())

    def class_counts(self) -> list[int] | None:
        """How often each class, or token, is a target, after label noise; None where that is not known."""
        if predicted := self.task.predicted:
            return np.sum([self.store.token_counts(name) for name in predicted], axis=0).tolist()  # type: ignore[no-any-return]
        if self.labels is None:
            counts: list[int] | None = self.store.meta["class_counts"]
            return counts
        found: list[int] = np.bincount(self.labels, minlength=self.store.meta["num_classes"]).tolist()
        return found

    def batch(self, step: int, share: Share) -> Batch:
        """The rows of a share of an optimizer step; a row of weight 0 where the step has fewer rows than shares."""
        places = self.order.places(step, share)
        shown = places or range(places.start, places.start + 1)
        rows = self.order.rows(shown)
        examples = [self.example(row, place) for row, place in zip(rows, shown, strict=True)]
        if self.augmentation.mixup:
            own, partners = self._partners(step, shown)
            batch = mix(self.task.collate([*examples, *partners]), own)
        else:
            batch = self.draws(self.task.collate(examples), f"train/{self.seed}", np.array(shown))
        return batch if places else without_weight(batch)

    def _partners(self, step: int, places: range) -> tuple[float, list[Any]]:
        """λ of a step, and the example with which that at each place is mixed: one of the same step, wherever a rank
        or micro-batch has it, so that their number changes nothing."""
        whole = self.order.places(step, Share())
        draws = self.changes.generator(1, step)
        own = float(draws.beta(self.augmentation.mixup, self.augmentation.mixup))
        partner = draws.permutation(len(whole))
        at = [whole[int(partner[place - whole.start])] for place in places]
        return own, [self.example(self.order.rows(range(i, i + 1))[0], i) for i in at]

    def example(self, row: int, place: int) -> Any:
        """The task's example of a row at a place of the endless order of train."""
        cells: dict[str, Any] = self.store.row("train", row)
        if self.labels is not None and self.target is not None:
            cells[self.target] = int(self.labels[row])
        return self.task.example(self.changes(cells, place))

    def summary(self) -> dict[str, Any]:
        """The changes, for the record; empty where there are none."""
        found: dict[str, Any] = {}
        if settings := self.augmentation.settings():
            flipped, count = self.flipped(), self.store.count("train")
            found["augment"] = (
                settings
                | ({"reworded": self.reworded} if self.paraphrases else {})
                | ({} if flipped is None else {"flipped": flipped, "flipped_share": flipped / count})
            )
        if isinstance(self.order, Bucketed):
            found["batch_tokens"] = self._steps()
        return found

    def _steps(self) -> dict[str, float]:
        """Facts of the first pass over steps of similar length, beside those of steps of as many rows at random."""
        assert isinstance(self.order, Bucketed)
        steps = [self.order.rows(self.order.places(step, Share())) for step in range(self.order.steps)]
        size = round(self.order.samples_per_step)
        shuffled = Shuffled(count=self.order.count, seed=self.seed, batch_size=size)
        plain = [shuffled.rows(range(i, min(i + size, self.order.count))) for i in range(0, self.order.count, size)]
        return {
            "steps_in_a_pass": self.order.steps,
            "fewest_rows": min(map(len, steps)),
            "most_rows": max(map(len, steps)),
            "padding": padding(self.sides, steps),
            "padding_at_random": padding(self.sides, plain),
        }

    def told(self) -> Iterator[str]:
        """Lines for people; none where nothing is changed."""
        settings = self.augmentation.settings()
        drawn = {name: value for name, value in settings.items() if not name.startswith("label_noise")}
        if drawn:
            yield f"change {' · '.join(f'{name} {value}' for name, value in drawn.items())} (train alone)"
        if self.paraphrases is not None:
            yield f"       {self.reworded:,} of {self.store.count('train'):,} texts of train have paraphrases"
        if isinstance(self.order, Bucketed):
            found = self._steps()
            yield (
                f"steps  of {self.order.samples_per_step:.1f} rows ({found['fewest_rows']} to {found['most_rows']}), "
                f"at most {self.sampling.batch_tokens:,} {self._units}; {self.order.steps:,} a pass; "
                f"{found['padding']:.1%} of the {self._units} are padding, at random {found['padding_at_random']:.1%}"
            )
        if isinstance(self.order, Balanced):
            least, most = self.order.quotas.min(), self.order.quotas.max()
            times = f"{least:,.1f}" if least == most else f"{least:,.1f} to {most:,.1f}"
            yield f"draws  balance {self.sampling.balance:g}: a class is drawn {times} times a pass"
        flipped = self.flipped()
        if flipped is not None:
            count, classes = self.store.count("train"), self.store.meta["num_classes"]
            to = f"one of the {classes - 1:,} other classes" if classes > 2 else "the other class"
            if self.augmentation.label_noise_kind == "pair":
                to = "the next class"
            yield (
                f"noise  {flipped:,} of {count:,} labels of train ({flipped / count:.1%}) are flipped to {to}; val and "
                "test keep theirs"
            )


def without_weight(batch: Batch) -> Batch:
    """The batch with weights of 0."""
    extras = dict(batch.extras)
    if MIXED_WEIGHT in extras:
        extras[MIXED_WEIGHT] = torch.zeros_like(extras[MIXED_WEIGHT])
    return batch._replace(weight=torch.zeros_like(batch.weight), extras=extras)
