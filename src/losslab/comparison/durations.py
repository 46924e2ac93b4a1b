"""Wall seconds of runs, and how many of them shared their machine at once, out of their records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from losslab.comparison.runs.run import Run


def wall_seconds(runs: Sequence[Run]) -> float | None:
    """Median seconds from a run's start to its end, its scoring included; None where no record says.

    A run that was stopped and continued counts its pause, which a median over runs outweighs.
    """
    found = [end - start for start, end in map(_span, runs) if end > start]
    return median(found) if found else None


def at_once(runs: Sequence[Run]) -> float:
    """How many of these runs went on at once, itself included, on median over the runs; 1 where no record says."""
    spans = [(start, end) for start, end in map(_span, runs) if end > start]
    beside = [
        sum(max(0.0, min(end, other_end) - max(start, other_start)) for other_start, other_end in spans) / (end - start)
        for start, end in spans
    ]
    return median(beside) if beside else 1.0


def _span(run: Run) -> tuple[float, float]:
    """Start and end in seconds of the epoch; twice 0 where the record does not say."""
    timing = run.record.timing
    try:
        start, end = (datetime.fromisoformat(timing[key]).timestamp() for key in ("started", "updated"))
    except (KeyError, TypeError, ValueError):
        return 0.0, 0.0
    return start, end
