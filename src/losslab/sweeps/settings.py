"""The keys of hydra.launcher, checked before anything starts. No torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.errors import UserError

_ON_ERROR = ("continue", "stop")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_SLOTS, _MOST_RETRIES = 1024, 100
_EXECUTORS = ("slurm", "local", "debug")
_MOST_CPUS, _MOST_GB, _MOST_JOBS, _MOST_REQUEUES = 4096, 100_000, 100_000, 10_000
_SAMPLERS, _PRUNERS = ("tpe", "random", "grid"), ("none", "median", "halving")
_MOST_TRIALS, _MOST_SEED = 100_000, 2**32 - 1
_MOST_WARNING = 65535
"""Seconds; SLURM's own limit."""


@dataclass(frozen=True)
class LocalSettings:
    """Settings of conf/hydra/launcher/local.yaml."""

    slots: int | None
    """None: as many as the machine has room for."""
    on_error: str
    retries: int
    time_limit: float | None
    """Seconds."""

    @classmethod
    def of(cls, keys: dict[str, Any]) -> LocalSettings:
        """Raises UserError for a key that there is not, and for a value that makes no sense."""
        typed, known = ({f"hydra.launcher.{name}" for name in names} for names in (keys, cls.__annotations__))
        for key in sorted(typed - known):
            raise UserError(f"there is no key {key!r}: {nearest_key(key, known)}")
        for key in sorted(known - typed):
            raise UserError(f"{key} cannot be taken away")
        slots, retries, on_error = (keys[name] for name in ("slots", "retries", "on_error"))
        if slots != "auto" and not _is_whole(slots, 1, _MOST_SLOTS):
            raise UserError(f"hydra.launcher.slots must be auto or a number from 1 to {_MOST_SLOTS}, not {slots!r}")
        if not _is_whole(retries, 0, _MOST_RETRIES):
            raise UserError(f"hydra.launcher.retries must be a number from 0 to {_MOST_RETRIES}, not {retries!r}")
        if on_error not in _ON_ERROR:
            raise UserError(f"hydra.launcher.on_error cannot be {on_error!r}: {nearest(str(on_error), _ON_ERROR)}")
        limit = _seconds(keys["time_limit"])
        return cls(None if slots == "auto" else int(slots), str(on_error), int(retries), limit)


@dataclass(frozen=True)
class SlurmSettings:
    """Settings of conf/hydra/launcher/slurm.yaml, whose comments explain them."""

    executor: str
    partition: str | None
    account: str | None
    qos: str | None
    time_limit: float
    """Seconds."""
    cpus_per_task: int | None
    mem_gb: float | None
    max_parallel: int | None
    signal_delay_s: int
    max_requeues: int
    setup: list[str]
    additional_parameters: dict[str, str | int | float | bool]
    wait: bool

    @property
    def here(self) -> bool:
        """Whether the runs compute on this machine."""
        return self.executor != "slurm"

    @property
    def at_once(self) -> int:
        """Runs of this machine."""
        return 1 if self.executor == "debug" else self.max_parallel or 1

    @property
    def minutes(self) -> int:
        return math.ceil(self.time_limit / 60)

    @classmethod
    def of(cls, keys: dict[str, Any]) -> SlurmSettings:
        """Raises UserError for a value that makes no sense."""
        executor, setup, more = keys["executor"], keys["setup"], keys["additional_parameters"]
        if executor not in _EXECUTORS:
            raise UserError(f"hydra.launcher.executor cannot be {executor!r}: {nearest(str(executor), _EXECUTORS)}")
        limit, warning = _seconds(keys["time_limit"]), keys["signal_delay_s"]
        if limit is None:
            raise UserError("hydra.launcher.time_limit must be given, such as 90m or 4h: the cluster needs it")
        if not _is_whole(warning, 1, _MOST_WARNING) or warning >= math.ceil(limit / 60) * 60:
            raise UserError(
                f"hydra.launcher.signal_delay_s must be whole seconds, fewer than the time_limit has, not {warning!r}"
            )
        if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
            raise UserError(f"hydra.launcher.setup must be a list of shell lines, not {setup!r}")
        if not isinstance(more, dict) or not all(isinstance(value, str | int | float) for value in more.values()):
            wanted = "options of sbatch, such as {constraint: a100}"
            raise UserError(f"hydra.launcher.additional_parameters must be {wanted}, not {more!r}")
        wait = keys["wait"]
        if not isinstance(wait, bool):
            raise UserError(f"hydra.launcher.wait must be true or false, not {wait!r}")
        if not wait and executor != "slurm":
            raise UserError(
                f"hydra.launcher.wait=false is for executor=slurm: the runs of {executor} end with the command"
            )
        return cls(
            executor=str(executor),
            partition=_text(keys, "partition"),
            account=_text(keys, "account"),
            qos=_text(keys, "qos"),
            time_limit=limit,
            cpus_per_task=_count(keys, "cpus_per_task", _MOST_CPUS),
            mem_gb=_amount(keys, "mem_gb", _MOST_GB),
            max_parallel=_count(keys, "max_parallel", _MOST_JOBS),
            signal_delay_s=int(warning),
            max_requeues=_count(keys, "max_requeues", _MOST_REQUEUES, least=0) or 0,
            setup=setup,
            additional_parameters={str(key).replace("-", "_"): value for key, value in more.items()},
            wait=wait,
        )


