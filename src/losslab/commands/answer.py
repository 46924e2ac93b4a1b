"""A question about runs and its answer, as data, lines of text and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from losslab.comparison.analysis import BASELINE, Comparison, analyse
from losslab.comparison.curves import charted
from losslab.comparison.metrics import Declarations
from losslab.comparison.output.chaos_prose import chaos_told
from losslab.comparison.output.claim_prose import cost_of_claim
from losslab.comparison.output.events import Series, remove_events, write_events
from losslab.comparison.output.prose import caption, name_of, pairs_caption, question, sentences
from losslab.comparison.output.protocol import protocol
from losslab.comparison.output.tables import (
    answer_to_markdown,
    escape_markdown,
    pairs_to_csv,
    pairs_to_markdown,
    pairs_to_terminal,
    to_csv,
    to_latex,
    to_terminal,
)
from losslab.comparison.runs.chosen import load_some
from losslab.comparison.runs.evaluations import metrics_on_text, on_text
from losslab.comparison.runs.load import load_runs
from losslab.comparison.runs.naming import BEST_FIRST, FOLDER, target_of
from losslab.comparison.runs.run import BEST
from losslab.comparison.runs.weights import with_weights
from losslab.errors import UserError
from losslab.files import write_atomic

FIGURES = "figures"
MOST_RUNS = 40
"""TensorBoard selects no run by itself where there are more."""
REPORT, SUMMARY, ALL_PAIRS = "report.html", "summary", "all_pairs.csv"


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and where that is written."""

    make: Callable[[], Comparison]
    """Makes the answer again."""
    answer: Comparison
    target: Path


