"""The table in every form: for a terminal, Markdown, a spreadsheet and a paper."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from losslab.comparison.analysis import Comparison
from losslab.comparison.metrics import short
from losslab.comparison.output.numbers import p_value
from losslab.comparison.output.prose import difference
from losslab.comparison.pairs import Pair
from losslab.comparison.rows import Row
from losslab.comparison.runs.run import BEST
from losslab.comparison.statistics import Paired
from losslab.comparison.verdicts import Verdict
from losslab.numbers import number

COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan"}
_RIGHT = ("n", "std")
_LABEL = 16
"""So many letters of a loss's name stay on one line of a terminal."""
P, P_FLIP = "p (adjusted)", "p (sign-flip)"
_OF_PAIR = (
    "pairs difference difference_median difference_std d_z simultaneous_low simultaneous_high p_adjusted p_equivalence "
    "critical bca_low bca_high p_t p_sign_flip p_wilcoxon detectable"
).split()
_OF_ROW = "metric weights loss setting n lost mean std median iqm".split()
_NEEDED = ("more_seeds", "more_seeds_low", "more_seeds_high")
CSV_COLUMNS = [*_OF_ROW, *_OF_PAIR, *_NEEDED, "verdict"]
PAIR_COLUMNS = ["metric", "weights", "first", "second", *_OF_PAIR, "verdict"]


def cells(c: Comparison, rows: Sequence[Row], metric: str) -> list[list[str]]:
    """The table's header and body, as text; columns that would say nothing are left out."""
    tuned = any(row.setting for row in rows)
    lost = any(row.lost for row in rows)
    timed = metric == c.metric and c.equal_time
    at_equal = "val at equal time" if c.costs is not None and c.costs.measured else "val at equal FLOPs"
    header = ["loss", *(["at"] if tuned else []), "n", *(["lost"] if lost else []), metric, "std"]
    header += [*_compared_header(c), "verdict", *([at_equal] if timed else [])]
    body = [header]
    for row in rows:
        line = [row.label, *([row.setting or "—"] if tuned else []), str(row.n), *([row.lost or "0"] if lost else [])]
        line += [number(row.mean), number(row.std), *_compared(c, row.paired, c.margin_of(metric)), row.verdict.text]
        if timed:
            line.append(number(float(c.equal_time[row.label][1].mean())) if row.label in c.equal_time else "—")
        body.append(line)
    return body


def answer_cells(c: Comparison) -> list[list[str]]:
    """Header and body of the answer's table; several metrics come one after the other, in a column of their own."""
    tables = {metric: cells(c, rows, metric) for metric, rows in c.tables.items()}
    if len(tables) == 1:
        return tables[c.metric]
    body = [["metric", *("mean" if name == c.metric else name for name in tables[c.metric][0])]]
    for metric, (header, *lines) in tables.items():
        names = ["mean" if name == metric else name for name in header]
        for line in lines:
            own = dict(zip(names, line, strict=True))
            body.append([metric, *(own.get(name, "—") for name in body[0][1:])])
    return body


def _compared_header(c: Comparison) -> list[str]:
    """Columns of what a comparison gave. Repeated intervals have no p."""
    return [f"difference [{c.kind_of_interval} 95%]", *([P, P_FLIP] if c.growing is None else [])]


def _compared(c: Comparison, result: Paired | None, margin: float | None) -> list[str]:
    """The cells below them."""
    if result is None:
        return ["—"] * len(_compared_header(c))
    p_values = [p_value(result.p), p_value(result.p_sign_flip)] if c.growing is None else []
    return [difference(result, margin), *p_values]


def pair_cells(c: Comparison) -> list[list[str]]:
    """Header and body of all pairs, as text."""
    body = [["loss", "less", *_compared_header(c), "verdict on the first"]]
    for pair in c.pairs or []:
        body.append([pair.first, pair.second, *_compared(c, pair.paired, c.margin), pair.verdict.text])
    return body


def to_terminal(c: Comparison) -> Table:
    """Two lines a loss, narrow enough for 80 columns, with colours for the verdicts."""
    several = len(c.metrics) > 1
    lines = []
    for metric, row in ((metric, row) for metric, rows in c.tables.items() for row in rows):
        own = [
            "\n".join(filter(None, [row.label, row.setting, metric if several else ""])),
            "\n".join(filter(None, [str(row.n), row.lost])),
            number(row.mean) + ("" if math.isnan(row.std) else f"\n± {number(row.std)}"),
        ]
        lines.append((own, row.paired, row.verdict, c.margin_of(metric)))
    return _narrow(c, ("loss", "n", f"{'mean' if several else short(c.metric)}\n± std"), lines)


def pairs_to_terminal(c: Comparison) -> Table:
    """All pairs, likewise."""
    lines = [([f"{pair.first}\nless {pair.second}"], pair.paired, pair.verdict, c.margin) for pair in c.pairs or []]
    return _narrow(c, ("loss",), lines)


