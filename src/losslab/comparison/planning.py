"""A plan: seeds and time until each loss of a table is told from the baseline, if it differs by a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from losslab.comparison.analysis import Comparison
from losslab.comparison.claim_cost import ClaimCost
from losslab.comparison.claims import Claim, make_claims
from losslab.comparison.follow_up import grown_commands, train_command
from losslab.comparison.noise_figures import Figure
from losslab.comparison.rows import Row
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.simultaneous import sidak
from losslab.errors import UserError

PILOT = 8
"""Seeds that make a pilot."""


@dataclass(frozen=True)
class Planned:
    """A loss, or the baseline."""

    loss: str
    pairs: int
    """Seeds that it has in common with the baseline; of the baseline, its own."""
    cost: ClaimCost | None
    """None for the baseline."""
    seeds: int | None
    """Seeds to have in the end; None where the pilot is too small to say."""
    interval: tuple[int, int]
    """Seeds at both ends of the deviation's 95% interval; of the baseline, the largest of its losses."""
    missing: int | None
    """Runs until then."""
    seconds: float | None
    """Seconds of this machine that those take, at so many at once; None where no record says."""
    seconds_a_run: float | None


@dataclass(frozen=True)
class Plan:
    """Seeds, time and commands."""

    source: str
    """The folder, or the preset."""
    metric: str
    unit: str
    margin: float
    """The difference that is to be found."""
    power: float
    level: float
    """The unadjusted two-sided level of each comparison."""
    baseline: str
    losses: list[Planned]
    """The losses that are compared, and the baseline last."""
    pooled: int
    """Losses that share one deviation; 0 where each has its own."""
    at_once: float
    commands: list[str]
    """Commands for a shell: those of the plan, or of a pilot where there is no plan yet; none where nothing is missing,
    or nothing says how the runs were made."""
    notes: list[str]

    @property
    def is_enough(self) -> bool:
        """Whether each loss has a number."""
        return all(one.seeds is not None for one in self.losses)

    @property
    def seconds(self) -> float | None:
        """Seconds of this machine for all runs that are missing."""
        known = [one.seconds for one in self.losses if one.seconds is not None]
        return sum(known) if len(known) == len(self.losses) else None


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
    planned = {claim.label: claim.cost.planned for claim in claims.of}
    enough = claims.is_enough
    lists = _seed_lists(
        c, reference, {label: (seeds if enough and seeds else PILOT) for label, seeds in planned.items()}
    )
    by_label = {contender.label: contender for contender in c.contenders}

    def cost(label: str, seconds_a_run: float | None) -> tuple[int, float | None]:
        missing = len([seed for seed in lists[label] if seed not in by_label[label].runs])
        return missing, None if seconds_a_run is None else missing * seconds_a_run / claims.at_once

    losses = []
    for claim in claims.of:
        missing, seconds = cost(claim.label, claim.seconds_a_run)
        losses.append(_planned(claim, missing, seconds, enough=enough))
    missing, seconds = cost(reference.label, claims.baseline_seconds)
    losses.append(_baseline(reference.label, len(reference.runs), losses, missing, seconds, claims.baseline_seconds))
    is_missing = any(own != sorted(by_label[label].runs) for label, own in lists.items())
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
        commands=grown_commands(lists, c.contenders) if is_missing else [],
        notes=_left_out(c, set(lists)),
    )


def plan_of_figures(
    figures: Sequence[Figure],
    *,
    words: Sequence[str],
    losses: Sequence[str],
    baseline: str,
    margin: float | None,
    power: float,
) -> Plan:
    """The plan before any run, from the noise figures of one preset.

    Args:
        figures: of one preset and metric; at least one.
        words: of the command, without those of loss and seed.
        losses: the losses that are compared; none: those of the figures.
    """
    by_loss = {one.loss: one for one in figures if one.baseline == baseline}
    noisiest = max(by_loss.values(), key=lambda one: one.std)
    compared = [loss for loss in losses or by_loss if loss != baseline]
    level, notes = sidak(len(compared)).level, []
    planned: list[Planned] = []
    for loss in compared:
        own = by_loss.get(loss, noisiest)
        if loss not in by_loss:
            notes.append(
                f"{loss} was not measured: it is planned with the deviation of {own.loss}, the largest that was"
            )
        cost = ClaimCost(
            deviation=own.deviation,
            margin=margin or own.margin,
            power=power,
            level=level,
            seconds_a_pair=2 * own.seconds_a_run / own.at_once,
        )
        planned.append(
            Planned(
                loss=loss,
                pairs=0,
                cost=cost,
                seeds=cost.planned,
                interval=cost.interval,
                missing=cost.planned,
                seconds=None if cost.planned is None else cost.planned * own.seconds_a_run / own.at_once,
                seconds_a_run=own.seconds_a_run,
            )
        )
    most = max((one.seeds or PILOT) for one in planned)
    seconds = most * noisiest.seconds_a_run / noisiest.at_once
    planned.append(_baseline(baseline, 0, planned, most, seconds, noisiest.seconds_a_run))
    lists: dict[int, list[str]] = {}
    for one in planned:
        lists.setdefault(one.seeds or PILOT, []).append(one.loss)
    return Plan(
        source=noisiest.preset,
        metric=noisiest.metric,
        unit=noisiest.unit,
        margin=margin or noisiest.margin,
        power=power,
        level=level,
        baseline=baseline,
        losses=planned,
        pooled=0,
        at_once=noisiest.at_once,
        commands=[
            train_command([*words, f"loss={','.join(own)}"], range(1, count + 1)) for count, own in lists.items()
        ],
        notes=notes,
    )


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


def _baseline(
    label: str, runs: int, losses: Sequence[Planned], missing: int, seconds: float | None, seconds_a_run: float | None
) -> Planned:
    """The baseline, which takes as many seeds as the loss that takes most."""
    enough = all(one.seeds is not None for one in losses)
    return Planned(
        loss=label,
        pairs=runs,
        cost=None,
        seeds=max(one.seeds or 0 for one in losses) if enough else None,
        interval=(max(one.interval[0] for one in losses), max(one.interval[1] for one in losses)),
        missing=missing if enough else None,
        seconds=seconds if enough else None,
        seconds_a_run=seconds_a_run,
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
