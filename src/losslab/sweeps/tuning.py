"""A multirun that searches: hydra/sweeper=optuna, between Hydra and the local launcher. No torch here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.identity import loss_label
from losslab.config.search import StudySpace, with_hint
from losslab.config.words import bare
from losslab.console import complain, note, say
from losslab.errors import UserError
from losslab.run_folder import RunFolder, runs_of_sweep
from losslab.sweeps import job
from losslab.sweeps.followed_run import Run
from losslab.sweeps.journal import About, Journal
from losslab.sweeps.local import Sweep
from losslab.sweeps.multirun import REFUSED, Checked, Multirun, open_runs, summarise
from losslab.sweeps.plan import Job, Looked, Plan, Survey
from losslab.sweeps.search import Search
from losslab.sweeps.settings import LocalSettings, SearchSettings
from losslab.sweeps.slots import Sharing
from losslab.sweeps.study import Drawn, Study


class Tuning(Multirun):
    """Several studies with equal budgets, whose trials are runs of one sweep.

    Args:
        jobs: samples of everything that may be drawn, by their overrides.
        spaces: of the studies.
        settings: the keys of hydra.sweeper.
        of_hydra: overrides of Hydra's own keys.
        config_dir, check_interrupts, typed: see `Multirun`.
    """

    def __init__(
        self,
        jobs: dict[tuple[str, ...], Checked],
        spaces: list[StudySpace],
        settings: SearchSettings,
        of_hydra: list[str],
        config_dir: Path | None,
        check_interrupts: Callable[[], None],
        typed: list[str],
        on_mistake: Callable[[str], None] = complain,
    ) -> None:
        super().__init__(jobs, config_dir, _refuse_here, check_interrupts, typed, on_mistake)
        self._spaces = spaces
        self._settings = settings
        self._of_hydra = of_hydra
        self._names = _labels(spaces, [jobs[tuple(space.samples()[0])][1] for space in spaces])
        """Words that distinguish each study, for people."""

    @property
    def jobs(self) -> list[tuple[str, ...]]:
        """A sample of each study: what Hydra has the launcher run."""
        return [tuple(space.samples()[0]) for space in self._spaces]

    def launch(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """The whole search on this machine; returns what became of each study."""
        local = LocalSettings.of(settings)
        samples = [self._list_jobs(space.samples()) for space in self._spaces]
        most = sum(self._settings.n_trials * len(space.seeds) for space in self._spaces)
        survey: Survey = self._ask(job.make_survey, samples, local.slots, most)
        self._check_interrupts()
        self.launched = True
        for mistake in survey.mistakes:
            self._on_mistake(with_hint(mistake, self._spaces))
        if survey.mistakes or survey.sharing is None:
            self.statuses.append(REFUSED)
            return [REFUSED] * len(job_overrides)
        studies = self._open_studies(survey.studies)
        self._introduce(survey, studies)
        search = Search(studies, survey.studies[0].primary, self._opener(studies, survey.sharing))
        sweep = Sweep(search, survey.studies[0].folder, survey.sharing.slots, local)
        self.stopped = sweep.work()
        self._report(search, sweep, survey.studies[0])
        self.folders = _runs_of(survey.studies[0].folder, {study.name for study in studies})
        failed = {study.name for study in studies if {"failed", REFUSED} & set(study.statuses())}
        return ["failed" if study.name in failed else "completed" for study in studies]

    def _open_studies(self, looked: list[Looked]) -> list[Study]:
        if len({(one.primary.name, one.folder) for one in looked}) > 1:
            raise UserError("a search has one name=… and one task: start one command for each")
        journal = Journal(looked[0].folder)
        studies = []
        for space, one in zip(self._spaces, looked, strict=True):
            seeds = [self._jobs[tuple(space.samples()[0])][0]["seed"]]
            if space.seeds != ("",):
                seeds = [int(word.partition("=")[2]) for word in space.seeds]
            free = {bare(dimension.key) for dimension in space.dimensions} | {"seed"}
            settings = {key: value for key, value in one.settings.items() if key not in free}
            fixed = json.loads(json.dumps(settings, default=str))
            about = About.of(fixed, space, seeds, one.primary.name, self._settings)
            label = loss_label(self._jobs[tuple(space.samples()[0])][1])
            studies.append(journal.open(label, about, space, one.primary, self._settings))
        return studies

    def _opener(self, studies: list[Study], sharing: Sharing) -> Callable[[Study, Drawn, str, int], Run | str]:
        names = dict(zip((study.name for study in studies), self._names, strict=True))

        def open_run(study: Study, drawn: Drawn, seed: str, number: int) -> Run | str:
            overrides = study.space.job(drawn.values, seed)
            seeds = f" {seed}" if len(study.space.seeds) > 1 else ""
            label = f"{names[study.name]} trial {drawn.number}: {describe(study, drawn)}{seeds}"
            trial = {"study": study.name, "number": drawn.number}
            trial |= {"searched": [bare(one.key) for one in study.space.dimensions]}
            try:
                config, choices = compose_job([*self._of_hydra, *overrides], self._config_dir)
                wanted = Job(check_run(config), self._defaults_of(overrides), choices, overrides, label, trial)
            except UserError as error:
                return f"{label}: {error}"
            plan: Plan = self._ask(job.plan_one, wanted, number, sharing.each)
            if plan.mistakes:
                return f"{label}: {plan.mistakes[0]}"
            (run,) = open_runs(plan, sharing)
            return run

        return open_run

    def _introduce(self, survey: Survey, studies: list[Study]) -> None:
        for text in survey.texts:
            say(f"data: {text}")
        for study, name in zip(studies, self._names, strict=True):
            if study.budget < self._settings.n_trials:
                note(f"{name} has {_counted(study.budget, 'setting')}, so that its study is no larger")
        seeds = max(len(study.space.seeds) for study in studies)
        done = sum(len(study.ended()) for study in studies)
        total = sum(study.budget for study in studies)
        text = (
            f"{_counted(total, 'trial')} in {_counted(len(studies), 'study', 'studies')} in {survey.studies[0].folder}"
        )
        text += f", each the mean of {seeds} seeds" if seeds > 1 else ""
        text += f", {done} of them done" if done else ""
        if done < total and survey.sharing is not None:
            text += f"; {survey.sharing.slots_text()}"
        say(text)

    def _report(self, search: Search, sweep: Sweep, looked: Looked) -> None:
        """Say what this command has trained, and how each study stands."""
        self.statuses = [run.status for run in sweep.runs] + [REFUSED] * len(search.refused)
        if self.statuses:
            summarise(self.statuses)
        for study, name in zip(search.studies, self._names, strict=True):
            counts = Counter(study.statuses())
            shares = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
            text = f"study {study.name} ({name}): {sum(counts.values())} of {_counted(study.budget, 'trial')}: {shares}"
            if (best := study.best()) is not None:
                value, drawn = best
                text += f"; best val/{looked.primary.name} {value:.4f}, trial {drawn.number}"
                text += f": {setting}" if (setting := describe(study, drawn)) else ""
            say(text)
            if spent := counts["failed"] + counts[REFUSED]:
                note(f"{name}: {_counted(spent, 'trial')} of its budget failed, and no other comes instead")


def _runs_of(folder: Path, studies: set[str]) -> list[RunFolder]:
    """The runs of these studies, in the order of their trials."""
    found = []
    for run in runs_of_sweep(folder):
        with suppress(UserError):  # a damaged record is reported where it is in the way
            trial = run.record().trial
            if trial and trial["study"] in studies:
                found.append((trial["study"], trial["number"], run))
    return [run for *_, run in sorted(found)]


def describe(study: Study, drawn: Drawn) -> str:
    """`optimizer.lr=0.003 loss.gamma=2`."""
    return " ".join(f"{bare(one.key)}={value}" for one, value in zip(study.space.dimensions, drawn.values, strict=True))


def _labels(spaces: list[StudySpace], choices: list[dict[str, str]]) -> list[str]:
    """The words that not all studies have; of a single study its loss."""
    common = set(spaces[0].fixed).intersection(*(space.fixed for space in spaces))
    own = [" ".join(word for word in space.fixed if word not in common) for space in spaces]
    return [text or f"loss={choice['loss']}" for text, choice in zip(own, choices, strict=True)]


def _counted(number: int, name: str, plural: str = "") -> str:
    return f"{number} {name if number == 1 else plural or f'{name}s'}"


def _refuse_here(*_: Any) -> str:
    raise UserError("hydra/sweeper=optuna works with hydra/launcher=local")
