"""`losslab doctor`: what is installed, what this machine has, and what works here."""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import losslab
from losslab.console import out, say
from losslab.errors import UserError
from losslab.sweeps import server
from losslab.sweeps.job import probe

_OWN_EXTRA = "dev"
"""Names what only work on losslab itself needs."""
_SIZE, _ROUNDS = 512, 5
"""Width of the products that are timed, and how often each is."""
_PATIENCE = 120.0
"""Seconds."""
_REQUIREMENT = re.compile(r"^\s*([\w.-]+)[^;]*(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")


def doctor(folder: Path, *, as_json: bool) -> int:
    """Print what there is; returns 0, whatever is missing.

    Args:
        folder: the output folder, which need not exist.
        as_json: for programs.
    """
    found = examine(folder)
    if as_json:
        out.print_json(json.dumps(found))
    else:
        for heading, lines in _told(found).items():
            for i, line in enumerate(lines):
                say(f"{heading if i == 0 else '':<11}{line}")
    return 0


def examine(folder: Path) -> dict[str, Any]:
    """All findings, as plain values."""
    began = time.monotonic()
    server.warm_up()  # it imports torch while this process does
    required, optional = _packages()
    import torch  # seconds

    from losslab.training.process.devices import cores

    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    devices = [_device(torch, name) for name in _device_names(torch)]
    return {
        "losslab": losslab.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": required,
        "optional": optional,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "processes": _processes(began),
        "disk": {"folder": str(folder), "free_gib": round(shutil.disk_usage(place).free / 2**30, 1)},
    }


def _packages() -> tuple[dict[str, str | None], dict[str, dict[str, str | None]]]:
    """Versions of the packages that losslab needs, and by extra of those that it can use; None where one is missing."""
    required: dict[str, str | None] = {}
    optional: dict[str, dict[str, str | None]] = {}
    for text in metadata.requires("losslab") or []:
        match = _REQUIREMENT.match(text)
        assert match is not None, text
        name, extra = match.groups()
        if extra is None:
            required[name] = _version(name)
        elif extra != _OWN_EXTRA:
            optional.setdefault(extra, {})[name] = _version(name)
    return required, optional


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_names(torch: Any) -> list[str]:
    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def _device(torch: Any, name: str) -> dict[str, Any]:
    """A device, and whether it computes in bfloat16: how many times as fast as in float32."""
    found: dict[str, Any] = {"name": name, "bf16": False, "bf16_speed": None, "error": None}
    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        found |= {"model": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    try:
        seconds = {dtype: _seconds(torch, name, dtype) for dtype in (torch.float32, torch.bfloat16)}
        found |= {"bf16": True, "bf16_speed": round(seconds[torch.float32] / seconds[torch.bfloat16], 2)}
    except (RuntimeError, TypeError, NotImplementedError) as error:
        found["error"] = " ".join(str(error).split())
    return found


def _seconds(torch: Any, device: str, dtype: Any) -> float:
    """The quickest of some products."""
    factor = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    wait: Callable[[], Any] = torch.accelerator.synchronize if device != "cpu" else lambda: None
    times = []
    for _ in range(_ROUNDS):
        wait()
        start = time.perf_counter()
        factor @ factor
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def _processes(began: float) -> dict[str, Any]:
    """Whether a process for a run can be started, as a sweep starts its runs."""
    found: dict[str, Any] = {"method": server.METHOD, "works": False, "seconds": None, "error": None}
    try:
        process, answer = server.follow(probe, name="doctor")
    except (UserError, OSError) as error:
        return found | {"error": str(error)}
    try:
        found["works"] = bool(answer.poll(_PATIENCE) and answer.recv())
        found["seconds"] = round(time.monotonic() - began, 1)
    except EOFError:
        pass
    if not found["works"]:
        process.kill()
        found["error"] = f"no answer within {_PATIENCE:.0f} seconds, or the process ended"
    process.join()
    answer.close()
    return found


def _told(found: dict[str, Any]) -> dict[str, list[str]]:
    """Heading → lines."""
    processes, disk = found["processes"], found["disk"]
    works = f"{processes['method']} works, ready after {processes['seconds']} s"
    return {
        "losslab": [f"{found['losslab']} with Python {found['python']} ({found['executable']}) on {found['platform']}"],
        "packages": [_listed(found["packages"])],
        "optional": [
            f"{extra}: {_listed(packages)}" + (f"; pip install 'losslab[{extra}]'" if None in packages.values() else "")
            for extra, packages in found["optional"].items()
        ],
        "cpu": [f"{found['cores']} cores, {found['threads']} threads"],
        "devices": [_device_line(device) for device in found["devices"]],
        "processes": [works if processes["works"] else f"{processes['method']} fails: {processes['error']}"],
        "disk": [f"{disk['free_gib']:,.1f} GiB free for {disk['folder']}"],
    }


def _listed(packages: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'is missing'}" for name, version in packages.items())


def _device_line(device: dict[str, Any]) -> str:
    about = f" ({device['model']}, {device['memory_gib']} GiB)" if "model" in device else ""
    if not device["bf16"]:
        return f"{device['name']}{about}: no bfloat16 ({device['error']})"
    return f"{device['name']}{about}: bfloat16 works, products {device['bf16_speed']:g} times as fast as in float32"
