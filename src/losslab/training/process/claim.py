"""Find a run's folder by what it computes, and claim it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.config.binding import as_asked, bind_components, resolve_tied
from losslab.config.check import check_warmup, resolve_budget, resolve_split
from losslab.config.flags import debug_of, needs_passes, resolve_passes, without_passes
from losslab.config.identity import fingerprint, folder_name
from losslab.config.stored import INPUTS, LOGGERS, absolute, filled
from losslab.config.streams import SEEDS
from losslab.config.trust import allowed, foreign_components, targets
from losslab.console import say
from losslab.errors import UserError
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder, find_identity, how_to_repeat, runs_of_sweep
from losslab.training.ema import with_averaged
from losslab.training.factory import build_data, build_task, check_components, hash_inputs, hash_model, measure_passes
from losslab.training.origins.branch import CONTINUED, note_origin
from losslab.training.origins.initial import weights_hash
from losslab.training.origins.origin import KEY, OF_MODEL, WEIGHTS_KEY, Origin, Origins
from losslab.training.output.provenance import hash_code, provenance
from losslab.training.process.devices import check_devices
from losslab.training.scoring.teacher import teacher_hash

KEPT = ("changes", CONTINUED, WEIGHTS_KEY, LOGGERS)
"""Keys of provenance that an unfinished run keeps when it is claimed again."""
SPLIT = ("devices", "num_nodes", "micro_batch_size", "accumulate_grad_batches")


@dataclass(frozen=True)
class Place:
    """The place of a configuration."""

    folder: RunFolder
    config: dict[str, Any]
    """Bound, its budget and its split of the batch worked out."""
    identity: str
    inputs: dict[str, str]
    """Dotted key of each input → SHA-256 of its content."""
    choices: dict[str, str]
    overrides: list[str]
    record: Record | None
    """The record of the run that is there already."""
    origin: Origin | None = None
    """The run that it continues, where it is yet to begin."""
    worked_out: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted key → the share or number of passes given, and the batches or steps that it is."""

    @property
    def done(self) -> bool:
        return self.record is not None and self.record.status in DONE

    @property
    def data_hash(self) -> str:
        """SHA-256 of the first input of the data, its text for the most part; of nothing where there is none."""
        return next((value for key, value in self.inputs.items() if key.startswith("data.")), "")


