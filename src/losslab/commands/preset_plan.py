"""The plan before any run: what was typed is checked as `losslab train` does, and the noise figures plan it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.commands.trusted import append_current_folder
from losslab.comparison.follow_up import train_command
from losslab.comparison.noise_figures import COMMAND, Figure, figures_of, read_figures
from losslab.comparison.plans import PILOT, Plan
from losslab.comparison.preset_plans import Asked, plan_of_figures
from losslab.config import schema
from losslab.config.auto_seeds import is_auto_word
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.identity import NOT_IDENTITY, flatten, without
from losslab.config.jobs import job_overrides, open_multirun
from losslab.config.nearest import nearest
from losslab.config.words import ZIP, bare, ready, split
from losslab.errors import UserError
from losslab.pairing import OF_LOSS

_PLACES = ("name", "output_dir")
_ONE_SETTING = "before any run, a plan has one setting for all losses; a pilot plans any others"
_TOLD = 3
"""Changed keys that a note lists."""


def plan_before_any_run(
    words: Sequence[str], preset: str | None, *, detect: float | None, power: float, metric: str | None, baseline: str
) -> Plan:
    """The plan of words of `losslab train`. Arguments: see `commands.plan.make_plan`.

    Raises:
        UserError: for words that make no runs, for those of which there is no plan, and where there are no figures.
    """
    schema.register()
    append_current_folder()  # where a person's own loss lives
    known = read_figures()
    if preset is not None and preset not in (names := {one.preset for one in known}):
        raise UserError(f"there are no noise figures for --preset {preset}: {_which(known, nearest(preset, names))}")
    of_preset = [] if preset is None else next(one.words for one in known if one.preset == preset)
    own = [ready(word) for word in words]
    typed = [*(word for word in of_preset if word not in own), *own]
    losses = _losses(typed)
    common = [word for word in typed if _key(word) not in ("loss", "seed")]
    others = list(dict.fromkeys(word for word in losses if word != baseline))
    if losses and not others:
        raise UserError(f"loss={baseline} is what others are compared with: list some of them, loss={baseline},focal")
    found = figures_of(known, preset=preset, words=typed)
    if not found:
        pilot = _pilot(common, others, baseline)
        raise UserError(f"there are no noise figures for {shlex.join(typed)}: {_which(known)}; or {pilot}")
    fitting = _fitting(found, metric, baseline)
    measured = [(_of_loss([*one.words, f"loss={one.loss}"]), one) for one in fitting]
    wanted = [(word, _of_loss([*common, f"loss={word}"])) for word in others or [one.loss for one in fitting]]
    asked_for = [Asked(word, next((one for of, one in measured if of == own), None)) for word, own in wanted]
    made = plan_of_figures(fitting, words=common, losses=asked_for, baseline=baseline, margin=detect, power=power)
    made.notes[:0] = [_origin(fitting[0]), *_changes(common, fitting[0], baseline)]
    made.notes.extend(f"{word} is left out: the plan says which seeds" for word in typed if _key(word) == "seed")
    return made


def _losses(words: Sequence[str]) -> list[str]:
    """The choices of the losses that were typed, once all of their runs can be composed.

    Raises:
        UserError: for a mistake in what was typed, and for what no plan before any run is about.
    """
    for word in words:
        if is_auto_word(word):
            raise UserError(f"{word}: a sweep of seed=auto adds seeds until each loss is decided, and needs no plan")
        if (key := _key(word)).startswith("loss."):
            setting = word.lstrip("+~").removeprefix("loss.")
            raise UserError(f"{key} would be a key of every loss: write it with its own, loss=NAME:{setting}")
        if key == ZIP:
            raise UserError(f"{word}: {_ONE_SETTING}")
    opened = open_multirun([word for word in words if _key(word) != "seed"])
    if opened.search is not None:
        raise UserError("a search draws settings, and a plan is of the seeds of one setting: search first")
    jobs = job_overrides(opened)
    for job in jobs:
        check_run(compose_job(job)[0])
    if own := [word for word in words if _key(word).startswith("seeds.")]:
        raise UserError(f"{own[0]}: noise figures are of whole seeds, and this varies or fixes one source of noise")
    (listed,) = [split(word.partition("=")[2]) for word in words if _key(word) == "loss"][-1:] or [[]]
    if len(jobs) > max(len(listed), 1):
        raise UserError(f"these words give losses several settings: {_ONE_SETTING}")
    return listed


def _key(word: str) -> str:
    return bare(word.partition("=")[0])


def _which(known: Sequence[Figure], hint: str = "") -> str:
    """The figures that there are, and the command that makes others."""
    names = ", ".join(dict.fromkeys(f"{one.preset} ({' '.join(one.words)})" for one in known))
    there = f"there are {names}; others need" if known else "they come from"
    return f"{hint + ' ' if hint.startswith('did') else ''}{there} {COMMAND}, which measures the noise of presets"


def _pilot(common: Sequence[str], losses: Sequence[str], baseline: str) -> str:
    """The commands of a pilot of these losses beside the baseline, and of its plan."""
    if not losses:
        return f"name losses for the command of a pilot: loss={baseline},focal"
    config, _ = compose_job(list(common))
    folder = Path(config["output_dir"]) / config["name"]
    command = train_command([*common, f"loss={','.join([baseline, *losses])}"], range(1, PILOT + 1))
    return f"make a pilot, and plan from that: {command} && losslab plan {shlex.quote(str(folder))}"


def _fitting(found: Sequence[Figure], metric: str | None, baseline: str) -> list[Figure]:
    """The figures of this metric and baseline. Raises UserError where there are none."""
    metric = metric or found[0].metric
    for name, wanted in (("metric", metric), ("baseline", baseline)):
        values = sorted({str(getattr(one, name)) for one in found})
        if wanted not in values:
            raise UserError(f"--{name} {wanted}: the noise figures of {found[0].preset} are of {', '.join(values)}")
    return [one for one in found if (one.metric, one.baseline) == (metric, baseline)]


def _of_loss(words: Sequence[str]) -> dict[str, Any]:
    """Everything that distinguishes the loss of these words, however it is spelled."""
    (job,) = job_overrides(open_multirun(list(words)))
    return {key: value for key, value in _settings(job).items() if key.startswith(OF_LOSS)}


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """Dotted key → value of what decides the results of these words."""
    return flatten(without(check_run(compose_job(list(words))[0]), NOT_IDENTITY))


def _changes(words: Sequence[str], measured: Figure, baseline: str) -> list[str]:
    """A note where these words change the preset: its figures are then of other runs."""
    own, theirs = (_settings([*of, f"loss={baseline}"]) for of in (words, measured.words))
    changed = [key for key in sorted(own.keys() | theirs.keys()) if own.get(key) != theirs.get(key)]
    if not changed:
        return []
    told = [f"{key}={own.get(key, 'nothing')} instead of {theirs.get(key, 'nothing')}" for key in changed[:_TOLD]]
    more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
    return [
        f"The figures are not of these runs, but of {measured.preset}: here {', '.join(told)}{more}, which may change "
        "the noise; a pilot of eight seeds says."
    ]


def _origin(one: Figure) -> str:
    return (
        f"Noise of {' '.join(one.words)}, as {COMMAND} measured it on {one.written} from {one.seeds} seeds "
        f"({one.machine}); another machine takes another time."
    )
