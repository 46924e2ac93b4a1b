"""`losslab clean`: free the space that nothing needs any more, and say how much."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from losslab.console import say
from losslab.errors import UserError
from losslab.records import FILE, TEMPORARY, is_locked, read

_CACHE = ".cache"
_BLOCK = 512
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def clean(folder: Path, *, checkpoints: bool, cache: bool, dry_run: bool) -> int:
    """Remove left-overs of killed writes below `folder`, and from completed runs what only a continuation needs: every
    checkpoint but the best, and its optimizer states. Runs that are not completed, or are running, keep all of theirs.

    Args:
        checkpoints: also the best checkpoints of completed runs.
        cache: also the tokens of texts, which the next run makes again.
        dry_run: only say what would be removed.

    Raises:
        UserError: when there is no such folder, or nothing of losslab's is in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    runs = sorted(path.parent for path in folder.rglob(FILE))
    caches = [path for path in (folder / _CACHE, folder.parent / _CACHE) if path.is_dir()]
    if not runs and not caches:
        raise UserError(f"{folder} holds no runs: there is nothing to clean")
    found: dict[str, list[Path]] = defaultdict(list)
    kept: list[Path] = []
    for run in runs:
        if is_locked(run):
            say(f"left alone, because it is running: {run}")
            continue
        found["left-overs of writes that were cut off"] += [
            *run.glob(f".*{TEMPORARY}"),
            *_inside(run, f".*{TEMPORARY}"),
        ]
        if read(run).status == "completed":
            best = [*_inside(run, "best.ckpt")]
            found["checkpoints that only a continuation needs"] += [
                path for path in _inside(run, "*.ckpt") if best and path not in best
            ]
            found["best checkpoints"] += best if checkpoints else []
            kept += best if not checkpoints else []
    for place in caches:
        found["left-overs of writes that were cut off"] += place.glob(f".*{TEMPORARY}")
        found["tokenised texts"] += place.iterdir() if cache and not any(map(is_locked, runs)) else []
    freed = 0
    for kind, paths in found.items():
        if paths:
            size = _size(paths)
            freed += size
            say(f"{len(paths):>6} {kind}: {_readable(size)}")
            for path in paths if not dry_run else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if kept:
        from losslab.training.checkpoints import strip  # torch

        sizes = [size for size in (strip(path, dry_run=dry_run) for path in kept) if size]
        freed += sum(sizes)
        if sizes:
            say(f"{len(sizes):>6} optimizer states in best checkpoints: {_readable(sum(sizes))}")
    say(f"{'would free' if dry_run else 'freed'} {_readable(freed)} in {folder}")
    return 0


def _inside(run: Path, pattern: str) -> Iterator[Path]:
    return (run / "checkpoints").glob(pattern)


def _size(paths: list[Path]) -> int:
    """Bytes on the disk that go when all of these names go; a file with a further name stays."""
    names: dict[tuple[int, int], int] = defaultdict(int)
    freed = 0
    for path in paths:
        for file in [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]:
            status = file.stat()
            key = (status.st_dev, status.st_ino)
            names[key] += 1
            if names[key] == status.st_nlink:
                freed += status.st_blocks * _BLOCK
    return freed


def _readable(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:,.1f} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:,.1f} {_UNITS[-1]}"
