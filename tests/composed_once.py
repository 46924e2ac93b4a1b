"""Hydra's composing, once for each command line: it takes 80 ms, and most tests ask for what another has asked for."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf

from losslab.config.paths import conf_dir

KNOWN = {"pkg://hydra.conf", "structured://", str(conf_dir()), f"file://{conf_dir()}"}
"""The folders whose files stay as they are while the tests run."""


@contextmanager
def composing_once() -> Iterator[None]:
    """Within, each text of a yaml is parsed once, and each command line that reads no other folder is composed once.

    The key holds all that Hydra composes from, except the current folder, which is filled in for each caller.
    """
    load, load_configuration = OmegaConf.load, ConfigLoaderImpl.load_configuration
    parsed: dict[str, Any] = {}
    composed: dict[Any, DictConfig] = {}

    def parse(file: Any) -> Any:
        if not isinstance(file, io.TextIOBase):
            return load(file)
        text = file.read()
        if text not in parsed:
            parsed[text] = load(io.StringIO(text))
        return copy.deepcopy(parsed[text])

    def compose(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], **options: Any) -> DictConfig:
        folders = {element.path for element in self.config_search_path.get_path()}
        if not folders <= KNOWN or any("searchpath" in override for override in overrides):
            return load_configuration(self, config_name, overrides, **options)
        job = JobRuntime.instance().get("name"), version.getbase()
        key = config_name, tuple(overrides), tuple(sorted(options.items())), job
        if key not in composed:
            composed[key] = load_configuration(self, config_name, overrides, **options)
        config = copy.deepcopy(composed[key])
        config.hydra.runtime.cwd = str(Path.cwd())
        return config

    with patch.object(OmegaConf, "load", parse), patch.object(ConfigLoaderImpl, "load_configuration", compose):
        yield
