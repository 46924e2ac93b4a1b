"""Costs of a training step under each loss, relative to the baseline: measured side by side, or by FLOPs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run
from losslab.comparison.tuning import tokens_of
from losslab.run_folder import RunFolder

FILE = "costs.json"
"""A file in the sweep's folder. `seconds_per_step`: name_cost(run) → the seconds of a step, one a round, in which all
were measured in turns; time, rounds, hardware and versions say when and where."""
NOTICEABLE = 1.005
"""Losses whose FLOPs differ by less cost the same."""
SETTLED = 1.1
"""The second quickest round of a loss may take so many times the quickest; else other work decided both."""
_DECIDES = ("loss.", "regularizers.", "model.", "optimizer._target_", "optimizer.groups.", "trainer.precision")
_ALSO = ("data.batch_size", "data.tokenizer", "data.vocab_size")
_WHERE_ON = ("trainer.r_drop",)
"""Settings added later, which leave the names of costs as they were while they are off."""


@dataclass(frozen=True)
class Costs:
    """Costs of a step."""

    of: dict[str, float]
    """Label → relative to the baseline's, which is 1."""
    measured: bool
    """Side by side; else FLOPs."""
    told: str
    """Their source, for people."""


def name_cost(run: Run) -> str:
    """Runs of the same name have the same cost: it hashes what decides it."""
    settings = {
        key: value
        for key, value in run.settings.items()
        if key.startswith(_DECIDES) or key in _ALSO or (key in _WHERE_ON and value)
    }
    content = json.dumps([settings, run.record.provenance.get("vocab_size")], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def representatives(contenders: Sequence[Contender]) -> dict[str, RunFolder]:
    """name_cost → a run of it, for every contender that has a result."""
    runs = [next(iter(c.runs.values())) for c in contenders if c.runs]
    return {name_cost(run): run.folder for run in runs if run.folder is not None}


def costs_of(contenders: Sequence[Contender], baseline: Contender, source: Path) -> Costs | None:
    """Measured ones if the folder has them for every contender, or else by FLOPs; None where these are not known.

    Args:
        source: the sweep's folder.
    """
    compared = [c for c in contenders if c.runs]
    if len(compared) < 2 or not baseline.runs:
        return None
    content = read_costs(source)
    names = {c.label: name_cost(next(iter(c.runs.values()))) for c in compared}
    busy = ""
    if content is not None and set(names.values()) <= content["seconds_per_step"].keys():
        seconds = {name: content["seconds_per_step"][name] for name in names.values()}
        base = seconds[names[baseline.label]]
        if is_settled(seconds):
            # Minima: other work on the machine only ever adds time.
            of = {label: min(seconds[name]) / min(base) for label, name in names.items()}
            return Costs(of, measured=True, told=costs_source(content))
        busy = f" ({FILE} is of a busy machine: its quickest rounds disagree)"
    flops = {c.label: flops for c in compared if (flops := flops_per_step(c)) is not None}
    if len(flops) < len(compared):
        return None
    return Costs(
        {label: value / flops[baseline.label] for label, value in flops.items()},
        measured=False,
        told=f"FLOPs of the model, the losses' own work not counted; losslab compare --costs measures them{busy}",
    )


def is_settled(seconds: Mapping[str, Sequence[float]]) -> bool:
    """Whether the two quickest rounds of every loss agree; a single round cannot say."""
    pairs = [sorted(own)[:2] for own in seconds.values() if len(own) > 1]
    return all(second <= SETTLED * first for first, second in pairs)


def read_costs(source: Path) -> dict[str, Any] | None:
    """The content of costs.json; None where there is none that can be read."""
    try:
        content = json.loads((source / FILE).read_text(encoding="utf-8"))
        rounds, seconds = content["rounds"], content["seconds_per_step"]
        right = all(len(own) == rounds and all(value > 0 for value in own) for own in seconds.values())
        datetime.fromisoformat(content["time"])
        return content if right and rounds > 0 and isinstance(content["hardware"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def costs_source(content: dict[str, Any]) -> str:
    """`measured side by side by losslab on 2026-11-27 (x86_64, 1 thread, 5 rounds)`."""
    hardware = content["hardware"]
    device = hardware.get("device_name") or hardware.get("device") or "an unknown machine"
    threads = hardware.get("threads")
    own = f", {threads} thread{'s' * (threads != 1)}" if threads and hardware.get("device") != "cuda" else ""
    rounds = content["rounds"]
    return (
        f"measured side by side by losslab compare --costs on {content['time'][:10]} ({device}{own}, "
        f"{rounds} round{'s' * (rounds != 1)})"
    )


def flops_per_step(contender: Contender) -> float | None:
    """FLOPs of a forward and backward pass over the batch."""
    flops = [run.record.throughput.get("flops_per_token") for run in contender.runs.values()]
    tokens = tokens_per_step(contender)
    known = [value for value in flops if value]
    return median(known) * tokens if tokens and known and len(known) == len(flops) else None


def tokens_per_step(contender: Contender) -> float | None:
    for run in contender.runs.values():
        tokens = tokens_of(run)
        return tokens / run.record.max_steps if tokens else None
    return None
