"""A classification set that every CPython ships: the package of the standard library that a docstring comes from."""

from __future__ import annotations

import hashlib
import json
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from losslab.console import working
from losslab.data import python_docs
from losslab.data.row_source import RowSource
from losslab.data.stamps import kept
from losslab.data.table_format import Row, Skipped
from losslab.errors import UserError

_FORMAT = 1
_FEWEST_PACKAGES = 2


class PackageRows(RowSource):
    """Docstrings as `text`, the package or module at the top of the library as `label`.

    A docstring that has its package's name as a word gives its label away: it is left out, as are short ones, and those
    that stand in several packages. Private packages (`_pyio`) and those with few docstrings are no labels.

    Args:
        fewest: docstrings of a package.
        shortest: words of a docstring.
    """

    def __init__(self, *, fewest: int = 80, shortest: int = 5) -> None:
        self.fewest = fewest
        self.shortest = shortest

    def check(self) -> None:
        for name, value in (("fewest", self.fewest), ("shortest", self.shortest)):
            if value <= 0:
                raise UserError(f"data.source.{name} must be above 0, not {value}")

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        return [("python_packages", ["text", "label"])]

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        """Rows in the order of the files. Raises UserError on a Python without sources."""
        root = Path(sysconfig.get_paths()["stdlib"])
        found: list[tuple[str, str, str]] = []
        packages_of: dict[str, set[str]] = defaultdict(set)
        files = python_docs.source_files()
        for path in working(files, "reading the standard library's docstrings", total=len(files)):
            place = path.relative_to(root)
            package = place.parts[0].removesuffix(".py")
            for text in python_docs.docstrings(path):
                packages_of[text].add(package)
                if package.startswith("_"):
                    continue
                if len(text.split()) < self.shortest:
                    skipped["short docstrings"] += 1
                elif re.search(rf"\b{re.escape(package)}\b", text, re.IGNORECASE):
                    skipped["docstrings that name their package"] += 1
                else:
                    found.append((place.as_posix(), package, text))
        alone = [row for row in found if len(packages_of[row[2]]) == 1]
        skipped["docstrings of several packages"] += len(found) - len(alone)
        counts = Counter(package for _, package, _ in alone)
        kept_rows = [row for row in alone if counts[row[1]] >= self.fewest]
        skipped["docstrings of small packages"] += len(alone) - len(kept_rows)
        if len({package for _, package, _ in kept_rows}) < _FEWEST_PACKAGES:
            raise UserError(
                "data=python_packages: this Python came without its library's sources, or data.source.fewest="
                f"{self.fewest} is more than its packages have; data=csv data.path=FILE reads rows of your own"
            )
        for place_of, package, text in kept_rows:
            cells = {"text": text, "label": package}
            yield place_of, {column: cells[column] for column in columns}

    def hashes(self, memory: Path | None) -> dict[str, str]:
        def find() -> dict[str, str]:
            about = [_FORMAT, python_docs.source_hash(), self.fewest, self.shortest]
            return {"data.source": hashlib.sha256(json.dumps(about).encode()).hexdigest()}

        about = ["python_packages", _FORMAT, self.fewest, self.shortest]
        return kept(memory, python_docs.source_files(), about, find)

    def told(self) -> str:
        return "docstrings of the standard library, by package"
