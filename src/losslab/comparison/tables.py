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
from losslab.comparison.rows import Row
from losslab.comparison.words import difference, number, p_value

COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan"}
_RIGHT = ("n", "std")
CSV_COLUMNS = (
    "metric loss setting n lost mean std median iqm pairs difference difference_median difference_std low high bca_low "
    "bca_high p_t p_holm p_sign_flip p_wilcoxon p_equivalence detectable more_seeds verdict"
).split()


def cells(c: Comparison, rows: Sequence[Row], metric: str) -> list[list[str]]:
    """The table's header and body, as text; columns that would say nothing are left out."""
    tuned = any(row.setting for row in rows)
    lost = any(row.lost for row in rows)
    timed = metric == c.metric and c.equal_time
    header = ["loss", *(["at"] if tuned else []), "n", *(["lost"] if lost else []), metric, "std"]
    header += ["difference [95% interval]", "p (Holm)", "verdict", *(["val at equal time"] if timed else [])]
    body = [header]
    for row in rows:
        line = [row.label, *([row.setting or "—"] if tuned else []), str(row.n), *([row.lost or "0"] if lost else [])]
        line += [number(row.mean), number(row.std), difference(row), p_value(row.p_holm)]
        line.append(row.verdict.text)
        if timed:
            line.append(number(float(c.equal_time[row.label][1].mean())) if row.label in c.equal_time else "—")
        body.append(line)
    return body


def to_terminal(c: Comparison) -> Table:
    """Two lines a loss, narrow enough for 80 columns, with colours for the verdicts."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1))
    for name in ("loss", "n", f"{short(c.metric)}\n± std", "difference\n[95% interval]", "p (Holm)", "verdict"):
        table.add_column(Text(name), no_wrap=name not in ("loss", "verdict"), overflow="fold")
    for row in c.rows:
        said = [
            "\n".join(filter(None, [row.label, row.setting])),
            "\n".join(filter(None, [str(row.n), row.lost])),
            number(row.mean) + ("" if math.isnan(row.std) else f"\n± {number(row.std)}"),
            difference(row).replace(" [", "\n["),
            p_value(row.p_holm),
        ]
        table.add_row(*map(Text, said), Text(row.verdict.text, style=COLOURS.get(row.verdict.word, "")))
    return table


def to_markdown(c: Comparison, rows: Sequence[Row], metric: str) -> str:
    """An aligned Markdown table."""
    body = [[escape_markdown(cell) for cell in line] for line in cells(c, rows, metric)]
    widths = [max(len(line[i]) for line in body) for i in range(len(body[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in body
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def to_csv(c: Comparison) -> str:
    """One line a loss and yardstick, the compared one first; full precision; empty where there is nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for metric, rows in {c.metric: c.rows, **c.also}.items():
        for row in rows:
            values = row_values(metric, row)
            writer.writerow(["" if values[name] is None else values[name] for name in CSV_COLUMNS])
    return out.getvalue()


def row_values(metric: str, row: Row) -> dict[str, Any]:
    """All of a row, by the names of CSV_COLUMNS; None where there is nothing."""
    r = row.paired
    values: dict[str, Any] = {
        "metric": metric,
        "loss": row.label,
        "setting": row.setting or None,
        "n": row.n,
        "lost": row.lost or None,
        "mean": row.mean,
        "std": row.std,
        "median": row.median,
        "iqm": row.iqm,
        "pairs": None if r is None else r.n,
        "difference": None if r is None else r.mean,
        "difference_median": None if r is None else r.median,
        "difference_std": None if r is None else r.std,
        "p_holm": row.p_holm,
        "p_equivalence": row.p_equivalence,
        "more_seeds": row.more_seeds,
        "verdict": row.verdict.text,
    }
    for name in ("low", "high", "bca_low", "bca_high", "p_t", "p_sign_flip", "p_wilcoxon", "detectable"):
        values[name] = None if r is None else getattr(r, name)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def to_latex(c: Comparison, caption: str) -> str:
    """A table for a paper; needs the package booktabs."""
    header, *body = cells(c, c.rows, c.metric)
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
    """What Markdown would take for its own: a cell's end, emphasis, a formula, a tag. cross_entropy stays as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


_LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "—": "--"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {character: f"${character}$" for character in "<>|"}


def escape_latex(text: str) -> str:
    """What LaTeX would take for its own; and a minus that is one."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
