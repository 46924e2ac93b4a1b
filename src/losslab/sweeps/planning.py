"""Plan a sweep: find each run's folder, claim it, and fix how many threads it will have. Needs torch, so it runs in a
process of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from losslab.config.identity import canonical, flatten
from losslab.config.trust import foreign_targets
from losslab.errors import Held, UserError, error_sentence
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder, how_to_repeat, runs_of_sweep
from losslab.sweeps.plan import Ended, Job, Looked, Missing, Plan, PlannedRun, Survey
from losslab.sweeps.slots import Sharing, share
from losslab.training.factory import build_task
from losslab.training.process.claim import Finder, Place
from losslab.training.process.devices import cores, gpus, uses_gpu

_CLAIM_SECONDS = 60.0


def plan(jobs: list[Job], *, slots: int | None, here: bool = True) -> Plan:
    """Plan the whole list. Where any combination is wrong, none is claimed.

    Args:
        slots: how many runs at once; None: what the machine has room for.
        here: whether the runs compute on this machine.
    """
    result, finder = Plan(), Finder(here=here)
    places: list[tuple[Job, Place]] = []
    seen: dict[RunFolder, int] = {}
    for job in jobs:
        try:
            place = _find(finder, job)
        except (UserError, OSError) as error:
            result.mistakes.append(_sentence(error))
            continue
        if place.folder not in seen:
            seen[place.folder] = len(places)
            places.append((job, place))
        result.of_jobs.append(seen[place.folder])
    if result.mistakes:
        result.mistakes = list(dict.fromkeys(result.mistakes))
        return result
    if len(places) < len(jobs):
        result.notes.append(f"{len(jobs)} combinations are {len(places)} different runs; each is trained once")
    result.texts = list(dict.fromkeys(finder.texts))
    if here:
        result.sharing = _share([place.config["trainer"] for _, place in places], slots)
    _name_changes(result.notes, finder, [place for _, place in places])
    for i, (job, place) in enumerate(places):
        threads = None if result.sharing is None else result.sharing.threads[i]
        try:
            result.runs.append(_claim(finder, i + 1, job, place, threads))
        except (UserError, OSError) as error:
            result.mistakes.append(_sentence(error))
            break
    return result


def survey(studies: list[list[Job]], *, slots: int | None, runs: int) -> Survey:
    """Look at samples of each study of a search, before anything is drawn. Nothing is written.

    Args:
        slots: how many runs at once; None: what the machine has room for.
        runs: how many the search trains, at most.
    """
    result, finder = Survey(), Finder()
    settings: list[dict[str, Any]] = []
    for jobs in studies:
        places: list[Place] = []
        for job in jobs:
            try:
                places.append(_find(finder, job))
            except (UserError, OSError) as error:
                result.mistakes.append(_sentence(error))
        if places:
            settings += [place.config["trainer"] for place in places]
            task = build_task(places[0].config)
            primary = next(metric for metric in task.metrics if metric.name == task.primary)
            decisive = flatten(canonical(places[0].config, places[0].inputs))
            result.studies.append(Looked(primary, decisive, places[0].folder.sweep))
        result.changed += [
            place.folder.name for place in places if place.record is not None and finder.has_other_code(place)
        ]
    result.mistakes, result.texts = list(dict.fromkeys(result.mistakes)), list(dict.fromkeys(finder.texts))
    if not result.mistakes:
        result.sharing = _share(settings, slots, runs)
    return result


def plan_one(job: Job, *, number: int, threads: int) -> Plan:
    """Plan a run that a search has drawn; where it is wrong, it is not claimed.

    Args:
        number: its place among all runs.
        threads: of each of its processes.
    """
    result, finder = Plan(), Finder()
    try:
        result.runs.append(_claim(finder, number, job, _find(finder, job), threads))
    except (UserError, OSError) as error:
        result.mistakes.append(_sentence(error))
    return result


def find_missing(jobs: list[Job]) -> Missing:
    """Look for the runs of these jobs. Nothing is written."""
    result, finder = Missing(), Finder(here=False)
    seen: set[RunFolder] = set()
    for i, job in enumerate(jobs):
        try:
            place = _find(finder, job)
        except (UserError, OSError) as error:
            result.mistakes.append(_sentence(error))
            continue
        if place.folder in seen:
            continue
        seen.add(place.folder)
        if place.done:
            result.done += 1
        elif place.record is not None and place.folder.is_locked():
            result.running += 1
        else:
            result.jobs.append(i)
    result.mistakes = list(dict.fromkeys(result.mistakes))
    return result


def _find(finder: Finder, job: Job) -> Place:
    return finder.find(job.config, defaults=job.defaults, choices=job.choices, overrides=job.overrides)


def look_up(jobs: list[Job], since: str) -> list[Ended]:
    """Results of jobs that have ended, from their records; each run once.

    Args:
        since: when they were started, as records write times: runs that ended earlier count as skipped.
    """
    finder, ended = Finder(here=False), {}
    for job in jobs:
        config = {**job.config, "fresh": False}  # the newest of several repetitions is the one that was made
        try:
            place = finder.find(config, defaults=job.defaults, choices=job.choices, overrides=job.overrides)
        except (UserError, OSError) as error:
            ended[job.label] = Ended(job.label, "refused", _sentence(error), None)
            continue
        if place.record is None:
            ended.setdefault(str(place.folder), Ended(job.label, "failed", "its job left no record", None))
            continue
        status, error_text = place.record.status, place.record.error
        if status in DONE and str(place.record.timing.get("updated")) < since:
            status = "skipped"
        elif status in ("planned", "running"):
            if place.folder.is_locked():  # its launcher has ended, and it has not
                ended.setdefault(str(place.folder), Ended(job.label, "running", "", place.folder))
                continue
            status, error_text = "failed", "its process ended before the run did"
        ended.setdefault(str(place.folder), Ended(job.label, status, str(error_text), place.folder))
    return [*ended.values()]


def _sentence(error: UserError | OSError) -> str:
    return str(error) if isinstance(error, UserError) else error_sentence(error)


def _share(settings: list[dict[str, Any]], slots: int | None, runs: int | None = None) -> Sharing:
    """Share the machine by the most demanding of the runs, and of those on GPUs where there are any.

    Args:
        runs: how many there will be, where these settings are samples.
    """
    on_gpus = [setting for setting in settings if uses_gpu(setting)]
    return share(
        runs or len(settings),
        cores=cores(),
        gpus=gpus() if on_gpus else [],
        devices=max(setting["devices"] for setting in on_gpus or settings),
        wanted=slots,
        threads=max((setting["threads"] or 0 for setting in settings), default=0) or None,
    )


def _claim(finder: Finder, number: int, job: Job, place: Place, threads: int | None) -> PlannedRun:
    settings = place.config["trainer"]
    record = place.record
    if record is None or not place.done:
        record = _claim_patiently(finder, place, settings["threads"] or threads, job.trial)
    return PlannedRun(
        number=number,
        label=job.label,
        folder=place.folder,
        status=record.status,
        step=record.step,
        max_steps=settings["max_steps"],
        threads=settings["threads"] or record.hardware.get("threads") or threads or 1,
        devices=settings["devices"],
        nodes=settings["num_nodes"],
        accelerator=settings["accelerator"],
        trust=foreign_targets(place.config),
    )


def _claim_patiently(finder: Finder, place: Place, threads: int | None, trial: dict[str, Any] | None) -> Record:
    """The record, once it is claimed, by us or by another invocation that is at it."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while True:
        try:
            return finder.claim(place, None, threads, trial)
        except Held:
            if place.folder.record_file.exists():
                return place.folder.record()
            if time.monotonic() > deadline:
                raise


