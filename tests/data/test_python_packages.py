"""The built-in classification set, on a small library of the test's own."""

from pathlib import Path

import pytest

from losslab.data import python_docs
from losslab.data.python_packages import PackageRows
from losslab.data.table_format import Skipped
from losslab.errors import UserError


def module(*docstrings: str) -> str:
    return "".join(f'def f{i}():\n    """{text}"""\n\n\n' for i, text in enumerate(docstrings))


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "inner.py").write_text(
        module("Open the first door.", "Close the ALPHA of doors.", "Too short.")
    )
    (tmp_path / "alpha" / "more.py").write_text(
        module("Return what both of them return.", "Ask alphabetical doors again.")
    )
    (tmp_path / "beta.py").write_text(module("Paint a wall in red.", "Paint a wall in blue."))
    (tmp_path / "_beta.py").write_text(module("Paint a wall in blue.", "Paint nothing at all here."))
    (tmp_path / "small.py").write_text(module("Return what both of them return.", "Stand alone in a package."))
    (tmp_path / "broken.py").write_text("def (")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    return tmp_path


def test_docstrings_have_the_label_of_their_package_and_never_its_name(library) -> None:
    skipped = Skipped()
    rows = list(PackageRows(fewest=1, shortest=4).rows("train", ["text", "label"], skipped))
    assert [(place, row["label"], row["text"]) for place, row in rows] == [
        ("alpha/inner.py", "alpha", "Open the first door."),
        ("alpha/more.py", "alpha", "Ask alphabetical doors again."),
        ("beta.py", "beta", "Paint a wall in red."),
        ("small.py", "small", "Stand alone in a package."),
    ]
    assert skipped == {
        "short docstrings": 1,
        "docstrings that name their package": 1,
        "docstrings of several packages": 3,
        "docstrings of small packages": 0,
    }
    with pytest.raises(UserError, match=r"data.source.fewest=2 is more than its packages have"):
        list(PackageRows(fewest=2, shortest=4).rows("train", ["text"], Skipped()))


def test_the_hash_is_of_the_library_and_the_settings(library) -> None:
    hashes = [PackageRows(fewest=n).hashes(None)["data.source"] for n in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]
    (library / "beta.py").write_text(module("Paint a wall in green."))
    assert PackageRows(fewest=1).hashes(None)["data.source"] != hashes[0]
    assert python_docs.docstrings(library / "broken.py") == []
    with pytest.raises(UserError, match=r"data.source.shortest must be above 0, not 0"):
        PackageRows(shortest=0).check()
