"""`losslab check`: what is wrong with a loss, ours or anybody's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job, typed
from losslab.config.schema import register
from losslab.config.words import ready
from losslab.conformance.basics import named
from losslab.conformance.checks import CHECKS, FIRST
from losslab.conformance.processes import FURTHER
from losslab.conformance.subject import Fault, Subject
from losslab.console import say
from losslab.errors import UserError, error_sentence
from losslab.losses.base import Loss
from losslab.training.factory import build_loss

_OPTIONS = ("loss.", "loss@loss.", "regularizers.")


@dataclass(frozen=True)
class Result:
    """Result of one check.

    Args:
        said: the observation, or the fault.
    """

    check: str
    passed: bool
    said: str


def examine(loss: Loss) -> list[Result]:
    """The result of every check, in order; of the first alone where it fails. The loss itself is not touched."""
    subject = Subject(loss)
    first = _try(FIRST, partial(CHECKS[FIRST], subject))
    if not first.passed:
        return [first]
    return [first, *(_try(name, partial(check, subject)) for name, check in CHECKS.items() if name != FIRST)]


def _try(name: str, check: Callable[[], str]) -> Result:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            with named():
                return Result(name, True, check())
        except Fault as fault:
            return Result(name, False, str(fault))
        except Exception as error:  # a person's code may raise anything; the other checks are still worth reading
            return Result(name, False, f"it raises {error_sentence(error)}")


def check(loss: Loss) -> None:
    """Check a loss in a test of one's own: `losslab.conformance.check(MyLoss())`. Everything but what needs further
    processes (two ranks, and the cost), which `losslab check` has too.

    Raises:
        AssertionError: naming every fault.
    """
    faults = [f"{result.check}: {result.said}" for result in examine(loss) if not result.passed]
    if faults:
        raise AssertionError(f"{type(loss).__name__} has {len(faults)} fault(s)\n" + "\n".join(faults))


def run(name: str, overrides: list[str], config_dir: Path | None) -> int:
    """Check the loss `name` (of conf/loss or a dotted path) and print a table; returns 1 if any check failed."""
    config = _configure(name, overrides, config_dir)
    loss = build_loss(config)
    results = examine(loss)
    count = len(CHECKS) + len(FURTHER)
    if len(results) > 1:
        results += [_try(name, partial(check, config)) for name, check in FURTHER.items()]
    width = max(len(result.check) for result in results)
    for result in results:
        say(f"{'passed' if result.passed else 'FAILED'}  {result.check:<{width}}  {result.said}")
    failed = sum(not result.passed for result in results)
    verdict = f"{failed} of {len(results)} checks failed" if failed else f"all {len(results)} checks passed"
    if len(results) < count:
        verdict = f"the first of {count} checks failed, and the others need it"
    say(f"{type(loss).__name__}: {verdict}")
    return int(failed > 0)


def _configure(name: str, overrides: list[str], config_dir: Path | None) -> dict[str, Any]:
    """The configuration of a run with the loss."""
    register()
    overrides = [ready(override) for override in overrides]
    wrong = [override for override in overrides if not override.lstrip("+").startswith(_OPTIONS)]
    if wrong:
        raise UserError(f"{wrong[0]} is no option of the loss: they are written loss.KEY=VALUE (or regularizers.KEY)")
    if "." in name:
        own = [override for override in overrides if override.lstrip("+").startswith("loss.")]
        given = [typed(override.lstrip("+").removeprefix("loss.")) for override in own]
        config, _ = compose_job([override for override in overrides if override not in own], config_dir)
        config["loss"] = {"_target_": name, **dict(given)}
    else:
        config, _ = compose_job([f"loss={name}", *overrides], config_dir)
    return bind_components(check_run(config))
