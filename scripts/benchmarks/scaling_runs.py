"""Commands whose time grows with the number of runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.compare import LOSSES, TINY, Size, make
from benchmarks.tools.busy import watched

SHORT = (
    "data.tokenizer=bytes model/size=nano data=text data.path=text.txt trainer.enable_progress_bar=false "
    "trainer.max_steps=60 trainer.val_check_interval=60 scheduler.warmup_steps=20"
).split()
CHARACTERS = 200_000
POINTS = 50
"""Logged steps of a made-up run."""


class Sweeps:
    """losslab train -m of so many short runs on this machine, each with seeds of its own.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path, sizes: Iterable[int]) -> None:
        from losslab.data.python_docs import read_texts

        del sizes
        self._folder, self._count = folder, 0
        (folder / "text.txt").write_text("\n\n".join(read_texts())[:CHARACTERS], encoding="utf-8")
        self.seconds(2)  # which prepares the text

    def seconds(self, runs: int) -> tuple[float, float]:
        """Wall and CPU seconds, those of all processes."""
        self._count += 1
        name = f"sweep-{self._count}"
        words = [f"seed=range(1,{runs // 2 + 1})", "loss=cross_entropy,kl_divergence", f"name={name}", "--yes"]
        command = [sys.executable, "-m", "losslab", "train", "-m", *SHORT, *words]
        found = watched(command, self._folder, self._folder / "outputs" / name)
        return found.wall, found.cpu


class Comparisons:
    """losslab compare of so many made-up runs of four losses.

    Args:
        folder: an empty one.
        sizes: multiples of four.
    """

    def __init__(self, folder: Path, sizes: Iterable[int]) -> None:
        subprocess.run([sys.executable, "-m", "losslab", "train", *TINY], cwd=folder, check=True, capture_output=True)
        (original,) = (path.parent for path in folder.glob("outputs/one/*/run.json"))
        self._folders = {}
        for runs in sizes:
            self._folders[runs] = folder / f"runs-{runs}"
            make(original, self._folders[runs], Size(len(LOSSES) - 1, 1, runs // (len(LOSSES) - 1), POINTS))

    def seconds(self, runs: int) -> tuple[float, float]:
        """Wall and CPU seconds."""
        command = [sys.executable, "-m", "losslab", "compare", str(self._folders[runs])]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        return time.monotonic() - began, usage.ru_utime + usage.ru_stime
