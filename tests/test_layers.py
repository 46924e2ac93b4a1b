"""The house rules of DESIGN.md, read off the source: who imports whom, who needs no torch, how long files are."""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import losslab

SOURCE = Path(losslab.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ROWS = [
    {"__main__"},
    {"cli"},
    {"cli_tools", "api"},
    {"commands"},
    {"comparison"},
    {"sweeps"},
    {"conformance", "inspection"},
    {"training", "integrations"},
    {"functional"},
    {"config"},
    {"losses", "models", "tasks", "data", "loggers"},
    {"metrics", "sequential"},
    {
        "contracts",
        "choices",
        "metric",
        "migrations",
        "numbers",
        "pairing",
        "products",
        "run_folder",
        "records",
        "reports",
        "threads",
        "files",
        "event_file",
        "locks",
        "errors",
        "console",
    },
]
"""From the top of the house to its foundation."""
FOUNDATION = len(ROWS) - 1
LONGEST_FILE = 300
HEAVY = ("torch", "lightning", "pytorch_lightning", "torchmetrics", "transformers", "datasets")
LATE = {"losslab": "its functions import what they need when they are called, and files below read its version"}
"""Modules whose own imports make no circle, and why."""
WITHOUT_TORCH = [
    "losslab",
    "losslab.choices",
    "losslab.cli",
    "losslab.cli_tools",
    "losslab.console",
    "losslab.errors",
    "losslab.event_file",
    "losslab.files",
    "losslab.locks",
    "losslab.metric",
    "losslab.metrics.table",
    "losslab.migrations",
    "losslab.numbers",
    "losslab.pairing",
    "losslab.records",
    "losslab.reports",
    "losslab.run_folder",
    "losslab.threads",
    *sorted(f"losslab.api.{path.stem}" for path in (SOURCE / "api").glob("*.py") if path.stem != "__init__"),
    *sorted(f"losslab.commands.{path.stem}" for path in (SOURCE / "commands").glob("*.py") if path.stem != "__init__"),
    *(
        f"losslab.config.{name}"
        for name in (
            *("schema", "compose", "mistakes", "paths", "identity", "check", "components", "trust"),
            *("axes", "words", "foreign", "binding", "jobs"),
        )
    ),
    *(f"losslab.sequential.{path.stem}" for path in (SOURCE / "sequential").glob("*.py") if path.stem != "__init__"),
    *sorted(
        ".".join(["losslab", *path.relative_to(SOURCE).with_suffix("").parts])
        for path in (SOURCE / "comparison").rglob("*.py")
        if path.stem != "__init__"
    ),
]


@dataclass(frozen=True)
class Import:
    """One imported module, and where that happens."""

    path: Path
    line: int
    module: str
    for_types: bool
    """Only under `if TYPE_CHECKING`."""

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line}"


@functools.cache
def find_imports(path: Path) -> list[Import]:
    """Every import of a file, inside functions too, by the full name of what is imported."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and is_for_types(node.test)]
    for_types = {id(inner) for guard in guards for statement in guard.body for inner in ast.walk(statement)}
    package = ["losslab", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(path, node.lineno, module, id(node) in for_types) for module in modules)


def is_for_types(condition: ast.expr) -> bool:
    names = {getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(condition)}
    return "TYPE_CHECKING" in names


def all_imports() -> list[Import]:
    """Those of all files, found when a test asks: every worker of pytest imports this file."""
    return [found for path in FILES if path != SOURCE / "__init__.py" for found in find_imports(path)]


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def row_of(room: str) -> int:
    return next(row for row, rooms in enumerate(ROWS) if room in rooms)


def breaks_the_order(found: Import) -> bool:
    """A room imports itself and what stands below it. The rooms of one row know one another only as types, and the
    files of the foundation, which is one room, as they like."""
    importer, imported = room_of(found.path), found.module.split(".")[1]
    own, other = row_of(importer), row_of(imported)
    if importer == imported or own < other or own == other == FOUNDATION:
        return False
    return not (own == other and found.for_types)


def test_every_room_has_its_place() -> None:
    known = set().union(*ROWS)
    unplaced = {room_of(path) for path in FILES if path.parent != SOURCE or path.stem != "__init__"} - known
    assert not unplaced, f"add {unplaced} to ROWS, where DESIGN.md says they stand"


def test_a_room_imports_only_what_stands_below_it() -> None:
    imports = [found for found in all_imports() if found.module.startswith("losslab.")]
    own = [found for found in imports if found.module != "losslab.__version__"]
    assert len(own) > 50, "the imports are not found"
    assert [f"{found.place} imports {found.module}" for found in own if breaks_the_order(found)] == []


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("from losslab.losses.base import Loss", True),
        ("def f():\n    from losslab.losses.base import Loss", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from losslab.losses.base import Loss", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from losslab.config.check import check_run", True),
        ("import losslab.training.run", True),
        ("from ..training import run", True),
        ("from .decoder import Decoder", False),
        ("from losslab.contracts import Batch", False),
    ],
)
def test_the_rule_sees_each_kind_of_import(source: str, broken: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    path = tmp_path / "models" / "sample.py"
    path.parent.mkdir()
    path.write_text(source)
    own = [found for found in find_imports(path) if found.module.startswith("losslab.")]
    assert [breaks_the_order(found) for found in own] == [broken]


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join([SOURCE.name, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def find_circles(files: list[Path]) -> list[list[str]]:
    """Modules that import one another, each circle once; an import inside a function or for types alone counts."""
    paths = {module_of(path): path for path in files}
    graph = {
        module: {name for found in find_imports(path) if (name := nearest(found.module, paths)) not in ("", module)}
        for module, path in paths.items()
    }
    reached = {module: reach(module, graph) for module in graph}
    circles = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return [list(circle) for circle in sorted(circles)]


def nearest(name: str, paths: dict[str, Path]) -> str:
    """The file that an imported name comes from: the longest part of it that is one; empty for another package's."""
    while name and name not in paths:
        name = name.rpartition(".")[0]
    return name


