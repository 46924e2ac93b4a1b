"""The page that shows where two losses differ: held-out text, kinds of tokens, attention. One file, and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from losslab.comparison.statistics import SEEDS_FOR_A_CLAIM
from losslab.comparison.tokens.data import Pairs, count_shown, pack, read_pairs
from losslab.comparison.tokens.groups import (
    FALSE_DISCOVERIES,
    Differences,
    GroupTable,
    TokenGroup,
    TokenSummary,
    difference_text,
    group_tables,
    over_seeds,
    overall,
)
from losslab.comparison.tokens.text import END, marked
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.metrics.token_scores import TokenScores

_FILES = resources.files("losslab.comparison.tokens")
_STYLE, _SCRIPT = ((_FILES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
_STRENGTHS = (0.22, 0.5, 1.0)
"""Strengths of the shading where the interval includes 0, where it does not, and where the difference survives."""
_DARKEST = 0.75
_SATURATED = 95
"""Percentile of |difference| from which shading grows no more."""


def write_token_page(
    pairs: Sequence[tuple[Path, Path]], *, seeds: Sequence[int], names: tuple[str, str], target: Path
) -> TokenSummary:
    """Write the page that compares two losses token by token; the same scores give the same bytes.

    Args:
        pairs: files of scores (`losslab.metrics.token_scores`) of runs of A and B with the same seed.
        seeds: theirs, in the same order.
        names: of A and B.
        target: the page, .html.

    Raises:
        UserError: where there are no pairs, a file is damaged, or the runs do not belong together.
    """
    runs = read_pairs(pairs, names, tuple(seeds))
    first = runs.first
    differences = runs.nll(1) - runs.nll(0)
    count, is_cut = count_shown(first)
    found = over_seeds(differences[:, :count])
    summary = TokenSummary(
        names=names,
        seeds=runs.seeds,
        overall=overall(differences),
        tables=group_tables(differences, first),
        shown=count,
        clear=int(found.clear.sum()),
        surviving=int(found.surviving.sum()),
    )
    title = f"{names[1]} against {names[0]}, token by token"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{_introduction(runs, summary)}
<h2>Held-out text</h2>
{_legend(names, summary, found, is_cut)}
<div id="text">{_text(first, found)}</div>
<aside id="panel" aria-live="polite"></aside>
<h2>By kind of token</h2>
<p>All {len(first.nll):,} test tokens: mean over seeds of each group's mean difference, nats per token, and its paired-t
95% interval over seeds. A pale bar's interval includes 0; an interval that leaves its drawing is cut.</p>
<div class="tables">
{"".join(_table(table) for table in summary.tables)}
</div>
{_attention(runs)}
<script type="application/json" id="data">{pack(runs, found, count)}</script>
<script>
{_SCRIPT}</script>
</body>
</html>
"""
    try:
        write_atomic(target, page.encode())
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from None
    return summary


def _introduction(runs: Pairs, summary: TokenSummary) -> str:
    a, b = (escape(name) for name in runs.names)
    steps = ["best checkpoints of " + escape(runs.names[k]) + ": step " for k in (0, 1)]
    steps = [said + ", ".join(f"{pair[k].step:,}" for pair in runs.runs) for k, said in enumerate(steps)]
    n = len(runs.seeds)
    seeds = f"{n} seed{'s' * (n > 1)} ({', '.join(map(str, runs.seeds))})"
    few = (
        f"<li>{n} seed{'s are' if n > 1 else ' is'} few: with fewer than {SEEDS_FOR_A_CLAIM}, take what you see as a "
        "hint.</li>"
        if n < SEEDS_FOR_A_CLAIM
        else ""
    )
    return f"""<p>Every difference here is the nll of <span class="of-b">{b}</span> less that of
<span class="of-a">{a}</span>, in nats, of one token of the test split: above 0, <span class="of-a">{a}</span> predicts
it better. The nll is nll_scaled: −log softmax(s · z), with each run's own temperature, fitted on validation. Over
{seeds}; the runs of a pair share the seed, and with it initial weights and batches. All {summary.overall.count:,} test
tokens differ by <b>{difference_text(summary.overall)}</b>.</p>
<p class="quiet">Best by validation nll_scaled; {"; ".join(steps)}.</p>
<p>What must not be concluded:</p>
<ul>
<li>A single token is an example, not a finding: look for what many of them share, and test that on other text.</li>
<li>The intervals are over seeds, on this one text, whose tokens depend on one another. They do not say what other text
would show.</li>
{few}<li>Each loss was trained under one setting here. A difference may be one of learning rates.</li>
<li>One layer's attention is no explanation of a prediction: other layers and the values that it mixes matter too.</li>
</ul>"""


