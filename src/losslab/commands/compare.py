"""`losslab compare`: which loss is better, with intervals; a table, and files for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from losslab.comparison.analysis import Comparison, analyse
from losslab.comparison.costs import FILE as COSTS
from losslab.comparison.costs import is_settled, representatives
from losslab.comparison.curves import charted
from losslab.comparison.metrics import Declarations
from losslab.comparison.output.events import Series, remove_events, write_events
from losslab.comparison.output.prose import caption, name_of, pairs_caption, protocol, question, sentences
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
from losslab.comparison.runs.contenders import find_baselines
from losslab.comparison.runs.evaluations import metrics_on_text, on_text
from losslab.comparison.runs.load import load_runs
from losslab.comparison.runs.naming import BEST_FIRST, FOLDER, target_of
from losslab.console import out, say
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.run_folder import RunFolder

BASELINE = "cross_entropy"
FIGURES, TOKENS = "figures", "tokens"
MOST_RUNS = 40
"""TensorBoard selects no run by itself where there are more."""
REPORT, SUMMARY, ALL_PAIRS = "report.html", "summary", "all_pairs.csv"


def compare(
    source: Path,
    *,
    baseline: str = BASELINE,
    metric: str | Sequence[str] = (),
    margin: float | None = None,
    tune: str = "auto",
    where: Sequence[str] = (),
    mixed: bool = False,
    all_pairs: bool = False,
    evaluations: str | None = None,
    labels: Sequence[str] = (),
    order: str = BEST_FIRST,
    costs: bool = False,
    tokens: tuple[str, str] | None = None,
    layer: int | None = None,
    trust: Sequence[str] = (),
) -> int:
    """Print the table, and write comparison/ (beside a .csv table: NAME-comparison/).

    Every choice that gives other numbers has a folder of its own: comparison-test-top1/, comparison-tune=none/, …

    Args:
        metric: one metric, or several for one table; none: the primary one of test.
        margin, tune, mixed, all_pairs, labels, order: as in `analysis.analyse`.
        where: KEY=VALUE; only such runs count.
        evaluations: as in `evaluations.on_text`.
        costs: measure what a step of each loss costs, where costs.json does not say.
        tokens: two losses to be compared token by token, too, with the attention of `layer`; this loads the networks
            (`trust`: classes outside losslab that they may name).

    Raises:
        UserError: when there is nothing to compare, or the runs do not belong together.
    """
    if margin is not None and not margin > 0:
        raise UserError(f"--margin must be above 0, not {margin:g}")
    if layer is not None and tokens is None:
        raise UserError("--layer goes with --tokens LOSS_A LOSS_B, whose attention it chooses")
    asked = list(dict.fromkeys([metric] if isinstance(metric, str) else metric))
    if margin is not None and len(asked) > 1:
        raise UserError("--margin is in the unit of one metric: give one --metric with it")
    loaded = load_runs(source, where=where)
    primary = f"test/{Declarations.of(loaded.runs).primary}"
    shown = metrics = asked or [primary]
    if evaluations is not None:
        loaded, shown = on_text(loaded, evaluations), metrics_on_text(metrics)
    answer = partial(
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
    c = answer()
    if costs and _measure_costs(c, list(trust)):
        c = answer()
    pairs = None if tokens is None else _pairs(c, tokens)
    choices = {
        "metric": [] if metrics == [primary] else metrics,
        "evaluations": [] if evaluations is None else Path(evaluations).name,
        "baseline": [] if baseline == BASELINE else baseline,
        "margin": [] if margin is None else margin,
        "tune": [] if tune == "auto" else tune,
        "where": sorted(where),
        "mixed": mixed or [],
    }
    target = target_of(source, choices)
    try:
        _write(c, target)
    except OSError as error:
        raise UserError(f"the comparison cannot be written to {target}: {error.strerror}") from None
    _show(c)
    if pairs is not None and tokens is not None:
        _look_inside(pairs, tokens, target, layer=layer, trust=list(trust))
    pairs_file = "" if c.pairs is None else f" {ALL_PAIRS},"
    say(f"written: {target / REPORT} (open it in a browser), {SUMMARY}.md, .csv and .tex,{pairs_file} {FIGURES}/")
    if source.is_dir() and len(c.runs) + len(c.contenders) + 1 > MOST_RUNS:
        say(
            f"curves: tensorboard --logdir {target} (of more than {MOST_RUNS} runs, as in the folder above, "
            "TensorBoard selects none by itself)"
        )
    return 0


def _measure_costs(c: Comparison, trust: list[str]) -> bool:
    """Whether they were measured now."""
    if not c.source.is_dir():
        raise UserError("--costs measures runs, and a table of results has none")
    if len(c.baselines) != 1:
        raise UserError("--costs: there are several questions here, each with a baseline; choose one with --where")
    if c.costs is not None and c.costs.measured:
        say(f"costs: {c.costs.told}; delete {c.source / COSTS} to measure them again")
        return False
    from losslab.commands.trusted import let_import
    from losslab.conformance.costs import measure_costs

    let_import(trust)
    measure_costs(representatives(c.contenders), c.source / COSTS, is_settled=is_settled, trust=trust)
    return True


def _show(c: Comparison) -> None:
    say(question(c))
    say("")
    if out.is_terminal:
        out.print(to_terminal(c), soft_wrap=False)
    else:
        say(answer_to_markdown(c))
    say("")
    say(caption(c))
    say("")
    for text in sentences(c):
        say(text)
    if c.pairs is not None:
        say("")
        if out.is_terminal:
            out.print(pairs_to_terminal(c), soft_wrap=False)
        else:
            say(pairs_to_markdown(c))
        say(f"\n{pairs_caption(c)}")
        if c.caveats:
            say("")
    for text in c.caveats:
        say(f"- {text}")
    say("")


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


def _pairs(c: Comparison, names: tuple[str, str]) -> list[tuple[int, RunFolder, RunFolder]]:
    """Seed and runs of two losses that share a seed."""
    first, second = (next(iter(find_baselines(c.contenders, name).values())) for name in names)
    found = [
        (seed, own, other)
        for seed in sorted(first.runs.keys() & second.runs.keys())
        if (own := first.runs[seed].folder) is not None and (other := second.runs[seed].folder) is not None
    ]
    if first is second or not found:
        reason = "they are the same" if first is second else "they have no completed run of a common seed"
        raise UserError(f"--tokens {names[0]} {names[1]}: nothing to compare, because {reason}")
    return found


def _look_inside(
    pairs: list[tuple[int, RunFolder, RunFolder]],
    names: tuple[str, str],
    target: Path,
    *,
    layer: int | None,
    trust: list[str],
) -> None:
    from losslab.commands.tokens import score_runs
    from losslab.comparison.tokens.page import write_token_page

    runs = [run for _, *both in pairs for run in both]
    paths = score_runs(runs, target / TOKENS, layer=layer, trust=trust)
    page = target / f"tokens-{names[0]}-{names[1]}.html".replace(" ", "_").replace("/", "_")
    summary = write_token_page(
        list(zip(paths[::2], paths[1::2], strict=True)), seeds=[seed for seed, *_ in pairs], names=names, target=page
    )
    for line in summary.lines():
        say(line)
    say(f"written: {page} (open it in a browser)")


def to_summary(c: Comparison) -> str:
    """The answer in Markdown."""
    said, kept, done = ([escape_markdown(text) for text in texts] for texts in (sentences(c), c.caveats, protocol(c)))
    parts = [f"# {escape_markdown(name_of(c))}", "", escape_markdown(question(c)), ""]
    parts += [answer_to_markdown(c), "", escape_markdown(caption(c)), "", *(f"- {text}" for text in said)]
    if c.pairs is not None:
        parts += ["", "## All pairs", "", pairs_to_markdown(c), "", escape_markdown(pairs_caption(c))]
    if kept:
        parts += ["", "## What to keep in mind", "", *(f"- {text}" for text in kept)]
    parts += ["", "## Protocol", "", *(f"{text}\n" for text in done)]
    if c.curves:
        parts.append(f"![val/{c.declared.primary} against the optimizer step]({FIGURES}/curves.png)\n")
    return "\n".join(parts)
