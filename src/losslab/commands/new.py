"""`losslab new`: a small research project, out of the files in project/."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

from losslab.console import say
from losslab.errors import UserError

_TEMPLATES = Path(__file__).parent / "project"
_SUFFIX = ".in"
_PACKAGE = "package"
"""The folder of the project's own classes, among the templates."""
_TAKEN = ("conf", "outputs", "tests")
"""Further folders of a project."""


def new(project: Path) -> int:
    """Write a project that is named after its folder, and say what to type next. Returns the exit code, 0.

    Raises:
        UserError: where the folder holds anything, or gives the package no name.
    """
    name = project.resolve().name
    package = package_name(name)
    if project.exists() and not project.is_dir():
        raise UserError(f"{project} is a file: name a folder that there is not yet")
    if project.is_dir() and any(project.iterdir()):
        raise UserError(f"{project} is not empty: name a folder that there is not yet, or an empty one")
    words = {"project": package.replace("_", "-"), "package": package}
    for template in sorted(_TEMPLATES.rglob(f"*{_SUFFIX}")):
        path = project / _place(template, package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        say(f"wrote {path}")
    say(f"next: cd {project}, and what its README.md begins with: pytest")
    return 0


def package_name(name: str) -> str:
    """The name of a project's package. Raises UserError where there is none that Python could import.

    Args:
        name: of the project's folder.
    """
    package = re.sub(r"[-. ]+", "_", name).strip("_")
    if not (package.isascii() and package.isidentifier()):
        raise UserError(
            f"{name!r} gives the project's package no name: begin with a letter, and go on with letters of ASCII, "
            "digits, - and _"
        )
    if keyword.iskeyword(package) or package in _TAKEN:
        whose = "a word of Python's" if keyword.iskeyword(package) else "a folder of the project"
        raise UserError(f"{package} is {whose}, and no name for its package: choose another")
    if package in sys.stdlib_module_names or _is_installed(package):
        raise UserError(f"a module named {package} is installed, and would be imported instead: choose another name")
    return package


def _is_installed(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # without: a folder that happens to have that name


def _place(template: Path, package: str) -> Path:
    """The place of a file in the project."""
    *folders, file = template.relative_to(_TEMPLATES).parts
    names = [package if name == _PACKAGE else name for name in folders]
    return Path(*names, file.removesuffix(_SUFFIX).removeprefix("dot"))
