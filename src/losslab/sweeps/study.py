"""A study of Optuna's: what is drawn next, and what became of it. Optuna is imported when it is needed. Only what
Optuna 4 and 5 both have is used."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from losslab.config.search import Dimension, StudySpace
from losslab.config.words import bare
from losslab.errors import UserError
from losslab.sweeps.settings import SearchSettings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

_STATUS = "losslab"
"""The key of a trial's attributes under which its end stands."""
_TRIES = 20
"""Draws that may repeat a trial, before an untried setting is taken from the list of all."""
_MOST_LISTED = 100_000
_VERDICTS = {
    "median": "is worse than the median of the other trials there",
    "halving": "is not among the best quarter of the trials that came so far",
}
Values = tuple[str, ...]
"""A setting: one value for each dimension, as it stands behind the equals sign."""


@dataclass(frozen=True)
class Drawn:
    """A trial of a study that is to run."""

    number: int
    values: Values


class Study:
    """One study, with equal numbers of trials as all others of its search."""

    def __init__(self, study: Any, asking: FileLock, space: StudySpace, settings: SearchSettings) -> None:
        self._study = study
        self._asking = asking
        self.space = space
        self.settings = settings
        self.name: str = study.study_name
        self.budget = min(settings.n_trials, size) if (size := _size(space)) is not None else settings.n_trials
        """Trials; fewer than asked for where there are not so many settings."""
        self._pruner = _pruner(settings)
        self._open: dict[int, Trial] = {}

    @property
    def prunes(self) -> bool:
        return self._pruner is not None

    @property
    def verdict(self) -> str:
        """The end of a sentence on a value that is pruned."""
        return _VERDICTS[self.settings.pruner]

    def trials(self) -> list[FrozenTrial]:
        """All trials that there are, by number."""
        found: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return found

    def ended(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def left_running(self) -> list[Drawn]:
        """Trials that were begun and have not ended, whoever began them."""
        with self._asking, _quiet():
            return [self._drawn(self._trial(one.number)) for one in self.trials() if one.state.name == "RUNNING"]

    def ask(self) -> Drawn | None:
        """The next trial; None where the budget is spent."""
        with self._asking, _quiet():
            trials = self.trials()
            if not any(trial.state.name == "WAITING" for trial in trials):  # which a kill left between the two
                if len(trials) >= self.budget or (values := self._draw(trials)) is None:
                    return None
                self._study.enqueue_trial(self._params(values))
            trial = self._study.ask()
            self._open[trial.number] = trial
            return self._drawn(trial)

    def _drawn(self, trial: Trial) -> Drawn:
        """A trial, whose parameters a kill may have left half written: they stand in what was enqueued."""
        return Drawn(trial.number, tuple(one.spell(_suggest(trial, one)) for one in self.space.dimensions))

    def report(self, number: int, step: int, value: float) -> bool:
        """Note a validation; returns whether it is so bad that the trial ends."""
        trial = self._trial(number)
        with _quiet():
            if step not in self.trials()[number].intermediate_values:
                trial.report(value, step)
            ripe = sum(trial.state.name == "COMPLETE" for trial in self.trials()) >= self.settings.startup_trials
            return self._pruner is not None and ripe and bool(self._pruner.prune(self._study, self.trials()[number]))

    def tell(self, number: int, status: str, value: float | None) -> None:
        """Note how a trial ended. A diverged one counts as the worst there is, so that its surroundings are avoided.

        Args:
            status: completed, diverged, pruned, failed or refused.
            value: of a completed one.
        """
        from optuna.trial import TrialState

        worst = -math.inf if self._study.direction.name == "MAXIMIZE" else math.inf
        with self._asking, _quiet():
            if self.trials()[number].state.is_finished():  # by another command that shares the folder
                return
            self._trial(number).set_user_attr(_STATUS, status)
            if status in ("completed", "diverged"):
                self._study.tell(number, worst if value is None else value)
            else:
                self._study.tell(number, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL)

    def statuses(self) -> list[str]:
        """How each trial stands: as `tell` was given it, or running."""
        return [str(trial.user_attrs.get(_STATUS, "running")) for trial in self.trials()]

    def best(self) -> tuple[float, Drawn] | None:
        """The best completed trial and its value."""
        done = [trial for trial in self.trials() if trial.value is not None and trial.state.name == "COMPLETE"]
        sign = -1.0 if self._study.direction.name == "MAXIMIZE" else 1.0
        found = min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)
        if found is None or found.value is None or not math.isfinite(found.value):
            return None
        return found.value, Drawn(found.number, self._values(found.params))

    def _trial(self, number: int) -> Trial:
        from optuna.trial import Trial

        if number not in self._open:
            with _quiet():
                self._open[number] = Trial(self._study, self.trials()[number]._trial_id)
        return self._open[number]

    def _draw(self, trials: list[FrozenTrial]) -> Values | None:
        """A setting that no trial has had. The draw follows from the sampler's seed, the trial's number and the trials
        before it, and from nothing else: after a kill the same trials come again."""
        import optuna

        tried = {self._values(trial.params) for trial in trials if len(trial.params) == len(self.space.dimensions)}
        if self.settings.sampler != "grid":
            for attempt in range(_TRIES):
                scratch = optuna.create_study(
                    direction=self._study.direction, sampler=_sampler(self.settings, (len(trials), attempt))
                )
                scratch.add_trials([trial for trial in trials if trial.state.name != "WAITING"])
                values = self._values(scratch.ask(self._distributions()).params)
                if values not in tried:
                    return values
        listed = _settings_of(self.space)
        untried = [values for values in listed if values not in tried] if listed is not None else []
        if not untried:
            return None
        if self.settings.sampler == "grid" and listed is not None and self.budget == len(listed):
            return untried[0]
        return random.Random(f"{self.settings.seed} {len(trials)}").choice(untried)

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {bare(one.key): _distribution(one) for one in self.space.dimensions}

    def _values(self, params: dict[str, Any]) -> Values:
        return tuple(one.spell(params[bare(one.key)]) for one in self.space.dimensions if bare(one.key) in params)

    def _params(self, values: Values) -> dict[str, Any]:
        found = zip(self.space.dimensions, values, strict=True)
        return {
            bare(one.key): value if one.is_list else int(value) if one.is_whole else float(value)
            for one, value in found
        }


