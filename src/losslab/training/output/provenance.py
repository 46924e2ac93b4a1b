"""Provenance of a run's numbers: code, versions, machine."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import losslab
from losslab.config.binding import import_target
from losslab.records import COMMAND
from losslab.run_folder import RunFolder

_PACKAGES = ["torch", "lightning", "hydra-core", "omegaconf", "tensorboard", "tokenizers", "numpy"]

_OWN_FILES = [":(top)*.py", ":(top)*.yaml", ":(top)*.yml", ":(top)*.toml", ":(top)*.sh"]
"""Files that decide a run, apart from its data, whose content is hashed."""


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a run's numbers."""
    own = {"python": platform.python_version(), "losslab": losslab.__version__}  # which may run from its sources
    return own | {name: importlib.metadata.version(name) for name in _PACKAGES}


def provenance(run: RunFolder) -> dict[str, Any]:
    """The state of the repository that the command was typed in, the command, its folder, and where the run was made.

    `diff` is the SHA-256 of everything that is not committed: changes of tracked files, and new code and configuration.
    """
    top = Path(_git("rev-parse", "--show-toplevel") or ".")
    outputs = os.path.relpath(run.absolute().sweep.parent, top)
    files = list(_OWN_FILES)
    if not outputs.startswith("."):
        files.append(f":(top,exclude){outputs}")  # configurations that runs wrote
    status = _git("status", "--porcelain", "--", *files)
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "diff": _hash_changes(top, files) if status else None,
        "command": os.environ.get(COMMAND) or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "folder": str(run.absolute()),
        "started_in": str(Path.cwd()),
        "changes": [],
    }


def _hash_changes(top: Path, files: list[str]) -> str:
    changes = _git("diff", "HEAD", "--", *files) or ""
    digest = hashlib.sha256(changes.encode(errors="surrogateescape"))
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", *files) or ""
    for name in sorted(filter(None, new.split("\0"))):
        with contextlib.suppress(OSError):
            digest.update(name.encode(errors="surrogateescape") + b"\0" + (top / name).read_bytes())
    return digest.hexdigest()


def hash_code(foreign: list[str]) -> dict[str, str]:
    """SHA-256 of losslab's sources, `code`, and of the files of a person's own classes, `own_code`, if any."""
    package = Path(losslab.__file__).parent
    files = sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix())
    own = [inspect.getsourcefile(import_target(name, name)) for name in foreign]
    hashes = {"code": _hash_files(files)}
    return hashes | ({"own_code": _hash_files([Path(path) for path in own if path])} if foreign else {})


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hardware(device: torch.device, ranks: int) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "ranks": ranks,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "host": platform.node(),
    }


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode(errors="surrogateescape").strip()
