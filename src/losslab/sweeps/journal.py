"""The journal of a sweep's folder, in which Optuna keeps the studies of a search. Optuna is imported when it is needed.
Only what Optuna 4 and 5 both have is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from losslab.config.search import StudySpace
from losslab.config.words import bare
from losslab.errors import UserError
from losslab.metric import Metric
from losslab.sweeps.settings import SearchSettings
from losslab.sweeps.study import Study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "tuning.journal"
"""The file of all studies of a sweep, in its folder."""
_ABOUT = "losslab"
"""The key of a study's attributes under which its search stands."""


def check_optuna() -> None:
    """Raises UserError where Optuna is missing."""
    if find_spec("optuna") is None:
        raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'losslab[tune]'")


@dataclass(frozen=True)
class About:
    """Description of a study. It is found again by `fixed`, and must agree in all else."""

    fixed: dict[str, Any]
    """The settings of its runs: dotted key → value, without the seed and what is searched."""
    searched: dict[str, str]
    """Dotted key → its values, as typed."""
    seeds: list[int]
    metric: str
    sampler: str
    pruner: str
    startup_trials: int
    seed: int
    """The sampler's."""

    @classmethod
    def of(
        cls, fixed: dict[str, Any], space: StudySpace, seeds: list[int], metric: str, settings: SearchSettings
    ) -> About:
        searched = {bare(one.key): one.text for one in space.dimensions}
        own = {key: value for key, value in asdict(settings).items() if key != "n_trials"}
        return cls(fixed=fixed, searched=searched, seeds=sorted(seeds), metric=metric, **own)

    def differences(self, earlier: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Name, earlier and present value of everything that differs from an earlier start of the study."""
        own = asdict(self)
        for key in sorted(self.searched.keys() | earlier["searched"].keys()):
            yield key, earlier["searched"].get(key, "one value"), self.searched.get(key, "one value")
        names = {"seeds": "the seeds", "metric": "the metric"}
        for key in (key for key in own if key not in ("fixed", "searched")):
            yield names.get(key, f"hydra.sweeper.{key}"), earlier.get(key), own[key]

    def is_of(self, earlier: dict[str, Any]) -> bool:
        """Whether an earlier study fixed the same, in all that neither of them searches."""
        free = self.searched.keys() | earlier["searched"].keys()
        fixed = [
            {key: value for key, value in own.items() if key not in free} for own in (self.fixed, earlier["fixed"])
        ]
        return fixed[0] == fixed[1]


class _Lock:
    """A lock of Optuna's journal that the kernel frees when its process is killed."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class Journal:
    """The studies of a sweep's folder.

    Raises:
        UserError: where the journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / JOURNAL
        lock: Any = _Lock(folder / f".{JOURNAL}.lock")
        lock.acquire()
        try:
            _mend(self.path)
        finally:
            lock.release()
        try:
            self.storage: BaseStorage = JournalStorage(JournalFileBackend(str(self.path), lock_obj=lock))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} cannot be read ({error}); move it away to search again") from None
        self.asking = FileLock(folder / f".{JOURNAL}.asking")
        """Held while a trial is drawn: commands that share the folder share the budget."""

    def open(self, label: str, about: About, space: StudySpace, primary: Metric, settings: SearchSettings) -> Study:
        """The study of this search, made where there is none.

        Args:
            label: the loss, for its name.

        Raises:
            UserError: where it was begun as another search.
        """
        with self.asking:
            name = self._name(label, about)
            study = self._load(name, primary)
            if _ABOUT not in study.user_attrs:
                study.set_user_attr(_ABOUT, asdict(about))
        for key, earlier, present in about.differences(study.user_attrs[_ABOUT]):
            if earlier != present:
                raise UserError(
                    f"study {name} in {self.path.parent} was begun with {key}={_said(earlier)}, and this command says "
                    f"{_said(present)}: put it back, or give the other search a name=… of its own"
                )
        return Study(study, self.asking, space, settings)

    def _name(self, label: str, about: About) -> str:
        import optuna

        for name in optuna.study.get_all_study_names(self.storage):
            study = optuna.load_study(study_name=name, storage=self.storage)
            if _ABOUT in study.user_attrs and about.is_of(study.user_attrs[_ABOUT]):
                return str(name)
        digest = hashlib.sha256(json.dumps(about.fixed, sort_keys=True, default=str).encode()).hexdigest()
        return f"{label}-{digest[:6]}"

    def _load(self, name: str, primary: Metric) -> Any:
        import optuna

        return optuna.create_study(
            study_name=name,
            storage=self.storage,
            direction="maximize" if primary.higher_is_better else "minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),  # not asked: every trial is drawn before it is made
            load_if_exists=True,
        )


def _mend(path: Path) -> None:
    """Cut off the end of a line that a full disk or a kill left half written; the rest would not be read."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
