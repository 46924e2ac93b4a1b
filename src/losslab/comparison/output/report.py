"""report.html: the question, the answer, and all that it rests on, in one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from itertools import groupby

from losslab.comparison.analysis import Comparison
from losslab.comparison.metrics import short
from losslab.comparison.noise import Interval
from losslab.comparison.output.chaos_prose import chaos_told
from losslab.comparison.output.claim_prose import cost_of_claim, more_seeds_cell
from losslab.comparison.output.numbers import p_value
from losslab.comparison.output.picture import Picture
from losslab.comparison.output.prose import caption, name_of, pairs_caption, question, sentences
from losslab.comparison.output.protocol import protocol
from losslab.comparison.output.tables import answer_cells, pair_cells
from losslab.comparison.rows import Row
from losslab.comparison.runs.contenders import shown
from losslab.comparison.runs.run import BEST, Run
from losslab.comparison.statistics import SEEDS_FOR_BCA
from losslab.numbers import interval, number

_STYLE = (resources.files("losslab.comparison.output") / "report.css").read_text(encoding="utf-8")
_WORDS = ("better", "worse", "equivalent")


def to_html(c: Comparison, drawn: Sequence[tuple[Picture, str]]) -> str:
    """The page.

    Args:
        drawn: each figure, and its SVG for a page (`figures.style.inline_svg`).
    """
    title = f"{name_of(c)}: {question(c)}"
    answer = sentences(c)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>\n{_STYLE}</style></head><body>",
        f"<h1>{escape(question(c))}</h1>",
        f'<p class="soft">{escape(name_of(c))} · baseline {escape(c.baseline)} · written by losslab compare</p>',
        "<h2>Answer</h2>",
        _list(answer) if answer else "<p>There is nothing to compare the baseline with.</p>",
        _main_table(c),
        f'<p class="soft">{escape(caption(c))}</p>',
        *(f"<p>{escape(text)}</p>" for text in (*cost_of_claim(c), *chaos_told(c))),
    ]
    if c.equal_time:
        parts.append(f"<p>{escape(_equal_time(c))}</p>")
    if c.caveats:
        parts += ["<h2>Caveats</h2>", _list(c.caveats)]
    parts += ["<h2>Protocol</h2>", *(f"<p>{escape(text)}</p>" for text in protocol(c))]
    for section, items in groupby(drawn, key=lambda item: item[0].section):
        parts.append(f"<h2>{escape(section)}</h2>")
        parts += [_figure(picture, svg) for picture, svg in items]
    parts += [*_all_pairs(c), *_noises(c), *_statistics(c), *_every_metric(c), *_all_runs(c), *_commands(c)]
    return "\n".join([*parts, "</body></html>", ""])


def to_fragment(c: Comparison) -> str:
    """The answer alone, for a page with a style of its own."""
    parts = [f"<p><b>{escape(question(c))}</b></p>", _main_table(c), f"<p>{escape(caption(c))}</p>"]
    parts += [_list(texts) for texts in ([*sentences(c), *cost_of_claim(c), *chaos_told(c)], c.caveats) if texts]
    return "".join(parts)


def _list(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def table(header: Sequence[str], body: Sequence[Sequence[str]], *, marks: Sequence[str] = (), note: str = "") -> str:
    """A table of plain text that scrolls where the page is narrow.

    Args:
        marks: the class of each row.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for i, line in enumerate(body):
        mark = f' class="{marks[i]}"' if marks and marks[i] else ""
        lines.append(f"<tr{mark}>{''.join(map(_cell, line))}</tr>")
    # Beside the box that scrolls: inside, a note would be as wide as the table, and be cut off with it.
    below = f'<p class="soft">{escape(note)}</p>' if note else ""
    rows = "".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{below}'


def _cell(text: str) -> str:
    word = text.partition(" ")[0].rstrip(",")
    kinds = [*([word] if word in _WORDS else []), *(["text"] if len(text) > 30 else [])]
    return f'<td class="{" ".join(kinds)}">{escape(text)}</td>' if kinds else f"<td>{escape(text)}</td>"


