"""`losslab clean`: free the space that nothing needs any more, and say how much."""

from __future__ import annotations

import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

from filelock import FileLock, Timeout

from losslab.console import complain, say
from losslab.errors import UserError
from losslab.files import TEMPORARY
from losslab.records import FILE
from losslab.run_folder import RunFolder

_TORN = f".*{TEMPORARY}"
_KEY = re.compile(r"[0-9a-f]{20}")
_BLOCK = 512
_STEP = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB")
LEFT_OVERS = "left-overs of writes that were cut off"
CONTINUATION = "checkpoints that only a continuation needs"
STATES = "optimizer states in best checkpoints"
BESTS = "best checkpoints"
PRUNED = "checkpoints of pruned runs"
TEXTS = "tokenised texts"


def clean(folder: Path, *, checkpoints: bool, cache: bool, dry_run: bool) -> int:
    """Remove left-overs of killed writes below `folder`, and from completed runs what only a continuation needs: every
    checkpoint but the best, and its optimizer states. Runs that are not completed, or are running, keep all of
    theirs.

    Args:
        checkpoints: also the best checkpoints of completed runs, and all of pruned ones.
        cache: also the tokens of texts, which the next run makes again.
        dry_run: only say what would be removed.

    Raises:
        UserError: when there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    runs = sorted(RunFolder(path.parent) for path in folder.rglob(FILE))
    if not runs:
        raise UserError(f"{folder} holds no runs: there is nothing to clean")
    found: dict[str, list[Path]] = defaultdict(list)
    kept: list[Path] = []
    reasons: list[str] = []
    for run in runs:
        try:
            kept += _look(run, found, checkpoints=checkpoints)
        except UserError as error:
            reasons.append(str(error))
    # Only caches that lie where these runs have theirs: another program's .cache is none of ours.
    for place in {place for run in runs for place in (run.own_cache, run.shared_cache)}:
        if place.is_dir() and not place.is_symlink():
            _look_into_cache(place, found, texts=cache)
    freed = 0
    for kind, paths in found.items():
        if paths:
            size = _size(paths)
            freed += size
            say(f"{len(paths):>6} {kind}: {_readable(size)}")
            for path in paths if not dry_run else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    freed += _strip(kept, dry_run=dry_run)
    say(f"{'would free' if dry_run else 'freed'} {_readable(freed)} in {folder}")
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        complain(f"left alone{more}: {reasons[0]}")
    return 2 if reasons else 0


def _look(run: RunFolder, found: dict[str, list[Path]], *, checkpoints: bool) -> list[Path]:
    """Note what of a run can go: nothing of one that a process holds, and no checkpoint where the best one, which
    stays, does not load. Returns the checkpoints that stay without their optimizer states."""
    run.refuse_links()
    record = run.record()
    if run.is_locked():
        say(f"left alone, because it is running: {run}")
        return []
    found[LEFT_OVERS] += [*run.path.glob(_TORN), *run.path.glob(f"*/{_TORN}")]  # of checkpoints and exports
    if record.status == "pruned" and checkpoints:
        found[PRUNED] += run.checkpoint_files()
    if record.status != "completed" or not run.best.is_file():
        return []
    if not checkpoints:
        from losslab.training.output.checkpoints import read_checkpoint  # torch

        read_checkpoint(run.best)
    found[BESTS] += [run.best] if checkpoints else []
    found[CONTINUATION] += [path for path in run.checkpoint_files() if path != run.best]
    return [] if checkpoints else [run.best]


def _strip(kept: list[Path], *, dry_run: bool) -> int:
    """Take the optimizer states out of best checkpoints; returns the bytes."""
    if not kept:
        return 0
    from losslab.training.output.checkpoints import strip  # torch

    sizes = [size for size in (strip(path, dry_run=dry_run) for path in kept) if size]
    if sizes:
        say(f"{len(sizes):>6} {STATES}: {_readable(sum(sizes))}")
    return sum(sizes)


def _look_into_cache(place: Path, found: dict[str, list[Path]], *, texts: bool) -> None:
    """Note left-overs, and on request the texts, of every key that no process is building just now."""
    keys = {match[0] for path in place.iterdir() if (match := _KEY.search(path.name))}
    for key in sorted(keys):
        guard = FileLock(place / f"{key}.lock")
        try:
            guard.acquire(timeout=0)
        except Timeout:
            continue
        found[LEFT_OVERS] += place.glob(f".{key}.*{TEMPORARY}")
        if texts and (place / key / "meta.json").is_file():
            found[TEXTS].append(place / key)
        guard.release()


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
    if size < _STEP:
        return f"{size:.0f} B"
    power = min(int(math.log(size, _STEP)), len(_UNITS))
    return f"{size / _STEP**power:,.1f} {_UNITS[power - 1]}"