def open_source(
    source: Path | Sequence[Path],
    *,
    baseline: str | None = None,
    metric: str | Sequence[str] = (),
    margin: float | None = None,
    tune: str = "auto",
    where: Sequence[str] = (),
    mixed: bool = False,
    all_pairs: bool = False,
    evaluations: str | None = None,
    labels: Sequence[str] = (),
    order: str = BEST_FIRST,
    weights: str = BEST,
) -> Asked:
    """Read runs, and answer; writes nothing. Arguments: see `compare`.

    Args:
        source: a folder of runs, a table of results, or some of the runs of a folder.

    Raises:
        UserError: as `compare` does.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin must be above 0, and finite, not {margin:g}")
    asked = list(dict.fromkeys([metric] if isinstance(metric, str) else metric))
    if margin is not None and len(asked) > 1:
        raise UserError("--margin is in the unit of one metric: give one --metric with it")
    chosen: list[str] = []
    if isinstance(source, Path):
        loaded = load_runs(source, where=where)
    else:
        loaded, chosen = load_some(source, where=where)
    loaded = with_weights(loaded, weights)
    primary = f"test/{Declarations.of(loaded.runs).primary}"
    shown = metrics = asked or [primary]
    if evaluations is not None:
        loaded, shown = on_text(loaded, evaluations), metrics_on_text(metrics)
    make = partial(
        analyse,
        loaded,
        baseline=baseline,
        metric=shown[0],
        further=shown[1:],
        margin=margin,
        tune=tune,
        mixed=mixed,
        all_pairs=all_pairs,
        labels=labels,
        order=order,
    )
    growing = loaded.growing
    usual = BASELINE if growing is None else growing.terms.baseline
    choices = {
        "metric": [] if metrics == [primary] else metrics,
        "weights": [] if weights == BEST else weights,
        "evaluations": [] if evaluations is None else Path(evaluations).name,
        "baseline": [] if baseline in (None, usual) else baseline,
        "margin": [] if margin is None else margin,
        "tune": [] if tune == "auto" else tune,
        "where": sorted(where),
        "mixed": mixed or [],
        "runs": chosen,
    }
    return Asked(make, make(), target_of(loaded.source, choices))


def answer_parts(c: Comparison, *, terminal: bool) -> Iterator[str | Table]:
    """The answer line by line: question, table, sentences, caveats.

    Args:
        terminal: with tables in colour, 80 columns wide, instead of Markdown.
    """
    yield from (question(c), "")
    yield to_terminal(c) if terminal else answer_to_markdown(c)
    yield from ("", caption(c), "", *sentences(c), *cost_of_claim(c), *chaos_told(c))
    if c.pairs is not None:
        yield ""
        yield pairs_to_terminal(c) if terminal else pairs_to_markdown(c)
        yield f"\n{pairs_caption(c)}"
        if c.caveats:
            yield ""
    yield from (f"- {text}" for text in c.caveats)
    yield ""


def write(asked: Asked) -> None:
    """Write the report, figures and tables. Raises UserError where the folder cannot be written."""
    try:
        _write(asked.answer, asked.target)
    except OSError as error:
        raise UserError(f"the comparison cannot be written to {asked.target}: {error.strerror}") from None


def _write(c: Comparison, target: Path) -> None:
    # matplotlib takes its time: what is wrong with the runs has been said by now.
    from losslab.comparison.output.figure_list import pictures
    from losslab.comparison.output.figures.style import inline_svg, save
    from losslab.comparison.output.report import to_html

    figures = target / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn, images = [], {}
    for picture in pictures(c):
        figure = picture.draw()
        svg = save(figure, figures / picture.file)
        write_atomic(figures / f"{picture.file}.csv", picture.to_csv().encode())
        drawn.append((picture, inline_svg(figure, svg)))
        images[picture.file] = (figures / f"{picture.file}.png").read_bytes()
    write_atomic(target / REPORT, to_html(c, drawn).encode())
    write_atomic(target / f"{SUMMARY}.md", to_summary(c).encode())
    write_atomic(target / f"{SUMMARY}.csv", to_csv(c).encode())
    write_atomic(target / f"{SUMMARY}.tex", to_latex(c, caption(c)).encode())
    if c.pairs is None:
        (target / ALL_PAIRS).unlink(missing_ok=True)
    else:
        write_atomic(target / ALL_PAIRS, pairs_to_csv(c).encode())
    if any(run.folder is not None for run in c.runs):
        for other in set(c.source.glob(f"{FOLDER}*")) - {target}:  # TensorBoard shows one comparison at a time
            remove_events(other)
        write_events(target, _series(c), images=images, time=_newest(c))


def _series(c: Comparison) -> list[Series]:
    charts = charted(c.declared)
    return [
        Series(metric, label, curve.steps.astype(np.int64), curve.mean, curve.mean - curve.std, curve.mean + curve.std)
        for label in _best(c, MOST_RUNS - 2)
        for metric, curve in c.curves[label].items()
        if metric in charts
    ]


def _best(c: Comparison, most: int) -> list[str]:
    """Losses that have curves: the baselines, and the first rows of the table."""
    rows = sorted(c.rows, key=lambda row: not row.is_baseline)
    return [row.label for row in rows if row.label in c.curves][:most]


def _newest(c: Comparison) -> float:
    """The time at which the last of the runs was written: the same runs give the same event file."""
    updated = [run.record.timing.get("updated") for run in c.runs]
    return max((datetime.fromisoformat(text).timestamp() for text in updated if text), default=0.0)


def to_summary(c: Comparison) -> str:
    """The answer in Markdown."""
    texts = ([*sentences(c), *cost_of_claim(c), *chaos_told(c)], c.caveats, protocol(c))
    said, kept, done = ([escape_markdown(text) for text in own] for own in texts)
    parts = [f"# {escape_markdown(name_of(c))}", "", escape_markdown(question(c)), ""]
    parts += [answer_to_markdown(c), "", escape_markdown(caption(c)), "", *(f"- {text}" for text in said)]
    if c.pairs is not None:
        parts += ["", "## All pairs", "", pairs_to_markdown(c), "", escape_markdown(pairs_caption(c))]
    if kept:
        parts += ["", "## Caveats", "", *(f"- {text}" for text in kept)]
    parts += ["", "## Protocol", "", *(f"{text}\n" for text in done)]
    if c.curves:
        parts.append(f"![val/{c.declared.primary} against the optimizer step]({FIGURES}/curves.png)\n")
    return "\n".join(parts)