def _size(space: StudySpace) -> int | None:
    """The number of settings; None where there is no end."""
    if not all(one.values or one.is_whole for one in space.dimensions):
        return None
    return math.prod(len(one.values) or int(one.high - one.low) + 1 for one in space.dimensions)


def _settings_of(space: StudySpace) -> list[Values] | None:
    """All settings, in the order of a grid; None where there is no end, or where they are too many to list."""
    size = _size(space)
    if size is None or size > _MOST_LISTED:
        return None
    whole = [one.values or tuple(map(str, range(int(one.low), int(one.high) + 1))) for one in space.dimensions]
    return list(itertools.product(*whole))


def check_grid(space: StudySpace) -> None:
    """Raises UserError where a grid has no end."""
    for one in space.dimensions:
        if not one.values:
            raise UserError(
                f"hydra.sweeper.sampler=grid takes every value, and {one.key}={one.text} has no end: list them with "
                "choice(…) or range(…)"
            )
    if (size := _size(space)) is not None and size > _MOST_LISTED:
        raise UserError(f"hydra.sweeper.sampler=grid has {size:,} settings; {_MOST_LISTED:,} is the most")


def _suggest(trial: Trial, one: Dimension) -> Any:
    name = bare(one.key)
    if one.is_list:
        return trial.suggest_categorical(name, one.values)
    if one.is_whole:
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return trial.suggest_float(name, float(one.low), float(one.high), log=one.log, step=one.step)


def _distribution(one: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.is_list:
        return CategoricalDistribution(one.values)
    if one.is_whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(float(one.low), float(one.high), log=one.log, step=one.step)


def _sampler(settings: SearchSettings, key: tuple[int, ...]) -> BaseSampler:
    import optuna

    digest = hashlib.sha256(repr((settings.seed, *key)).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.startup_trials, constant_liar=True)


def _pruner(settings: SearchSettings) -> Any:
    if settings.pruner == "none":
        return None
    import optuna

    if settings.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what is experimental in one of its versions, and of a value that a trial reports again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
