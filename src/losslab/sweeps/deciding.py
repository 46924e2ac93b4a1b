"""A multirun that adds seeds until every loss is decided: seed=auto, between Hydra and the local launcher. No torch
here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from losslab.config.auto_seeds import AutoSeeds
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.flags import debug_of
from losslab.config.identity import loss_label
from losslab.config.nearest import nearest
from losslab.config.streams import SEEDS
from losslab.config.words import bare
from losslab.console import complain, say
from losslab.errors import UserError
from losslab.pairing import MUST_MATCH, OF_LOSS
from losslab.run_folder import how_to_repeat
from losslab.sequential.ledger import Ledger, Terms
from losslab.sequential.rule import Rule
from losslab.sequential.told import told_standing, told_terms
from losslab.sweeps import job
from losslab.sweeps.followed_run import Run, failure_line
from losslab.sweeps.local import Sweep
from losslab.sweeps.multirun import REFUSED, Checked, Multirun, open_runs, summarise
from losslab.sweeps.plan import Job, Looked, Plan, Survey
from losslab.sweeps.sequential import Sequential
from losslab.sweeps.settings import LocalSettings
from losslab.sweeps.slots import Sharing

_BASELINE = "cross_entropy"
"""The baseline of `losslab compare`."""
_LEVEL = 0.05
_ALIKE = (*MUST_MATCH, "model.")
"""Keys in which losses that are decided against one baseline do not differ."""


class Deciding(Multirun):
    """Losses beside a baseline, to whose runs seeds are added until each is better, worse or equivalent.

    Args:
        jobs: the first seed of each loss, by its overrides, of which the last sets the seed.
        rule: as it was typed.
        of_hydra: overrides of Hydra's own keys.
        config_dir, check_interrupts, typed, on_mistake: see `Multirun`.

    Raises:
        UserError: for what such a sweep cannot hold.
    """

    def __init__(
        self,
        jobs: dict[tuple[str, ...], Checked],
        rule: AutoSeeds,
        of_hydra: list[str],
        config_dir: Path | None,
        check_interrupts: Callable[[], None],
        typed: list[str],
        on_mistake: Callable[[str], None] = complain,
    ) -> None:
        super().__init__(jobs, config_dir, _refuse_here, check_interrupts, typed, on_mistake)
        self._rule = rule
        self._of_hydra = of_hydra
        _check([config for config, _ in jobs.values()])
        _refuse_streams([*(config for config, _ in jobs.values()), *self._of_another_seed()])
        self._labels = name_losses(list(jobs), [choices for _, choices in jobs.values()])
        self._baseline = choose_baseline(rule.baseline, self._labels)
        Rule(margin=rule.margin, max_seeds=rule.max_seeds, losses=len(jobs) - 1, level=_LEVEL)  # refuses what is none

    def _of_another_seed(self) -> Iterator[dict[str, Any]]:
        """The configurations of the losses under another seed than the first."""
        for words in self.jobs:
            other = [*self._of_hydra, *words[:-1], f"seed={self._rule.first_seed + 1}"]
            yield check_run(compose_job(other, self._config_dir)[0])

    def launch(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """The whole sweep on this machine; returns what became of each loss."""
        local = LocalSettings.of(settings)
        firsts = [[one] for one in self._list_jobs(job_overrides)]
        survey: Survey = self._ask(job.make_survey, firsts, local.slots, len(firsts) * self._rule.max_seeds)
        self._check_interrupts()
        self.launched = True
        for mistake in survey.mistakes:
            self._on_mistake(mistake)
        if survey.mistakes or survey.sharing is None:
            self.statuses.append(REFUSED)
            return [REFUSED] * len(job_overrides)
        ledger = Ledger.open(survey.studies[0].folder, self._terms(survey.studies, survey.sharing))
        source = Sequential(ledger, self._opener(ledger.terms, survey.sharing))
        _introduce(source, survey)
        sweep = Sweep(source, ledger.folder, survey.sharing.slots, local)
        self.stopped = sweep.work()
        source.tidy()
        self._report(source, sweep)
        self.folders = [folder for *_, folder in ledger.found()]
        return ["failed" if label in source.stuck else "completed" for label in self._labels]

    def _terms(self, looked: list[Looked], sharing: Sharing) -> Terms:
        if len({(one.primary.name, one.folder) for one in looked}) > 1:
            raise UserError("seed=auto decides losses of one name=… and one task: start one command for each")
        losses = {
            label: {key: value for key, value in one.settings.items() if key != "seed"}
            for label, one in zip(self._labels, looked, strict=True)
        }
        check_losses(losses)
        return Terms(
            metric=f"test/{looked[0].primary.name}",
            higher_is_better=bool(looked[0].primary.higher_is_better),
            margin=self._rule.margin,
            level=_LEVEL,
            max_seeds=self._rule.max_seeds,
            first_seed=self._rule.first_seed,
            baseline=self._baseline,
            losses=losses,
            threads=sharing.each,
        )

    def _opener(self, terms: Terms, sharing: Sharing) -> Callable[[str, int, int], Run | str]:
        own = dict(zip(self._labels, self.jobs, strict=True))

        def open_run(label: str, seed: int, number: int) -> Run | str:
            overrides, name = [*own[label][:-1], f"seed={seed}"], f"{label} seed={seed}"
            try:
                config, choices = compose_job([*self._of_hydra, *overrides], self._config_dir)
                wanted = Job(check_run(config), self._defaults_of(overrides), choices, overrides, name)
            except UserError as error:
                return f"{name}: {error}"
            plan: Plan = self._ask(job.plan_one, wanted, number, terms.threads)
            if plan.mistakes:
                return f"{name}: {plan.mistakes[0]}"
            (run,) = open_runs(plan, sharing)
            return run

        return open_run

    def _report(self, source: Sequential, sweep: Sweep) -> None:
        """Say what this command has trained, and how each loss stands."""
        self.statuses = [run.status for run in sweep.runs] + [REFUSED] * len(source.refused)
        if self.statuses:
            summarise(self.statuses)
        for run in sweep.runs:
            if run.status in ("failed", "diverged"):
                complain(failure_line(run, source.expected))
        if "failed" in self.statuses and not self.stopped:
            say("the same command tries failed runs again, from their last checkpoint")
        for label, one in source.standings.items():
            waits = "" if self.stopped else source.waits_for(label)
            say(told_standing(label, one, source.terms) + (f"; it {waits}" if waits else ""))
        if not self.stopped and not source.stuck:
            say(f"the table, with the same verdicts: losslab compare {source.ledger.folder}")


def name_losses(jobs: list[tuple[str, ...]], choices: list[dict[str, str]]) -> list[str]:
    """The label of each loss, as `losslab compare` writes them: its name, and the options in which it differs from
    others of that name."""
    names = [loss_label(choice) for choice in choices]
    labels = []
    for name, words in zip(names, jobs, strict=True):
        same = [set(other) for other, of in zip(jobs, names, strict=True) if of == name]
        own = [word for word in words if word not in set.intersection(*same) and bare(word).startswith(OF_LOSS)]
        labels.append(" ".join([name, *(bare(word).partition(".")[2] for word in own)]))
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(
                f"seed=auto decides between losses, and several of these runs are {label}: give each loss one setting, "
                "which is chosen before (docs/tuning.md), or one of its own with zip=[loss,KEY]"
            )
    if len(labels) < 2:
        raise UserError(f"seed=auto decides between losses, and {labels[0]} is alone: list others, loss={labels[0]},…")
    return labels


def choose_baseline(asked: str, labels: list[str]) -> str:
    """The label of the baseline: the one that was asked for, cross_entropy, or the first. Raises UserError for one that
    is not there."""
    if not asked:
        return _BASELINE if _BASELINE in labels else labels[0]
    named = [label for label in labels if label == asked] or [
        label for label in labels if label.partition(" ")[0] == asked
    ]
    if len(named) != 1:
        why = (
            f"is the name of several: {', '.join(named)}"
            if named
            else f"is none of these losses: {nearest(asked, labels)}"
        )
        raise UserError(f"baseline={asked} {why}")
    return named[0]


def check_losses(losses: dict[str, dict[str, Any]]) -> None:
    """Raises UserError for losses that are the same, and for such as no single baseline serves.

    Args:
        losses: label → dotted key → value, of what decides results.
    """
    (first, reference), *_ = losses.items()
    seen: dict[str, str] = {}
    for label, settings in losses.items():
        own = {key: value for key, value in settings.items() if key.startswith(OF_LOSS)}
        other = seen.setdefault(json.dumps(own, sort_keys=True, default=str), label)
        if other != label:
            raise UserError(f"{other} and {label} are the same loss: leave one out")
        for key in sorted(reference.keys() | settings.keys()):
            if key.startswith(_ALIKE) and reference.get(key) != settings.get(key):
                raise UserError(f"{first} and {label} differ in {key}, so that they answer different questions")


def _check(configs: list[dict[str, Any]]) -> None:
    """Refuse keys under which seeds cannot be added."""
    for config in configs:
        if config["fresh"]:
            raise UserError(
                "fresh=true repeats runs, and seed=auto continues them: leave it out; another name=… trains the whole "
                "sweep again"
            )
        for key, value in debug_of(config).items():
            raise UserError(f"{key}={value} makes debug runs, which decide nothing: leave it out of seed=auto")


def _refuse_streams(configs: list[dict[str, Any]]) -> None:
    """Refuse seeds of single streams, which would be the same for every seed.

    Args:
        configs: of two seeds, because a stream's seed that is the run's anyway is none of its own.
    """
    found: dict[str, dict[int, None]] = {}
    for config in configs:
        for key, value in config[SEEDS].items():
            if value is not None:
                found.setdefault(f"{SEEDS}.{key}", {})[value] = None
    for key, values in found.items():
        told = f"{key}={','.join(map(str, sorted(values)))}"
        raise UserError(f"{told} fixes what seed=auto varies: leave it out")


def _introduce(source: Sequential, survey: Survey) -> None:
    for text in survey.texts:
        say(f"data: {text}")
    terms, done = source.terms, source.done
    if survey.changed and not source.is_decided:
        say(
            f"note: the code has changed since {survey.changed[0]} was trained: a seed whose two runs are of unequal "
            f"code is no pair, and is left out; {how_to_repeat(source.ledger.folder)}"
        )
    say(told_terms(terms))
    text = f"at most {source.expected} runs in {source.ledger.folder}"
    text += f", {done} of them done" if done else ""
    if not source.is_decided and survey.sharing is not None:
        text += f"; {replace(survey.sharing, each=terms.threads).slots_text()}"
    say(text)
    for label, one in source.standings.items():
        if one.seeds:
            say(f"so far: {told_standing(label, one, terms)}")


def _refuse_here(*_: Any) -> str:
    raise UserError("seed=auto works with hydra/launcher=local")