def _main_table(c: Comparison) -> str:
    header, *body = answer_cells(c)
    marks = ["baseline" if row.is_baseline else "" for rows in c.tables.values() for row in rows]
    return table(header, body, marks=marks)


def _equal_time(c: Comparison) -> str:
    assert c.costs is not None
    costs = ", ".join(f"{label} {cost:.2f}" for label, cost in c.costs.of.items())
    shares = ", ".join(f"{label} {share:.0%}" for label, (share, _) in c.equal_time.items())
    kind = "time" if c.costs.measured else "FLOPs"
    return (
        f"A step costs, relative to {c.baseline}'s: {costs}; costs: {c.costs.told}. Val at equal {kind} is "
        f"val/{c.declared.primary} when a loss had spent what {c.baseline}'s whole run costs (steps by then: {shares}; "
        "a loss that costs less is at its own end). The learning rate's schedule was not yet at its end there. How "
        "long the runs themselves took counts nowhere: they may have shared their machine."
    )


def _figure(picture: Picture, svg: str) -> str:
    links = ", ".join(
        f'<a href="figures/{escape(picture.file)}.{kind}">{kind}</a>' for kind in ("svg", "pdf", "png", "csv")
    )
    return f'<figure><div class="wide">{svg}</div><figcaption>{escape(picture.caption)} ({links})</figcaption></figure>'


def _noises(c: Comparison) -> list[str]:
    if not c.noises:
        return []
    body = [
        [
            label,
            metric,
            number(noises.mean, sign=True),
            *(_interval(part) for part in (noises.documents, noises.seeds, noises.both)),
        ]
        for label, by_metric in c.noises.items()
        for metric, noises in by_metric.items()
    ]
    units = next(iter(next(iter(c.noises.values())).values())).units if any(c.noises.values()) else 0
    windows = " Windows of few documents depend on one another: read theirs as too short." if c.unit == "window" else ""
    header = ["loss", "metric", "difference", f"other {c.unit}s", "other seeds", "both"]
    text = (
        f"The difference to {c.baseline} has two noises. Other {c.unit}s: would other text of the same source say the "
        "same of these very models? Other seeds: would models from other seeds say the same on this text? The verdicts "
        "above are about seeds, with the same intervals. Those over documents are bootstraps, at the same unadjusted "
        "level as those over seeds; both together combine the two. Test has "
        f"{units:,} {c.unit}s, which are drawn whole.{windows}"
    )
    return ["<h2>Two noises</h2>", f"<p>{escape(text)}</p>", table(header, body)]


def _interval(part: Interval) -> str:
    return "—" if math.isnan(part.low) else interval(part.low, part.high)


def _statistics(c: Comparison) -> list[str]:
    header = [
        "loss",
        "n",
        "mean",
        "median",
        "IQM",
        "pairs",
        "median difference",
        "BCa 95%",
        "p paired t",
        "p sign-flip",
    ]
    header[6:6] = ["d_z", "c"]
    header += ["p Wilcoxon", "p adjusted", "p equivalence (adjusted)", "detectable", "more seeds"]
    body = []
    for row in c.rows:
        r = row.paired
        own = [row.label, str(row.n), number(row.mean), number(row.median), number(row.iqm)]
        if r is None:
            body.append([*own, *["—"] * (len(header) - len(own))])
            continue
        own += [str(r.n), number(r.effect, sign=True), number(r.critical), number(r.median, sign=True)]
        none = c.growing is not None or r.n >= SEEDS_FOR_BCA
        bca = interval(r.bca_low, r.bca_high) or ("—" if none else f"from {SEEDS_FOR_BCA} seeds")
        p_values = [r.p_t, r.p_sign_flip, r.p_wilcoxon, r.p, r.p_equivalence]
        body.append([*own, bca, *map(p_value, p_values), number(r.detectable), more_seeds_cell(row)])
    margin = "no margin is customary for this metric" if c.margin is None else f"margin {c.margin:g}"
    note = (
        f"{c.metric}{c.when}. IQM: mean of the middle half. d_z: the mean difference over the standard deviation of "
        "the differences. c: the interval is mean ± c · std / √n. Adjusted: over the comparisons of the table, by the "
        f"distribution that c is from; p of equivalence ({margin}) is 0.05 or less if and only if the interval lies "
        "inside the margin. Paired t, sign-flip and Wilcoxon are not adjusted; the latter two assume symmetric "
        f"differences. BCa bootstrap intervals are printed from {SEEDS_FOR_BCA} seeds on, at the unadjusted level that "
        "c stands for, and are somewhat too short even then. Detectable: the true difference whose interval excludes "
        "zero with power 0.8 at this many seeds. More seeds: about how many would settle what is undecided, if the "
        "difference were the one seen and the spread that of the losses together, where theirs agree; from few seeds, "
        "both ends of the spread's 95% interval."
    )
    if c.growing is not None:
        note = (
            f"{c.metric}{c.when}. IQM: mean of the middle half. d_z: the mean difference over the standard deviation "
            "of the differences. c: the repeated interval is mean ± c · std / √n. p values, bootstrap intervals and "
            "powers of a fixed number of seeds do not hold where the results said when to stop, and are left out."
        )
    return ["<h2>All statistics</h2>", table(header, body, note=note)]


