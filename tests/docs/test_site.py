"""The documentation site: every page in its navigation, links that lead somewhere, nothing loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import losslab

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


def in_nav(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from in_nav(target) if isinstance(target, list) else [target]


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as mkdocs and GitHub make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = (
        re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    )
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(in_nav(CONFIG["nav"])) == [page for page in PAGES if page not in CONFIG["exclude_docs"].split()]


def test_the_first_page_names_every_page() -> None:
    named = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert {page for page in PAGES if "/" not in page} - named == {"index.md", *CONFIG["exclude_docs"].split()}


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS / page
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        place, _, anchor = target.partition("#")
        if re.match(r"\w+:", place):
            continue
        file = path.parent / place if place else path
        if not file.is_file() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
        elif not page.startswith("../"):
            assert DOCS in file.resolve().parents, f"{target} is not on the site: write its name without a link"
    assert broken == []


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs the extra docs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=200)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    loaded = {
        url
        for text in pages.values()
        for url in re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(http[^\s\">]+)", text)
    }
    assert loaded == set()
    assert 'id="losslab.api.calls.train"' in (tmp_path / "site/api/python.html").read_text(encoding="utf-8")


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == losslab.__version__ and cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys() and cited["license"] == "Apache-2.0"