@dataclass(frozen=True)
class SearchSettings:
    """Settings of conf/hydra/sweeper/optuna.yaml, whose comments explain them."""

    n_trials: int
    sampler: str
    pruner: str
    startup_trials: int
    seed: int

    @classmethod
    def of(cls, keys: dict[str, Any]) -> SearchSettings:
        """Raises UserError for a key that there is not, and for a value that makes no sense."""
        known = {f"hydra.sweeper.{name}" for name in (*cls.__annotations__, "params")}
        for key in sorted({f"hydra.sweeper.{name}" for name in keys if name != "_target_"} - known):
            raise UserError(f"there is no key {key!r}: {nearest_key(key, known)}")
        for name, least, most in (
            ("n_trials", 1, _MOST_TRIALS),
            ("startup_trials", 1, _MOST_TRIALS),
            ("seed", 0, _MOST_SEED),
        ):
            if not _is_whole(keys.get(name), least, most):
                raise UserError(f"hydra.sweeper.{name} must be a number from {least} to {most}, not {keys.get(name)!r}")
        for name, there in (("sampler", _SAMPLERS), ("pruner", _PRUNERS)):
            if keys.get(name) not in there:
                value = keys.get(name)
                raise UserError(f"hydra.sweeper.{name} cannot be {value!r}: {nearest(str(value), there)}")
        settings = cls(*(keys[name] for name in cls.__annotations__))
        if settings.pruner != "none" and settings.n_trials <= settings.startup_trials:
            raise UserError(
                f"hydra.sweeper.pruner={settings.pruner} would prune nothing: n_trials={settings.n_trials} are no more "
                f"than startup_trials={settings.startup_trials}; lower these, or leave out the pruner"
            )
        return settings


def _text(keys: dict[str, Any], name: str) -> str | None:
    """A name of the cluster's, which may look like a number."""
    value = keys[name]
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise UserError(f"hydra.launcher.{name} must be a name, not {value!r}")
    return str(value)


def _count(keys: dict[str, Any], name: str, most: int, *, least: int = 1) -> int | None:
    value = keys[name]
    if value is None and least:
        return None
    if not _is_whole(value, least, most):
        raise UserError(f"hydra.launcher.{name} must be a number from {least} to {most}, not {value!r}")
    return int(value)


def _amount(keys: dict[str, Any], name: str, most: float) -> float | None:
    value = keys[name]
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        raise UserError(f"hydra.launcher.{name} must be a number above 0, not {value!r}")
    return float(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(limit: Any) -> float | None:
    if limit is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(limit).strip())
    if not found or not float(found[1]):
        raise UserError(f"hydra.launcher.time_limit must be seconds, or such as 90m or 2h, not {limit!r}")
    return float(found[1]) * _UNITS[found[2]]
