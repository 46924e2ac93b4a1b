"""Hydra's composing, once for each choice of groups: it takes 60 ms, and a run composes three times."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import version
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf

from losslab.choices import conf_dir

KNOWN = {"pkg://hydra.conf", "structured://", str(conf_dir()), f"file://{conf_dir()}"}
"""The folders whose files stay as they are while the tests run."""


def only_known(repo: IConfigRepository) -> bool:
    """Whether no other folders are read."""
    return {source.full_path() for source in repo.get_sources()} <= KNOWN


@contextmanager
def composing_once() -> Iterator[None]:
    """Within, what was composed of the same files before is copied.

    Each text of a yaml is parsed once, and each word of a command line. Each choice of groups is looked up and merged
    once; single values are then set in a copy. Each command line is composed once: its key holds all that Hydra
    composes from, except the current folder, which is filled in for each caller.
    """
    if getattr(OmegaConf.load, "__module__", "") == __name__:  # a fork of a process that composes so
        yield
        return
    load, load_configuration = OmegaConf.load, ConfigLoaderImpl.load_configuration
    list_defaults = config_loader_impl.create_defaults_list
    merge_all = ConfigLoaderImpl._compose_config_from_defaults_list
    parse_rule = OverridesParser.parse_rule
    known: dict[Any, bytes] = {}

    def copy_of(key: Any, make: Callable[[], Any]) -> Any:
        """An unpickled copy takes a quarter of the time of a deep one."""
        if key not in known:
            known[key] = pickle.dumps(make(), pickle.HIGHEST_PROTOCOL)
        return pickle.loads(known[key])

    def parse(file: Any) -> Any:
        if not isinstance(file, io.TextIOBase):
            return load(file)
        text = file.read()
        return copy_of(text, lambda: load(io.StringIO(text)))

    def compose(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], **options: Any) -> DictConfig:
        folders = {element.path for element in self.config_search_path.get_path()}
        if not folders <= KNOWN or any("searchpath" in override for override in overrides):
            return load_configuration(self, config_name, overrides, **options)
        job = JobRuntime.instance().get("name"), version.getbase()
        key = config_name, tuple(overrides), tuple(sorted(options.items())), job
        config: DictConfig = copy_of(key, lambda: load_configuration(self, config_name, overrides, **options))
        config.hydra.runtime.cwd = str(Path.cwd())
        return config

    def list_once(
        repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **options: Any
    ) -> Any:
        if not only_known(repo):
            return list_defaults(repo, config_name, overrides_list, **options)
        choices: list[Override] = []
        values: list[Override] = []
        for override in overrides_list:
            if not override.is_sweep_override():
                (choices if chooses_group(repo, override) else values).append(override)
        key = "defaults", config_name, tuple(one.input_line for one in choices), tuple(sorted(options.items()))
        defaults = copy_of(key, lambda: list_defaults(repo, config_name, choices, **options))
        defaults.config_overrides = defaults.overrides.config_overrides = values
        return defaults

    def merge_once(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if not only_known(repo):
            return merge_all(self, defaults, repo)
        merged: DictConfig = copy_of(("merged", repr(defaults)), lambda: merge_all(self, defaults, repo))
        return merged

    def parse_word(self: OverridesParser, word: str, rule: str) -> Any:
        return copy_of(("word", word, rule), lambda: parse_rule(self, word, rule))

    def cache_files(self: CachingConfigRepository, delegate: IConfigRepository) -> None:
        """As Hydra's, which copies every source in 3 ms, so that another list of sources is another repository's."""
        self.delegate, self.cache = copy(delegate), {}

    with ExitStack() as stack:
        for owner, name, replacement in [
            (OmegaConf, "load", parse),
            (ConfigLoaderImpl, "load_configuration", compose),
            (config_loader_impl, "create_defaults_list", list_once),
            (ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once),
            (OverridesParser, "parse_rule", parse_word),
            (CachingConfigRepository, "__init__", cache_files),
        ]:
            stack.enter_context(patch.object(owner, name, replacement))
        yield


def chooses_group(repo: IConfigRepository, override: Override) -> bool:
    """As Hydra's `Overrides` has it."""
    return not isinstance(override.value(), dict) and repo.group_exists(override.key_or_group)
