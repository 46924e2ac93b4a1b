"""The plan of a folder of runs, its pilot."""

from __future__ import annotations

from dataclasses import replace

from losslab.comparison.analysis import Comparison
from losslab.comparison.claim_cost import deviation_of
from losslab.comparison.claims import Claim, Claims, make_claims
from losslab.comparison.follow_up import grown_commands, where_to_run
from losslab.comparison.planned_seeds import costs_alone, limit_together, seeds_together
from losslab.comparison.plans import PILOT, Plan, Planned, Together, baseline_row
from losslab.comparison.rows import Row
from losslab.comparison.runs.contenders import Contender
from losslab.errors import UserError


def plan_of_folder(c: Comparison, *, power: float) -> Plan:
    """The plan for a folder of runs, its pilot.

    Raises:
        UserError: where there is no margin, several baselines, nothing that varies, or seeds are no numbers to add to.
    """
    if c.growing is not None:
        raise UserError(f"{c.source} adds seeds by itself until each loss is decided (seed=auto): it needs no plan")
    if c.margin is None:
        raise UserError(f"no difference of {c.metric} is customary as too small to count: give one, --detect 0.01")
    if len(c.baselines) != 1:
        raise UserError("there are several questions here, each with a baseline; choose one with --where KEY=VALUE")
    claims = make_claims(c.rows, c.contenders, c.baselines, margin=c.margin, power=power)
    if claims is None:
        raise UserError(_why_none(c))
    (reference,) = c.baselines.values()
    if streams := sorted({name for x in c.contenders for seed in x.runs for name, _ in getattr(seed, "own", ())}):
        raise UserError(
            f"these runs vary the seeds of single streams ({', '.join(streams)}), whose noise is a part of that of "
            "whole seeds: plan from a folder of seed=1,2,…"
        )
    size = sum(row.paired is not None for row in c.rows)
    costs = costs_alone({claim.label: claim.cost for claim in claims.of}, size)
    claims = replace(claims, of=[replace(claim, cost=costs[claim.label]) for claim in claims.of])
    enough = claims.is_enough
    seeds = {label: cost.planned if enough and cost.planned else PILOT for label, cost in costs.items()}
    made = _Grown(c, reference, claims, seeds)
    losses = [_planned(claim, *made.cost(claim.label), enough=enough) for claim in claims.of]
    losses.append(
        baseline_row(reference.label, len(reference.runs), losses, *made.cost(reference.label), claims.baseline_seconds)
    )
    return Plan(
        source=str(c.source),
        metric=c.metric,
        unit=c.declared[c.metric].unit,
        margin=c.margin,
        power=power,
        level=claims.of[0].cost.level,
        baseline=reference.label,
        losses=losses,
        pooled=len(claims.of) if claims.is_pooled else 0,
        at_once=claims.at_once,
        commands=made.commands,
        notes=[*_left_out(c, set(seeds) | {reference.label}), *(where_to_run(c.contenders) if made.commands else [])],
        together=_together(c, reference, claims, size) if len(claims.of) > 1 else None,
    )


class _Grown:
    """The seeds, runs and commands of a plan that gives each loss so many pairs.

    Args:
        wanted: label → seeds, of the losses beside the baseline.
    """

    def __init__(self, c: Comparison, reference: Contender, claims: Claims, wanted: dict[str, int]) -> None:
        self._lists = _seed_lists(c, reference, wanted)
        self._known = {contender.label: contender.runs for contender in c.contenders}
        self._seconds = {claim.label: claim.seconds_a_run for claim in claims.of}
        self._seconds[reference.label] = claims.baseline_seconds
        self._at_once = claims.at_once
        is_missing = any(own != sorted(self._known[label]) for label, own in self._lists.items())
        self.commands = grown_commands(self._lists, c.contenders) if is_missing else []

    def cost(self, label: str) -> tuple[int, float | None]:
        """Runs that are missing, and the seconds of this machine that they take."""
        missing = len([seed for seed in self._lists[label] if seed not in self._known[label]])
        seconds = self._seconds[label]
        return missing, None if seconds is None else missing * seconds / self._at_once

    def total(self) -> tuple[int, float | None]:
        """The same for all losses."""
        runs, seconds = zip(*map(self.cost, self._lists), strict=True)
        return sum(runs), None if None in seconds else sum(seconds)


def _together(c: Comparison, reference: Contender, claims: Claims, size: int) -> Together:
    rows = {row.label: row for row in c.rows}
    own = {
        claim.label: deviation
        for claim in claims.of
        if (deviation := deviation_of(list(rows[claim.label].differences.values()))) is not None
    }
    limit = limit_together(len(claims.of))
    seeds = seeds_together({claim.label: claim.cost for claim in claims.of}, own, size)
    if seeds is None or not claims.is_enough:
        return Together(limit, None, 0, None, [])
    made = _Grown(c, reference, claims, seeds)
    return Together(limit, {**seeds, reference.label: max(seeds.values())}, *made.total(), made.commands)


def _planned(claim: Claim, missing: int, seconds: float | None, *, enough: bool) -> Planned:
    return Planned(
        loss=claim.label,
        pairs=claim.pairs,
        cost=claim.cost,
        seeds=claim.cost.planned if enough else None,
        interval=claim.cost.interval,
        missing=missing if enough else None,
        seconds=seconds if enough else None,
        seconds_a_run=claim.seconds_a_run,
    )


def _seed_lists(c: Comparison, reference: Contender, wanted: dict[str, int]) -> dict[str, list[int]]:
    """Label → all seeds that it is to have: those that the folder knows, and new ones until there are enough pairs."""
    rows = {row.label: row for row in c.rows}
    compared = [x for x in c.contenders if x.label in wanted]
    known = sorted({run.seed for x in (reference, *compared) for run in (*x.runs.values(), *x.chosen.others)})
    found = {}
    for x in compared:
        lost = _lost(x, reference, rows[x.label])
        new = max(wanted[x.label] - len([seed for seed in known if seed not in lost]), 0)
        found[x.label] = [*known, *range(known[-1] + 1, known[-1] + 1 + new)]
    found[reference.label] = max(found.values(), key=len)
    return found


def _lost(contender: Contender, reference: Contender, row: Row) -> set[int]:
    """Seeds that make no pair, however often the command is repeated: diverged runs, and those that began otherwise."""
    diverged = {run.seed for x in (contender, reference) for run in x.chosen.others if run.record.status == "diverged"}
    return diverged | {seed for seed in contender.runs.keys() & reference.runs.keys() if seed not in row.differences}


def _why_none(c: Comparison) -> str:
    if len(c.contenders) == 1:
        (only,) = c.contenders
        return (
            f"{c.source} holds one loss, {only.label}, and a plan goes by how the difference of two varies from seed "
            f"to seed: add another (the same command with loss={only.label},OTHER) under {PILOT} seeds"
        )
    pairs = max((row.paired.n for row in c.rows if row.paired is not None), default=0)
    if pairs > 1:
        return f"{c.source}: the differences to {c.baseline} do not vary from seed to seed, and so say nothing of noise"
    runs = f"{pairs} seed" if pairs else "no seed"
    return (
        f"{c.source} has {runs} that a loss shares with {c.baseline}: a plan goes by how differences vary from seed to "
        f"seed; give each loss {PILOT} seeds (the same command with seed={','.join(map(str, range(1, PILOT + 1)))})"
    )


def _left_out(c: Comparison, planned: set[str]) -> list[str]:
    return [f"{row.label} is left out: {row.verdict.text}" for row in c.rows if row.label not in planned]
