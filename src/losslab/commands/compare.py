"""`losslab compare`: which loss is better, with intervals; a table, and files for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from losslab.commands.answer import (
    ALL_PAIRS,
    FIGURES,
    MOST_RUNS,
    REPORT,
    SUMMARY,
    answer_parts,
    open_source,
    write,
)
from losslab.comparison.analysis import Comparison
from losslab.comparison.costs import FILE as COSTS
from losslab.comparison.costs import is_settled, representatives
from losslab.comparison.runs.contenders import find_baselines
from losslab.comparison.runs.naming import BEST_FIRST
from losslab.comparison.runs.run import BEST
from losslab.console import out, say
from losslab.errors import UserError
from losslab.run_folder import RunFolder

TOKENS = "tokens"


def compare(
    source: Path,
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
    costs: bool = False,
    tokens: tuple[str, str] | None = None,
    layer: int | None = None,
    trust: Sequence[str] = (),
) -> int:
    """Print the table, and write comparison/ (beside a .csv table: NAME-comparison/).

    Every choice that gives other numbers has a folder of its own: comparison-test-top1/, comparison-tune=none/, …

    Args:
        baseline: as in `analysis.analyse`.
        metric: one metric, or several for one table; none: the primary one of test.
        margin, tune, mixed, all_pairs, labels, order: as in `analysis.analyse`.
        weights: as in `weights.with_weights`.
        where: KEY=VALUE; only such runs count.
        evaluations: as in `evaluations.on_text`.
        costs: measure what a step of each loss costs, where costs.json does not say.
        tokens: two losses to be compared token by token, too, with the attention of `layer`; this loads the networks
            (`trust`: classes outside losslab that they may name).

    Raises:
        UserError: when there is nothing to compare, or the runs do not belong together.
    """
    if layer is not None and tokens is None:
        raise UserError("--layer goes with --tokens LOSS_A LOSS_B, whose attention it chooses")
    if tokens is not None and weights != BEST:
        raise UserError("--tokens scores the best checkpoints: leave out --weights for it")
    asked = open_source(
        source, baseline=baseline, metric=metric, margin=margin, tune=tune, where=where, mixed=mixed,
        all_pairs=all_pairs, evaluations=evaluations, labels=labels, order=order,
        weights=weights,
    )  # fmt: skip
    if costs and _measure_costs(asked.answer, list(trust)):
        asked = replace(asked, answer=asked.make())
    c, target = asked.answer, asked.target
    pairs = None if tokens is None else _pairs(c, tokens)
    write(asked)
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
    for part in answer_parts(c, terminal=out.is_terminal):
        if isinstance(part, str):
            say(part)
        else:
            out.print(part, soft_wrap=False)


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
