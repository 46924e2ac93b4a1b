"""docs/python.md and the notebook do what they say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import losslab

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = DOCS / "first_comparison.ipynb"


def outputs_of(notebook: Any, cell_id: str) -> list[Any]:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return list(cell.outputs)


def shown(notebook: Any, cell_id: str, kind: str = "text/plain") -> str:
    return "".join(out["data"].get(kind, "") for out in outputs_of(notebook, cell_id) if "data" in out)


def test_the_notebook_runs_headless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=240, startup_timeout=240, resources=place)
    asyncio.run(client.async_execute())
    assert "completed, step 40 of 40" in shown(notebook, "train", "text/html")
    assert "<progress" not in json.dumps(notebook.cells), "the bar goes when the run has ended"
    assert shown(notebook, "swept").endswith("<Sweep of 4 runs: 4 completed>")
    printed = "".join(out.get("text", "") for out in outputs_of(notebook, "swept"))
    assert "runs: 3 completed, 1 skipped" in printed and "\x1b" not in printed
    assert "2 shared seeds: too few for a claim" in shown(notebook, "compare", "text/html")
    assert "'square'" in shown(notebook, "verdicts")
    assert shown(notebook, "figure", "image/png").startswith("iVBOR")
    assert [out["name"] for out in outputs_of(notebook, "load")] == ["stdout"]
    assert shown(notebook, "predict").count("probability") == 5


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}


def test_every_function_and_option_stands_on_the_page() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in ("train", "sweep", "compare", "runs", "load"):
        function = getattr(losslab, name)
        assert f"`losslab.{name}(" in page
        options = [option for option in function.__annotations__ if option not in ("return", "objects")]
        assert [option for option in options if option not in page] == []
    assert all(name in page for name in losslab.__all__)