def _all_pairs(c: Comparison) -> list[str]:
    if c.pairs is None:
        return []
    header, *body = pair_cells(c)
    return ["<h2>All pairs</h2>", table(header, body, note=pairs_caption(c))]


def _every_metric(c: Comparison) -> list[str]:
    if not c.also:
        return []
    metrics = {c.metric: c.rows, **c.also}
    by_label = {metric: {row.label: row for row in rows} for metric, rows in metrics.items()}
    body = [[row.label, *(_short_cell(by_label[metric][row.label]) for metric in metrics)] for row in c.rows]
    note = (
        f"Means over seeds{c.when}; +, − and = where a loss is better, worse or equivalent by the rules of the first "
        "table, applied to each metric on its own: exploratory beside the first column. summary.csv has all of each."
    )
    return ["<h2>Every metric</h2>", table(["loss", *(short(metric) for metric in metrics)], body, note=note)]


def _short_cell(row: Row) -> str:
    mark = {"better": " +", "worse": " −", "equivalent": " ="}.get(row.verdict.word, "")
    return number(row.mean) + mark


def _all_runs(c: Comparison) -> list[str]:
    header = ["loss", "at", "seed", "status", c.metric, "best at step" if c.weights == BEST else "last step", "run"]
    body = []
    for contender in c.contenders:
        for group in contender.groups:
            own = [*group.runs.values(), *group.others, *group.twins]
            runs = sorted(own, key=lambda run: (run.seed, run.twin or 0, run.name))
            at = shown(group.setting) or "—"
            body += [[contender.label, at, *_of_run(run, c.metric)] for run in runs]
    rows = table(header, body)
    return ["<h2>All runs</h2>", f"<details><summary>{len(body)} runs</summary>{rows}</details>"]


def _of_run(run: Run, metric: str) -> list[str]:
    value, step = run.value(metric), run.step
    status = run.record.status
    if run.record.error and status in ("failed", "diverged", "pruned"):
        status += f": {run.record.error}"
    told = number(value) if value is not None and run.record.status == "completed" else "—"
    seed = str(run.seed) if run.twin is None else f"{run.seed} twin {run.twin}"
    return [seed, status, told, "—" if step is None else f"{step:.0f}", run.name]


def _commands(c: Comparison) -> list[str]:
    commands = dict.fromkeys(str(run.record.provenance.get("command") or "") for run in c.runs)
    told = [command for command in commands if command]
    versions = {f"{k} {v}" for run in c.runs for k, v in run.record.versions.items()}
    found = []
    if told:
        found += ["<h2>How to repeat it</h2>", f"<pre><code>{escape(chr(10).join(told))}</code></pre>"]
    if versions:
        found.append(f'<p class="soft">{escape(", ".join(sorted(versions)))}</p>')
    return found
