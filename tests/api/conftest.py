"""A folder with a text and losses of one's own, and a sweep that was trained in it from a thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from swept_words import WORDS

import losslab
from runs import make_text

LOSSES = '''
from losslab.losses.square import Square


class Breaks(Square):
    """Breaks at the tenth batch."""

    calls = 0

    def forward(self, features, projection):
        if self.training:
            Breaks.calls += 1
        if Breaks.calls > 9:
            raise ZeroDivisionError("on purpose")
        return super().forward(features, projection)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder; the program that calls is a script without a guard of `__name__`."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    (folder / "api_losses.py").write_text(LOSSES)
    (folder / "script.py").write_text("open('imported_again', 'w')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.setattr(sys.modules["__main__"], "__file__", str(folder / "script.py"), raising=False)
        yield folder
    assert not (folder / "imported_again").exists()


@pytest.fixture(scope="module")
def swept(lab: Path) -> losslab.Sweep:
    """Two losses with two seeds, trained from a thread."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(losslab.sweep(WORDS, progress=False))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(found[0], losslab.Sweep), found
    return found[0]