class Finder:
    """A cache, from one run of a sweep to the next, of what they share: the text's hash, components that are right, the
    code and its repository.

    Args:
        here: whether the runs will compute on this machine, whose devices are then looked at.
    """

    def __init__(self, *, here: bool = True) -> None:
        self._here = here
        self.texts: list[str] = []
        """Files that were read, and those that were not and why: a line for each text."""
        self._origins = Origins()
        self._inputs: dict[str, dict[str, str]] = {}
        self._passes: dict[str, dict[str, float | None]] = {}
        self._right: set[str] = set()
        self._code: dict[tuple[str, ...], dict[str, str]] = {}
        self._provenance: dict[Path, dict[str, Any]] = {}

    def find(
        self, config: dict[str, Any], *, defaults: dict[str, Any], choices: dict[str, str], overrides: list[str]
    ) -> Place:
        """Find the place of a checked configuration: beside the sweep's others, or in the folder that has it already.

        Args:
            config: after `check_run`.
            defaults: the same choice of groups without any single key changed, for the folder's name.
            choices: group → the file chosen in it, for the record; the loss's also for the folder's name.
            overrides: as typed, for the record.

        Raises:
            UserError: for bad input; nothing has been written.
        """
        asked = resolve_tied(config)
        bound, worked_out = self._in_steps(bind_components(config), overrides)
        config = resolve_split(resolve_budget(bound))
        self._check(config)
        inputs = self._hash_inputs(config) | hash_model(config)
        parent = Path(config["output_dir"]) / config["name"]
        origin, begun, chosen = self._beginning(parent, config, inputs)
        inputs, config, bound = inputs | begun, config | chosen, bound | chosen
        config = _absolute_paths(config, inputs)
        identity = fingerprint(config, inputs)
        record = None
        if found := find_identity(parent, identity):
            folder, record = found[-1], found[-1].record()
            if record.status in DONE and config["fresh"]:
                folder, record = _next_repetition(found), None
            elif record.status not in DONE:
                config = _keep_split(config, folder, overrides)
                self._check(config)
        else:
            folder = RunFolder(parent / folder_name(as_asked(bound, asked), resolve_tied(defaults), choices, identity))
        return Place(folder, config, identity, inputs, choices, overrides, record, origin, worked_out)

    def _in_steps(self, config: dict[str, Any], overrides: list[str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """The configuration with passes and shares of the data worked out, which takes its size, and
        `resolve_passes`'s account of that. What needs no data is checked before any is read."""
        if not needs_passes(config["trainer"]):
            return config, {}
        self._check(resolve_split(resolve_budget(without_passes(config))))
        drawn = bool(targets({"data": config["data"]}) - allowed())
        text = json.dumps([config["data"], config["task"], config["seed"] if drawn else None], sort_keys=True)
        if text not in self._passes:
            self._passes[text] = measure_passes(config)
        resolved, worked_out = resolve_passes(config, self._passes[text])
        if config["trainer"]["max_epochs"] is not None and (note := check_warmup(resolved, overrides)):
            say(f"note: {note}")
        return resolved, worked_out

    def has_other_code(self, place: Place) -> bool:
        """Whether the code has changed since the run that is there was trained."""
        foreign = tuple(foreign_components(place.config))
        if foreign not in self._code:
            self._code[foreign] = hash_code(list(foreign))
        hashes = {} if place.record is None else place.record.hashes
        return any(hashes.get(name) not in (None, digest) for name, digest in self._code[foreign].items())

    def claim(
        self, place: Place, status: str | None, threads: int | None = None, trial: dict[str, Any] | None = None
    ) -> Record:
        """Make the folder, its config.yaml and its run.json, or take over those of an unfinished run.

        Args:
            status: what the record says from now on; None leaves that of an unfinished run, and plans a failed one.
            threads: what the run will use; one that has its number already keeps it.
            trial: of the search that wants it, for the record; None where a person does, who wants a pruned run too.

        Raises:
            UserError: when the folder cannot be made, or another process holds it (`Held`).
        """
        run, config = place.folder, place.config
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.shared_cache.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"the folder {error.filename or run} cannot be made: {error.strerror}") from None
        made = self._provenance_of(run)  # git may take its time, and nobody waits long for the lock
        with run.lock():
            record = Record(identity=place.identity, name=config["name"], overrides=place.overrides, status="planned")
            if run.record_file.exists():
                record = run.record()
                if record.status in DONE:  # another process was quicker
                    return record
            again = record.status == "failed" or (record.status == "pruned" and trial is None)
            if status or again:  # it is tried again: a failure read from now on is news
                record.status, record.error = status or "planned", None
            record.trial = record.trial if trial is None else trial
            record.max_steps = config["trainer"]["max_steps"]
            kept = {"changes": []} | {key: record.provenance[key] for key in KEPT if key in record.provenance}
            record.provenance = made | {"choices": place.choices} | kept
            record.provenance |= {"debug": debug_of(config), "worked_out": place.worked_out}
            if place.origin is not None and not run.has_checkpoint():
                note_origin(record, place.origin, config)
            task = build_task(config)
            record.declare(with_averaged(task.metrics, task.primary, config["callbacks"]), task.primary)
            record.hashes["data"] = place.data_hash
            record.hashes |= {key: digest for key, digest in place.inputs.items() if key.startswith(OF_MODEL)}
            if WEIGHTS_KEY in place.inputs:
                record.hashes[WEIGHTS_KEY] = place.inputs[WEIGHTS_KEY]
            if threads is not None:
                record.hardware.setdefault("threads", threads)
            run.write_config(config)
            run.write(record)
        return record

    def _check(self, config: dict[str, Any]) -> None:
        """Construct everything once; runs that differ in their seeds or name have the same parts."""
        free = ("seed", SEEDS, "name")
        parts = json.dumps({key: value for key, value in config.items() if key not in free}, sort_keys=True)
        if parts not in self._right:
            check_components(config)
            if self._here:
                check_devices(config)
            self._right.add(parts)

    def _hash_inputs(self, config: dict[str, Any]) -> dict[str, str]:
        drawn = bool(targets({"data": config["data"]}) - allowed())  # perhaps: from the seed's stream
        text = json.dumps([config["data"], config["seed"] if drawn else None], sort_keys=True)
        if text not in self._inputs:
            data = build_data(config)
            self._inputs[text] = hash_inputs(config, data)
            if files := data.told():
                self.texts.append(files)
        inputs = self._inputs[text]
        return inputs | teacher_hash(config, inputs.get("data.path") or inputs.get("data.corpus"))

    def _beginning(
        self, parent: Path, config: dict[str, Any], inputs: dict[str, str]
    ) -> tuple[Origin | None, dict[str, str], dict[str, str]]:
        """The start of a run that does not begin with weights of its own: the run that it continues, hashes by key, and
        paths by key. A run that is there already keeps both, even where the run or file that it began with is gone, and
        where a sweep's folder holds a run by now that has come further."""
        key = KEY if config[KEY] is not None else WEIGHTS_KEY
        if config[key] is None:
            return None, {}, {}
        earlier = self._begun(parent, config, inputs, key)
        if earlier and key == KEY and not config["fresh"] and not RunFolder(Path(config[key]).expanduser()).exists():
            return None, *earlier
        try:
            origin = self._origins.find(config, inputs)
            if origin is not None:
                return origin, {KEY: origin.digest}, {KEY: str(origin.folder)}
            return None, weights_hash(config), {}
        except UserError:
            if earlier is None or config["fresh"]:
                raise
            return None, *earlier

    def _begun(
        self, parent: Path, config: dict[str, Any], inputs: dict[str, str], key: str
    ) -> tuple[dict[str, str], dict[str, str]] | None:
        """Hash and path of what a run of this configuration in `parent` began with, if it lay where the key says."""
        place = Path(config[key]).expanduser().absolute()
        for run in runs_of_sweep(parent):
            with suppress(UserError):  # reported where it is in the way
                record = run.record()
                digest = record.hashes.get(key)
                if digest is None or fingerprint(config, inputs | {key: digest}) != record.identity:
                    continue
                path = Path(str(run.config().get(key)))
                if place in (path, path.parent):
                    return {key: digest}, {key: str(path)}
        return None

    def _provenance_of(self, run: RunFolder) -> dict[str, Any]:
        if run.sweep not in self._provenance:
            self._provenance[run.sweep] = provenance(run)
        return self._provenance[run.sweep] | {"folder": str(run.absolute())}


def note_other_code(place: Place) -> None:
    say(f"note: the code has changed since {place.folder.name} was trained; {how_to_repeat(place.folder.sweep)}")


def _next_repetition(found: list[RunFolder]) -> RunFolder:
    """The first free name among X-2, X-3, … behind all that exist."""
    original, number = found[0].path, len(found) + 1
    while (folder := original.with_name(f"{original.name}-{number}")).exists():
        number += 1
    return RunFolder(folder)


def _absolute_paths(config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """Input paths as seen from anywhere, so that a run can be resumed from another folder."""
    data = dict(config["data"])
    for name in (name for name in INPUTS if name in inputs):
        key = name.rpartition(".")[2]
        if isinstance(data[key], str | list):  # else a split that another key's folder brings along
            data[key] = absolute(data[key])
    if isinstance(source := data.get("source"), dict) and source.get("path") is not None:
        data["source"] = source | {"path": absolute(source["path"])}
    if "loss.teacher" in inputs:
        config = {**config, "loss": config["loss"] | {"teacher": absolute(config["loss"]["teacher"])}}
    for key in (KEY, WEIGHTS_KEY):
        if config[key] is not None:
            config = {**config, key: absolute(config[key])}
    return {**config, "data": data}


def _keep_split(config: dict[str, Any], run: RunFolder, overrides: list[str]) -> dict[str, Any]:
    """An unfinished run continues with its stored split of the batch, unless the command names another."""
    naming = ("trainer=", *(f"trainer.{key}=" for key in SPLIT))
    if any(override.lstrip("+").startswith(naming) for override in overrides):
        return config
    try:
        stored = filled(run.config(), run.config_file)["trainer"]
    except UserError:
        return config  # it is written again when the run is claimed
    split = {key: stored[key] for key in SPLIT}
    if None in split.values():
        return config
    if split != {key: config["trainer"][key] for key in SPLIT}:
        say("continues with its stored split of the batch: " + ", ".join(f"{k}={v}" for k, v in split.items()))
    return {**config, "trainer": config["trainer"] | split}
