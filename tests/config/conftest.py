"""Typed overrides → the configuration that a run would get."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain


@functools.cache
def _settle(typed: tuple[str, ...]) -> dict[str, Any]:
    return resolve_split(resolve_budget(bind_components(check_run(compose_plain(list(typed))))))


@pytest.fixture(scope="session")
def settle() -> Callable[..., dict[str, Any]]:
    """Compose, check, bind and resolve, as `losslab train` does before it reads any data."""
    return lambda *typed: copy.deepcopy(_settle(typed))
