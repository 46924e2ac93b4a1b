"""The sources of a split that a run was made from, row by row as its files have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from losslab.config.stored import moved_inputs, open_config, with_inputs_of
from losslab.data.row_source import RowSource
from losslab.data.rows import RowsDataModule
from losslab.data.splits import SPLITS
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.factory import build_data, hash_inputs
from losslab.training.scoring.loading import Loaded


@dataclass(frozen=True)
class OwnSources:
    """The rows of a split, those too that training left out.

    A source is named by its column in the files, and so is the target.
    """

    rows: RowSource
    split: str
    source: str
    target: str
    hashes: dict[str, str]
    """SHA-256 of the data's files by key."""

    def __iter__(self) -> Iterator[str]:
        for place, cells in self.rows.rows(self.split, [self.source], Counter()):
            text = cells[self.source]
            if not isinstance(text, str):
                raise UserError(f"{place} cannot be used: its {self.source} must be text, not {text!r}")
            yield text

    @property
    def by_line(self) -> bool:
        """Whether a file with a line for each row goes with the file of the sources."""
        return self.rows.by_line and len(self.rows.columns(self.split)) == 1


def own_sources(run: RunFolder, record: Record, loaded: Loaded, split: str, trust: list[str]) -> OwnSources:
    """The sources of a split of its own.

    Args:
        trust: the classes outside losslab that the configuration may name.

    Raises:
        UserError: for a split that is a part of another's files, data of another kind, and files that are not there or
            have changed.
    """
    if split not in SPLITS:
        raise UserError(f"--split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, not {split}")
    config = with_inputs_of(open_config(run.config(), trust, run.config_file), loaded.config)
    config = moved_inputs(config, run.path, record.provenance.get("folder"), [])
    data, task = build_data(config), loaded.network.task
    if not isinstance(data, RowsDataModule):
        read_by = config["data"]["_target_"]
        raise UserError(f"--split is for runs on rows, such as those of data=pairs; {read_by} made this run's samples")
    hashes = hash_inputs(config, data)
    if (found := next(value for key, value in hashes.items() if key.startswith("data."))) != record.hashes.get("data"):
        raise UserError(
            f"--split {split}: the data has changed since {run} was trained ({found[:12]}… instead of "
            f"{str(record.hashes.get('data'))[:12]}…): bring its files back, or translate a file: losslab translate "
            "RUN_DIR FILE"
        )
    there = data.source.splits()
    if split not in there or (split == "train" and len(there) < len(SPLITS)):
        dealt = " and ".join(name for name in SPLITS if name not in there)
        raise UserError(
            f"--split {split}: {dealt} of this run were taken out of the files of train, and would be translated with "
            "them: train the teacher on data with files of their own for val and test, or translate a file: losslab "
            "translate RUN_DIR FILE"
        )
    names = data.reading.of(task.columns)
    (source,) = (name for name in task.columns if name not in task.predicted)
    return OwnSources(data.source, split, names[source], names[task.predicted[0]], hashes)
