"""The built-in corpus: the English prose that every CPython ships. It needs no network and no download."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import tokenize
from pathlib import Path

from losslab.console import working
from losslab.errors import UserError

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled"}
_SHORTEST = 200_000
"""Characters; a Python with less than this came without its sources."""


def source_files() -> list[Path]:
    """The standard library's modules, without its tests, by their place in it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for folder, folders, names in os.walk(root):  # not rglob, which also walks through all that pip has installed
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def source_hash() -> str:
    """SHA-256 of the modules' content."""
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_texts() -> list[str]:
    """One document for each topic of pydoc and for each module's docstrings.

    Raises:
        UserError: on a Python without sources.
    """
    texts = _topics()
    files = source_files()
    for path in working(files, "reading the standard library's documentation", total=len(files)):
        if found := docstrings(path):
            texts.append("\n\n".join(found))
    if sum(map(len, texts)) < _SHORTEST:
        raise UserError("this Python came without its library's sources; use data=text data.path=… instead")
    return texts


def _topics() -> list[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # a slim installation
        return []
    return [topics[name].strip() for name in sorted(topics)]


def docstrings(path: Path) -> list[str]:
    """The docstrings of a module; none of a file that is no Python."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (SyntaxError, UnicodeDecodeError, OSError):  # a template or a deliberately broken sample among the modules
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [text for text in found if text]