def _legend(names: tuple[str, str], summary: TokenSummary, found: Differences, is_cut: bool) -> str:
    samples = (("k", _STRENGTHS[2], "survives"), ("", _STRENGTHS[1], "unsure"), ("", _STRENGTHS[0], "may be chance"))
    strengths = samples if len(summary.seeds) > 1 else samples[2:]
    rows = "".join(
        f"<span>{escape(name)} better: "
        + " ".join(f'<i class="{side} {kept}" style="--o:{_DARKEST * o:.2f}">{word}</i>' for kept, o, word in strengths)
        + "</span>"
        for name, side in zip(names, "ab", strict=True)
    )
    if len(summary.seeds) > 1:
        said = (
            "Pale: the token's paired-t 95% interval over seeds includes 0. Stronger: it does not, which chance alone "
            f"brings about for one token in twenty ({summary.clear:,} of {summary.shown:,} here). Strong and "
            f"underlined: the difference survives Benjamini–Hochberg over the {summary.shown:,} tokens shown; of all "
            f"that do, at most {FALSE_DISCOVERIES:.0%} are expected to be chance ({summary.surviving:,} tokens, "
            f"{summary.surviving / summary.shown:.1%})."
        )
    else:
        said = "With one seed all is pale: a difference between losses looks like one between two trainings."
    cut = "; the last document is cut" if is_cut else ""
    return f"""<p>The first {summary.shown:,} predicted tokens of the test split{cut}. Point at, focus or tap a token;
arrow keys move on. The shading grows with the size of the mean difference up to {_saturation(found):.2f} nats. Signs: a
dot in each space, ↵ newline, {END} end of a document, ⟨hex⟩ a byte that is no whole character. Below the text: what
each loss predicted there, as means over seeds of softmax(s · z); ≥ where not every run has the token among its five
likeliest, and the mean may be larger.</p>
<div class="legend">{rows}</div>
<p class="quiet">{said}</p>"""


def _saturation(found: Differences) -> float:
    return float(np.percentile(np.abs(found.mean), _SATURATED)) or 1.0


def _text(scores: TokenScores, found: Differences) -> str:
    most = _saturation(found)
    tokens = scores.tokens[: len(found.mean) + 1].tolist()
    texts = [scores.texts[row] for row in scores.rows(scores.tokens[: len(tokens)])]
    strength = found.state
    parts = [f"<em>{marked(texts[0], tokens[0] == scores.end)}</em>"]
    for i, (mean, state) in enumerate(zip(found.mean.tolist(), strength.tolist(), strict=True)):
        shade = _DARKEST * _STRENGTHS[state] * min(1.0, abs(mean) / most)
        kind = ("a" if mean > 0 else "b") + (" k" if state == 2 else "")
        inner = marked(texts[i + 1], tokens[i + 1] == scores.end)
        parts.append(f'<i class="{kind}" style="--o:{shade:.2f}" tabindex="-1">{inner}</i>')
    return "".join(parts)


def _table(table: GroupTable) -> str:
    size = 1.5 * max(abs(group.mean) for group in table.groups) or 1.0
    rows = "".join(
        f'<tr><td>{escape(group.label)}</td><td class="n">{group.count:,}</td><td class="n">{group.mean:+.4f}'
        + ("" if math.isnan(group.low) else f"<br><small>[{group.low:+.4f}, {group.high:+.4f}]</small>")
        + f"</td><td>{_bar(group, size)}</td></tr>\n"
        for group in table.groups
    )
    head = '<tr><th></th><th class="n">tokens</th><th class="n">difference</th><th></th></tr>'
    return f"<table><caption>{escape(table.title.capitalize())}</caption>\n{head}\n{rows}</table>\n"


def _bar(group: TokenGroup, size: float) -> str:
    """A bar on an axis from −size to +size, 0 in the middle."""
    end = 60 + 60 * group.mean / size
    side = "a" if group.mean > 0 else "b"
    sure = group.low > 0 or group.high < 0
    whisker = ""
    if not math.isnan(group.low):
        low, high = (60 + 60 * min(1.0, max(-1.0, value / size)) for value in (group.low, group.high))
        whisker = f'<path class="whisker" d="M{low:.1f} 8H{high:.1f}"/>'
    return (
        f'<svg viewBox="0 0 120 16" aria-hidden="true"><rect class="{side}{"" if sure else " faint"}" '
        f'x="{min(end, 60):.1f}" y="3" width="{abs(end - 60):.1f}" height="10"/>'
        f'<path class="zero" d="M60 0V16"/>{whisker}</svg>'
    )


def _attention(runs: Pairs) -> str:
    first = runs.first
    figures = "".join(
        f'<figure><figcaption><span class="of-{side}">{escape(name)}</span>, seed {runs.seeds[0]}</figcaption>'
        f'<canvas tabindex="0" role="img" aria-label="attention of {escape(name)}"></canvas><output></output></figure>'
        for name, side in zip(runs.names, "ab", strict=True)
    )
    return f"""<h2>Attention of layer {first.layer} of {first.num_layers}</h2>
<p>The first {len(first.attention[0]):,} tokens of the test split, read as one window. Each row is a token that is
read, each column one that it takes from, itself included; the stronger the colour, the more (by the square root).
Point at, tap or walk with arrow keys over a map. Under the same seed, a head of one loss began as the same weights as
that of the other.</p>
<div id="heads" role="group" aria-label="head"></div>
<div class="maps">{figures}</div>"""
