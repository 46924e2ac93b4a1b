"""A run's folder as one object: its paths, configuration, record and lock. No torch here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab import locks, records
from losslab.errors import UserError
from losslab.records import SHORT, Record

CACHE = ".cache"
"""The folder of tokens, beside the sweeps."""
CHECKPOINTS = "checkpoints"
SEQUENTIAL = "sequential.json"
"""The file of a sweep that adds seeds until it can decide, beside its runs."""


@dataclass(frozen=True, order=True)
class RunFolder:
    """The folder of one run, which may be yet to be made. It is equal to, and sorts as, its path.

    Reading its record or configuration raises UserError when that is missing or damaged.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def sweep(self) -> Path:
        """The folder of the runs that it belongs to."""
        return self.path.parent

    @property
    def shared_cache(self) -> Path:
        """The tokens of all runs below the same output folder."""
        return self.path.absolute().parent.parent / CACHE

    @property
    def own_cache(self) -> Path:
        """The tokens of a run that was moved away from the others."""
        return self.path / CACHE

    def absolute(self) -> RunFolder:
        return RunFolder(self.path.absolute())

    # Its files.

    @property
    def record_file(self) -> Path:
        return self.path / records.FILE

    @property
    def config_file(self) -> Path:
        return self.path / records.CONFIG

    @property
    def metrics(self) -> Path:
        """A row a logged optimizer step, CSV."""
        return self.path / "metrics.csv"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def scores(self) -> Path:
        """The scores of the best weights on test, for the comparison.

        `unit`: sample, document or window; `units`, float32 [1 + M, U]: of each of them the weight, and the sums of M
        metrics; `unit_metrics`, [M]: their names (without it nll_scaled, nll, top1). Where predictions are
        probabilities, `reliability`, [2, 3, 15]: before and after scaling, of each equal-mass group of confidence the
        weight, and the sums of hits and confidence. Metrics of a whole corpus (bleu, chrf) have `METRIC_counts`,
        [K, U]: what is added up over units for them. Tasks add arrays of their own (`Meter.arrays`).
        """
        return self.path / "test_scores.npz"

    @property
    def evaluations(self) -> Path:
        """Results of `losslab evaluate`: a line for each evaluation, JSON."""
        return self.path / "evaluations.jsonl"

    @property
    def profile(self) -> Path:
        """The folder of a profiler's reports."""
        return self.path / "profile"

    @property
    def job(self) -> Path:
        """The job of a cluster that the run was last submitted as."""
        return self.path / "job.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def stable(self) -> Path:
        """The checkpoint before a schedule's decay, from which a longer run continues."""
        return self.checkpoints / "stable.ckpt"

    @property
    def stable_best(self) -> Path:
        """The best checkpoint up to `stable`, where that is an earlier one."""
        return self.checkpoints / "stable-best.ckpt"

    def checkpoint_files(self) -> list[Path]:
        """Every checkpoint that there is, by name."""
        return sorted(self.checkpoints.glob("*.ckpt"))

    def has_checkpoint(self) -> bool:
        """Whether the run has a checkpoint of its own, and so needs nothing of one that it continues."""
        return bool(self.checkpoint_files())

    # Content of the folder.

    def exists(self) -> bool:
        """Whether this is the folder of a run: whether it has a record."""
        return self.record_file.is_file()

    def record(self) -> Record:
        return records.read(self.path)

    def config(self) -> dict[str, Any]:
        return records.read_config(self.path)

    def write(self, record: Record) -> None:
        record.write(self.path)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration beside the record."""
        records.write_config(self.path, config)

    def refuse_links(self) -> None:
        """Refuse a folder in which something is a symbolic link: losslab makes none, and what is written to or removed
        from a folder that somebody sent must not reach outside it."""
        for path in (*self.path.iterdir(), *self.checkpoints.glob("*")) if self.path.is_dir() else ():
            if path.is_symlink():
                raise UserError(
                    f"{path} is a symbolic link, which losslab never makes: refused; put a copy in its place"
                )

    # Its lock.

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run. Raises Held when another process does."""
        return locks.lock(self.path)

    def is_locked(self) -> bool:
        """Whether a living process holds this run."""
        return locks.is_locked(self.path)


def find_runs(folder: Path) -> list[RunFolder]:
    """The runs directly below `folder`, or the one that `folder` itself is, by name."""
    if RunFolder(folder).exists():
        return [RunFolder(folder)]
    return sorted(RunFolder(path.parent) for path in folder.glob(f"*/{records.FILE}"))


def runs_of_sweep(folder: Path) -> list[RunFolder]:
    """The runs directly below `folder`, by name; none where it is not there, or is itself a run's."""
    return [] if RunFolder(folder).exists() else find_runs(folder)


def how_to_repeat(sweep: Path) -> str:
    """The way to train runs in the folder of a sweep again, with the code of now."""
    if (sweep / SEQUENTIAL).is_file():
        return "seed=auto goes on with what is there, and its command with another name=… trains all of it again"
    return "fresh=true trains it again"


def find_identity(folder: Path, identity: str) -> list[RunFolder]:
    """Runs below `folder` with this identity, oldest first: the run, then its repetitions -2, -3, …"""
    named = (RunFolder(path) for path in folder.glob(f"*-{identity[:SHORT]}*"))
    found = [run for run in named if run.exists() and run.record().identity == identity]
    return sorted(found, key=lambda run: (len(run.name), run))