def reach(start: str, graph: dict[str, set[str]]) -> set[str]:
    """The modules that one imports, directly or through others."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(graph[module])
    return reached


def test_no_files_import_one_another() -> None:
    assert find_circles([path for path in FILES if module_of(path) not in LATE]) == []


@pytest.mark.parametrize(
    "line",
    [
        "from losslab.losses.base import Loss",
        "from .base import Loss",
        "def f():\n    from losslab.losses import base",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import losslab.losses.base",
    ],
)
def test_a_circle_is_found_whichever_way_it_closes(line: str, tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "losslab"
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", source)
    (source / "losses").mkdir(parents=True)
    sources = {
        "base": "from losslab.losses.execution import run",
        "execution": "import torch\nfrom losslab.losses.targets import check",
        "targets": line,
        "square": "from losslab.losses.base import Loss",
    }
    files = [source / "losses" / f"{name}.py" for name in sources]
    for path in files:
        path.write_text(sources[path.stem])
    circle = [f"losslab.losses.{name}" for name in ("base", "execution", "targets")]
    assert find_circles(files) == [circle]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("functional", {"lightning", "pytorch_lightning", "hydra", "omegaconf"}),
        ("losses", {"lightning", "pytorch_lightning", "hydra", "omegaconf"}),
        ("models", {"lightning", "pytorch_lightning", "hydra", "omegaconf"}),
        ("metrics", {"lightning", "pytorch_lightning", "hydra", "omegaconf"}),
        ("comparison", {"torch", "lightning", "pytorch_lightning", "hydra"}),
        ("sequential", {"torch", "lightning", "pytorch_lightning", "hydra", "omegaconf"}),
        ("data", {"hydra", "omegaconf"}),
        ("training", {"hydra"}),
    ],
)
def test_rooms_stay_free_of_frameworks_they_must_not_know(room: str, forbidden: set[str]) -> None:
    own = [found for found in all_imports() if room_of(found.path) == room]
    assert own
    assert [f"{found.place} imports {found.module}" for found in own if found.module.split(".")[0] in forbidden] == []


def test_what_answers_at_once_imports_no_torch() -> None:
    assert "losslab.comparison.output.figures.style" in WITHOUT_TORCH
    program = f"""
import importlib, json, sys
loaded = {{}}
for name in {WITHOUT_TORCH!r}:
    importlib.import_module(name)
    heavy = [module for module in {HEAVY!r} if module in sys.modules]
    if heavy and not loaded:
        loaded[name] = heavy
print(json.dumps(loaded))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == {}


RUN_FILES = {
    *("run.json", "config.yaml", "metrics.csv", "train.log", "test_scores.npz", "evaluations.jsonl", "job.json"),
    *("last.ckpt", "best.ckpt", "stable.ckpt", "stable-best.ckpt"),
}
FOR_RUN_FOLDER = {
    *(f"losslab.records.{name}" for name in ("read", "read_config", "write_config", "CONFIG")),
    *(f"losslab.locks.{name}" for name in ("lock", "is_locked", "LOCK")),
}


def test_the_files_of_a_run_are_reached_through_its_folder_alone() -> None:
    makers = {SOURCE / f"{name}.py" for name in ("run_folder", "records", "reports", "locks")}
    others = [path for path in FILES if path not in makers]
    named = {
        f"{path.relative_to(SOURCE)}:{node.lineno} names {node.value}"
        for path in others
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in RUN_FILES
    }
    assert named == set()
    imported = [f"{found.place} imports {found.module}" for found in all_imports() if found.module in FOR_RUN_FOLDER]
    assert [text for text in imported if text.partition(":")[0] not in {path.name for path in makers}] == []
    whole = (SOURCE / "run_folder.py").read_text(encoding="utf-8") + (SOURCE / "records.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in whole for name in RUN_FILES), "this test looks for names that are gone"


def test_files_stay_readable() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert len(lengths) > 30
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}
