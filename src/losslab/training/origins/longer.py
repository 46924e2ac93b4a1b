"""Explain how to get a longer budget, where `losslab resume` is asked for one."""

from __future__ import annotations

import re
import shlex
from typing import Any

from losslab.config.binding import bind_components
from losslab.config.check import nominal_tokens
from losslab.errors import UserError
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder
from losslab.training.factory import hash_inputs
from losslab.training.origins.origin import KEY, Origins

_BUDGET = ("trainer.max_steps", "trainer.max_tokens", "trainer.max_epochs")
_REPLACED = (*_BUDGET, KEY, "fresh")
_CONFIG_DIR = re.compile(r"(--config-dir|-cd)[= ](\S+)")


def refuse_other_budget(run: RunFolder, record: Record, config: dict[str, Any], overrides: list[str]) -> None:
    """Raise UserError for a budget among the overrides: it says how a longer run of these settings is had."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key in _BUDGET:
            raise UserError(_answer(run, record, config, key, value))


def _answer(run: RunFolder, record: Record, config: dict[str, Any], key: str, value: str) -> str:
    budget = config["trainer"]["max_steps"]
    if key == _BUDGET[2]:
        return f"{key} belongs to the run, whose budget is {budget:,} steps: ask for a longer one by {_BUDGET[0]}=N"
    try:
        asked = int(float(value))
    except (ValueError, OverflowError):
        asked = 0
    if asked < 1 or asked != float(value):
        return f"{key} belongs to the run, and must be a whole number above 0, not {value!r}"
    config = bind_components(config)
    steps = asked if key == _BUDGET[0] else -(-asked // (nominal_tokens(config["data"]) or 1))
    begun = f"{key} belongs to the run, whose budget is {budget:,} steps"
    if steps <= budget:
        rest = "" if record.status in DONE else f"; losslab resume {_quoted(run)} goes on to its end"
        return f"{begun}: {key}={asked} is no longer than that{rest}"
    if record.status not in DONE and record.step < budget:
        begun += f", of which it has done {record.step:,}"
    longer = {**config, "trainer": config["trainer"] | {"max_steps": steps}, KEY: str(run)}
    command = _command(record, f"{key}={asked}")
    try:
        Origins().find(longer, hash_inputs(longer))
    except UserError as error:
        reason = str(error).removeprefix(f"{KEY}={run}: ")
        return f"{begun}; a longer one cannot continue it ({reason}), and is trained from its first step: {command}"
    return f"{begun}; a longer one continues it: {command} {_quoted(f'{KEY}={run}')}"


def _command(record: Record, budget: str) -> str:
    kept = [text for text in record.overrides if text.lstrip("+").partition("=")[0] not in _REPLACED]
    found = _CONFIG_DIR.search(str(record.provenance.get("command", "")))
    own = ["--config-dir", found[2]] if found else []
    return " ".join(["losslab train", *map(_quoted, [*own, *kept, budget])])


def _quoted(text: Any) -> str:
    return shlex.quote(str(text))