def _narrow(
    c: Comparison, names: Sequence[str], lines: Sequence[tuple[list[str], Paired | None, Verdict, float | None]]
) -> Table:
    """A table of these own columns, and what a comparison gave."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1))
    first, *has_p = _compared_header(c)
    for name in (*names, first.replace(" [", "\n["), *([f"{P}\nsign-flip"] if has_p else []), "verdict"):
        table.add_column(Text(name), no_wrap=name not in ("loss", "verdict"), overflow="fold")
    labels = [line for own, *_ in lines for line in own[0].splitlines()]
    table.columns[0].min_width = min(_LABEL, max(map(len, labels), default=0))
    for own, result, verdict, margin in lines:
        told, *p_values = _compared(c, result, margin)
        p_told = ["\n".join(dict.fromkeys(p_values) if result is None else p_values)] if has_p else []
        said = [*own, told.replace(" [", "\n["), *p_told]
        table.add_row(*map(Text, said), Text(verdict.text, style=COLOURS.get(verdict.word, "")))
    return table


def to_markdown(c: Comparison, rows: Sequence[Row], metric: str) -> str:
    """An aligned Markdown table of one metric."""
    return aligned(cells(c, rows, metric))


def answer_to_markdown(c: Comparison) -> str:
    """The answer's, likewise."""
    return aligned(answer_cells(c))


def pairs_to_markdown(c: Comparison) -> str:
    """All pairs, likewise."""
    return aligned(pair_cells(c))


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a header and lines of text."""
    body = [[escape_markdown(cell) for cell in line] for line in table]
    widths = [max(len(line[i]) for line in body) for i in range(len(body[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in body
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def to_csv(c: Comparison) -> str:
    """One line a loss and metric, the compared one first; full precision; empty where there is nothing."""
    tables = {c.metric: c.rows, **c.also}
    return _spreadsheet(CSV_COLUMNS, [row_values(c, metric, row) for metric, rows in tables.items() for row in rows])


def pairs_to_csv(c: Comparison) -> str:
    """One line a pair, likewise."""
    return _spreadsheet(PAIR_COLUMNS, [_pair_values(c, pair) for pair in c.pairs or []])


def _spreadsheet(columns: Sequence[str], lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if line[name] is None else line[name] for name in columns] for line in lines)
    return out.getvalue()


def _pair_values(c: Comparison, pair: Pair) -> dict[str, Any]:
    own = {
        "metric": c.metric,
        "weights": _weights(c),
        "first": pair.first,
        "second": pair.second,
        "verdict": pair.verdict.text,
    }
    return _without_nan(own | _paired_values(pair.paired))


def row_values(c: Comparison, metric: str, row: Row) -> dict[str, Any]:
    """All of a row, by the names of CSV_COLUMNS; None where there is nothing."""
    return _without_nan(
        {
            "metric": metric,
            "weights": _weights(c),
            "loss": row.label,
            "setting": row.setting or None,
            "n": row.n,
            "lost": row.lost or None,
            "mean": row.mean,
            "std": row.std,
            "median": row.median,
            "iqm": row.iqm,
            **dict(zip(_NEEDED, _more(row), strict=True)),
            "verdict": row.verdict.text,
            **_paired_values(row.paired),
        }
    )


def _more(row: Row) -> tuple[int | None, int | None, int | None]:
    """More seeds that would settle it, and their interval; the number where it rests on enough."""
    if row.needed is None:
        return None, None, None
    about = row.needed.about if row.needed.is_enough else None
    return row.more(about), row.more(row.needed.low), row.more(row.needed.high)


def _weights(c: Comparison) -> str | None:
    """`best` or `last`; None for a table made elsewhere, which does not say."""
    return None if c.weights == BEST and all(run.folder is None for run in c.runs) else c.weights


def _paired_values(r: Paired | None) -> dict[str, Any]:
    """Values by the names of _OF_PAIR."""
    if r is None:
        return dict.fromkeys(_OF_PAIR)
    renamed = {
        "pairs": r.n,
        "difference": r.mean,
        "difference_median": r.median,
        "difference_std": r.std,
        "d_z": r.effect,
        "simultaneous_low": r.low,
        "simultaneous_high": r.high,
        "p_adjusted": r.p,
    }
    return {name: renamed[name] if name in renamed else getattr(r, name) for name in _OF_PAIR}


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def to_latex(c: Comparison, caption: str) -> str:
    """A table for a paper; needs the package booktabs."""
    header, *body = answer_cells(c)
    columns = "l" + "".join("r" if name in _RIGHT or "/" in name else "l" for name in header[1:])
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(caption)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(escape_latex, header)) + " \\\\",
        "\\midrule",
        *(" & ".join(map(escape_latex, line)) + " \\\\" for line in body),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


_MARKDOWN = re.compile(r"[\\|`*$~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: str) -> str:
    """Escape what Markdown would interpret: a cell's end, emphasis, a formula, a tag. cross_entropy stays as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


_LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "—": "--"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {character: f"${character}$" for character in "<>|"}


def escape_latex(text: str) -> str:
    """Escape what LaTeX would interpret, and typeset minus signs."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
