"""Results that `losslab evaluate` recorded on another text, put instead of the runs' own test results."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from losslab.comparison.runs.load import Loaded
from losslab.comparison.runs.run import BEST, Run
from losslab.errors import UserError
from losslab.migrations import with_metrics
from losslab.records import SHORT

OF_TEXT = "text/"
_Way = tuple[str, str, int | None]
"""The part of a text, the rule of its documents, and the stride of windows, by which it was scored."""


def on_text(loaded: Loaded, text: str) -> Loaded:
    """The runs, with the metrics of their weights (`Run.weights`) on that text; those on their own test are left out.

    Args:
        text: the file, folder or pattern that was evaluated (as it was given, or its last name), or the first digits of
            its content's SHA-256.

    Raises:
        UserError: where no run was evaluated on it, or several texts are called so.
    """
    if all(run.folder is None for run in loaded.runs):
        raise UserError("--evaluations are of runs, and a table of results has none")
    entries = {id(run): _entries(run) for run in loaded.runs}
    best = loaded.weights == BEST
    which, option = ("best checkpoint", "") if best else ("last step", " --checkpoint last")
    named = [entry for own in entries.values() for entry in own if _is(entry, text)]
    done = [run for run in loaded.runs if run.record.status == "completed"]
    if not named:
        known = sorted({Path(entry["text"]).name for own in entries.values() for entry in own})
        there = f"; there are evaluations on {', '.join(known)}" if known else ""
        raise UserError(
            f"--evaluations {text}: no run has an evaluation of its {which} on it{there}; losslab evaluate RUN{option} "
            f"data.path={text} makes one"
        )
    texts = {entry["text_sha256"]: entry["text"] for entry in named}
    if len(texts) > 1:
        told = ", ".join(f"{digest[:SHORT]} ({path})" for digest, path in sorted(texts.items()))
        raise UserError(f"--evaluations {text}: several texts are called so; say which by its SHA-256: {told}")
    (digest,) = texts
    same = {id(run): [e for e in entries[id(run)] if e["text_sha256"] == digest] for run in done}
    ways: dict[_Way, int] = defaultdict(int)
    for own in same.values():
        for way in {_way(entry) for entry in own}:
            ways[way] += 1
    way = max(sorted(ways, key=str), key=lambda way: ways[way])
    found, missing = [], []
    for run in loaded.runs:
        own = [entry for entry in same.get(id(run), []) if _way(entry) == way]
        if not own and run.record.status == "completed":
            missing.append(run)
        found.append(_replaced(run, own[-1]["metrics"] if own else {}))
    part, documents, stride = way
    how = f"documents={documents}" + ("" if stride is None else f", eval_stride={stride}")
    others = f"; {len(ways) - 1} other way(s) of scoring it are left out" if len(ways) > 1 else ""
    asked = (
        f"metrics of the {which}s on another text, {texts[digest]} ({part}, {how}, SHA-256 "
        f"{digest[:SHORT]}), as losslab evaluate recorded them{others}"
    )
    problems = [
        f"{run.name}: no evaluation on {Path(texts[digest]).name}; losslab evaluate {run.folder}{option} "
        f"data.path={texts[digest]} makes one"
        for run in missing
    ]
    return replace(loaded, runs=found, problems=[*loaded.problems, *problems], asked=(*loaded.asked, asked))


def _entries(run: Run) -> list[dict[str, Any]]:
    """Evaluations of its weights on other texts, oldest first; lines that cannot be read are passed over."""
    if run.folder is None or not (path := run.folder.evaluations).is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = with_metrics(json.loads(line))
            right = all(isinstance(entry[key], str) for key in ("text", "text_sha256", "part", "documents"))
            right = right and isinstance(entry.get("eval_stride"), int | None)
            right = right and all(value is None or _is_number(value) for value in entry["metrics"].values())
            is_own = Path(entry["checkpoint"]).parts[0] == run.folder.checkpoints.name
            is_meant = is_own and entry["step"] == run.step
            if right and is_meant and not entry["own_text"]:
                found.append(entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def _is(entry: dict[str, Any], text: str) -> bool:
    begins = len(text) >= SHORT and entry["text_sha256"].startswith(text)
    return begins or text in (entry["text"], Path(entry["text"]).name) or str(Path(text).absolute()) == entry["text"]


def _way(entry: dict[str, Any]) -> _Way:
    return entry["part"], entry["documents"], entry.get("eval_stride")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _replaced(run: Run, values: dict[str, float]) -> Run:
    """Validation stays, for settings are chosen on it; the metrics of test go, and the scores of its documents."""
    kept = {key: value for key, value in run.metrics.items() if not key.startswith("test/")}
    shown = {f"{OF_TEXT}{key.rpartition('/')[2]}": value for key, value in values.items()}
    return replace(run.with_metrics(kept | shown), of_test=False)


def metrics_on_text(metrics: Sequence[str]) -> list[str]:
    """`test/nll` → `text/nll`."""
    return [f"{OF_TEXT}{metric.removeprefix('test/')}" if metric.startswith("test/") else metric for metric in metrics]
