"""Ship conf/ inside the wheel, but not in an editable install, which would freeze a copy of it."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShipConf(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["conf"] = "losslab/conf"