def _name_changes(notes: list[str], finder: Finder, places: list[Place]) -> None:
    """Say which results were made by other code, and which runs stand beside ones of the same name on another text."""
    other = [place.folder.name for place in places if place.done and finder.has_other_code(place)]
    if other:
        ways = dict.fromkeys(how_to_repeat(place.folder.sweep) for place in places)
        notes.append(f"the code has changed since {_named(other)} trained; {' and '.join(ways)}")
    texts = {place.folder.sweep: _texts(place.folder.sweep) for place in places if place.record is None}
    moved = [
        place.folder.name
        for place in places
        if place.record is None
        and any(
            label == place.folder.name.rpartition("-")[0] and data not in (None, place.data_hash)
            for label, data in texts[place.folder.sweep]
        )
    ]
    if moved:
        notes.append(
            f"the text has changed: {_named(moved)} planned beside runs of the same settings on the old one, which "
            "stay; compare refuses to mix them, so give the new text another name=…"
        )


def _texts(sweep: Path) -> list[tuple[str, str | None]]:
    """Label and text of the runs that are there."""
    found = []
    for run in runs_of_sweep(sweep):
        try:
            found.append((run.name.rpartition("-")[0], run.record().hashes.get("data")))
        except UserError:
            continue  # reported where it is in the way
    return found


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'was' if len(names) == 1 else 'were'}"
