"""`losslab compare`: which loss is better, with intervals."""

from __future__ import annotations

from pathlib import Path

from losslab.comparison.load import group_runs, load_runs
from losslab.comparison.table import make_rows, notes, to_csv, to_markdown
from losslab.console import say
from losslab.errors import UserError
from losslab.files import write_atomic

REPORT, TABLE, CURVES = "comparison.md", "comparison.csv", "curves"
PRIMARY = "test/nll_scaled"


def compare(folder: Path, *, baseline: str, metric: str) -> int:
    """Print the table, and write comparison.md, comparison.csv, curves.png and curves.svg into `folder`.

    Another metric than the primary one has files of its own: comparison-test-top1.md, …

    Raises:
        UserError: when there is nothing to compare, or the runs do not belong together.
    """
    groups = group_runs(load_runs(folder))
    rows = make_rows(groups, baseline=baseline, metric=metric)
    remarks = notes(groups, baseline=baseline, metric=metric)
    caption = (
        f"{metric} at each run's best checkpoint (smallest val/nll_scaled); differences to {baseline} on shared seeds, "
        "paired-t 95% interval."
    )
    table = to_markdown(rows, metric)
    suffix = "" if metric == PRIMARY else f"-{metric.replace('/', '-')}"
    report_file, table_file = (name.replace(".", f"{suffix}.") for name in (REPORT, TABLE))
    report = [f"# {folder.name}", "", table, "", caption, "", *(f"- {remark}" for remark in remarks)]
    report += ["", f"![val/nll_scaled against the optimizer step]({CURVES}.png)", ""]
    from losslab.comparison.figure import draw_curves

    try:
        draw_curves(groups, folder / CURVES)  # first: it reads what may be damaged
        write_atomic(folder / report_file, "\n".join(report).encode())
        write_atomic(folder / table_file, to_csv(rows, metric).encode())
    except OSError as error:
        raise UserError(f"the comparison cannot be written to {folder}: {error.strerror}") from None
    say(table)
    say("")
    say(caption)
    for remark in remarks:
        say(f"- {remark}")
    say(f"written: {folder / report_file}, {table_file}, {CURVES}.png, {CURVES}.svg")
    return 0
