"""`losslab check`: what is wrong with a loss, a model, data or a task, ours or anybody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from losslab.conformance.basics import named
from losslab.conformance.checks import CHECKS
from losslab.conformance.configure import configure
from losslab.conformance.processes import FURTHER
from losslab.conformance.subject import Subject
from losslab.console import say
from losslab.errors import Fault, error_sentence
from losslab.losses.base import Loss
from losslab.training.factory import build_loss


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
    return _examine(CHECKS, Subject(loss))


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


def check_part(kind: str, *words: str, config_dir: Path | None = None) -> None:
    """For a test of one's own: `check_part("model", "my_models.LSTM", "task=lm")`, as `losslab check` has it.

    Raises:
        AssertionError: naming every fault.
        UserError: as `try_part` does.
    """
    name, results, _ = try_part(kind, list(words), config_dir)
    faults = [f"{result.check}: {result.said}" for result in results if not result.passed]
    if faults:
        raise AssertionError(f"{name} has {len(faults)} fault(s)\n" + "\n".join(faults))


def run(kind: str, words: list[str], config_dir: Path | None) -> int:
    """Check a component and print a table; returns 1 if any check failed. Arguments: see `try_part`."""
    name, results, count = try_part(kind, words, config_dir)
    width = max(len(result.check) for result in results)
    for result in results:
        say(f"{'passed' if result.passed else 'FAILED'}  {result.check:<{width}}  {result.said}")
    failed = sum(not result.passed for result in results)
    verdict = f"{failed} of {len(results)} checks failed" if failed else f"all {len(results)} checks passed"
    if len(results) < count:
        verdict = f"the first of {count} checks failed, and the others need it"
    say(f"{name}: {verdict}")
    return int(failed > 0)


def try_part(kind: str, words: list[str], config_dir: Path | None = None) -> tuple[str, list[Result], int]:
    """The class of a component, the result of every check, and how many checks there are.

    Args:
        kind: loss, model, data or task.
        words: see `configure`.

    Raises:
        UserError: for what can be seen before anything computes.
    """
    config = configure(kind, words, config_dir)
    if kind == "loss":
        loss = build_loss(config)
        results = examine(loss)
        if len(results) > 1:
            results += [_try(name, partial(check, config)) for name, check in FURTHER.items()]
        return type(loss).__name__, results, len(CHECKS) + len(FURTHER)
    kit = import_module(f"losslab.conformance.{kind}_checks")
    with ExitStack() as stack:
        subject = kit.subject(config, stack)
        return config[kind]["_target_"].rpartition(".")[2], _examine(kit.CHECKS, subject), len(kit.CHECKS)


def _examine(checks: Mapping[str, Callable[[Any], str]], subject: Any) -> list[Result]:
    """The result of every check, in order; of the first alone where it fails."""
    results: list[Result] = []
    for name, check in checks.items():
        results.append(_try(name, partial(check, subject)))
        if not results[0].passed:
            break
    return results
