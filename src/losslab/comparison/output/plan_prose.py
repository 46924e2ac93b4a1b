"""A plan as people and programs read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from losslab.comparison.claim_cost import CONFIDENCE
from losslab.comparison.output.claim_prose import duration
from losslab.comparison.output.tables import aligned
from losslab.comparison.plans import PILOT, Plan, Planned, Together
from losslab.numbers import number

_SMALL = 0.001
_SAME_SEEDS = (
    "The pilot's seeds count again in the final table. Their deviation set its size, which raises its error from 5% to "
    "about 6%; seed=auto has exact bounds."
)


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan line by line: what is to be found, the table, how it came about, and the commands."""
    compared = plan.losses[:-1]
    what = f"a difference of {plan.margin:g} {plan.unit}".rstrip()
    of_each = f" for each loss, at the level of {len(compared)} comparisons" if len(compared) > 1 else ""
    yield f"Seeds until {what} to {plan.baseline} in {plan.metric} is found with power {plan.power:g}{of_each}"
    yield ""
    yield plan_table(plan)
    yield ""
    yield from (_basis(plan), *plan.notes)
    if plan.is_enough and any(one.pairs and one.missing for one in plan.losses):
        yield _SAME_SEEDS
    yield ""
    yield from _what_to_run(plan)
    if plan.together is not None and plan.is_enough:
        yield ""
        yield from _for_all(plan, plan.together)


def plan_table(plan: Plan) -> str:
    """A row for each loss, the baseline last, in Markdown."""
    header = ["loss", "pairs", "deviation", "at most", "seeds", "seeds (95%)", "runs", "time"]
    return aligned([header, *(_cells(one) for one in plan.losses)])


def plan_values(plan: Plan) -> dict[str, Any]:
    """All of it, for programs; None where nothing is known."""
    return {
        "source": plan.source,
        "metric": plan.metric,
        "unit": plan.unit,
        "margin": plan.margin,
        "power": plan.power,
        "level": plan.level,
        "baseline": plan.baseline,
        "at_once": plan.at_once,
        "seconds": plan.seconds,
        "losses": [loss_values(one) for one in plan.losses],
        "together": None if plan.together is None else asdict(plan.together),
        "commands": plan.commands,
        "notes": plan.notes,
    }


def loss_values(one: Planned) -> dict[str, Any]:
    """A loss by the names of columns."""
    own = None if one.cost is None else one.cost.deviation
    low, high = (None, None) if own is None else own.interval()
    return {
        "loss": one.loss,
        "pairs": one.pairs,
        "deviation": None if own is None else own.std,
        "deviation_low": low,
        "deviation_high": high,
        "deviation_planned": None if own is None else own.upper(),
        "degrees_of_freedom": None if own is None else own.df,
        "seeds": one.seeds,
        "seeds_low": one.interval[0],
        "seeds_high": one.interval[1],
        "missing_runs": one.missing,
        "seconds": one.seconds,
        "seconds_a_run": one.seconds_a_run,
    }


def _cells(one: Planned) -> list[str]:
    own = None if one.cost is None else one.cost.deviation
    low, high = one.interval
    return [
        one.loss,
        str(one.pairs),
        "baseline" if own is None else _size(own.std),
        "—" if own is None else _size(own.upper()),
        "—" if one.seeds is None else f"{one.seeds:,}",
        f"{low:,}–{high:,}" if low < high else f"{low:,}",
        "—" if one.missing is None else f"{one.missing:,}",
        "—" if one.seconds is None else duration(one.seconds),
    ]


def _size(deviation: float) -> str:
    """Four decimals, or two digits of a very small one."""
    return number(deviation) if deviation >= _SMALL else f"{deviation:.2g}"


def _basis(plan: Plan) -> str:
    compared = [one.cost.deviation for one in plan.losses if one.cost is not None]
    freedom = list(dict.fromkeys(f"{own.df:.3g}" for own in compared))
    whose = f", pooled over {plan.pooled} losses" if plan.pooled > 1 else ""
    told = (
        f"Deviation: of the differences to {plan.baseline} on shared seeds{whose}, with {' and '.join(freedom)} "
        f"degree{'' if freedom == ['1'] else 's'} of freedom. At most: its upper {CONFIDENCE:.0%} limit"
    )
    if plan.is_enough:
        alike = ", if these losses are equally noisy" if plan.pooled > 1 else ""
        told += f", on which seeds are planned: they suffice for a loss in four of five such pilots{alike}"
    told += ". Seeds (95%): those of both ends of the deviation's 95% interval. Runs: those that are missing"
    beside = f" with {plan.at_once:.0f} at once" if plan.at_once >= 1.5 else ""
    return f"{told}. Time: of this machine for them{beside}. The difference that was seen counts nowhere."


def _what_to_run(plan: Plan) -> Iterator[str]:
    end = ":" if plan.commands else "; nothing says how these runs were made, and so there is no command."
    if not plan.is_enough:
        yield f"This is too little for a number. {PILOT} seeds make a pilot{end}"
    elif not any(one.missing for one in plan.losses):
        yield "Nothing is missing: there are as many seeds as planned."
    else:
        missing = sum(one.missing or 0 for one in plan.losses)
        alone = "Each loss by itself: " if plan.together is not None else ""
        yield f"{alone}{_runs(missing, plan.seconds)}; what is done is not repeated{end}"
    yield from plan.commands


def _for_all(plan: Plan, together: Together) -> Iterator[str]:
    """The line of the table as a whole, and its commands."""
    all_losses = f"all {len(plan.losses) - 1} losses have power {plan.power:g}, each of them,"
    if together.seeds is None:
        yield f"The table as a whole: {all_losses} by their own deviations, for which {PILOT} seeds are needed."
        return
    by_seeds: dict[int, list[str]] = {}
    for loss, seeds in together.seeds.items():
        by_seeds.setdefault(seeds, []).append(loss)
    listed = " and ".join(f"{seeds:,} seeds of {', '.join(losses)}" for seeds, losses in by_seeds.items())
    told = (
        f"The table as a whole: in four of five such pilots, however noisy each loss is, {all_losses} with {listed} "
        f"(by own deviations, at their upper {together.limit:.1%} limits): "
    )
    if not together.missing:
        yield f"{told}they are there."
    elif together.seeds == {one.loss: one.seeds for one in plan.losses}:
        yield f"{told}the same runs."
    else:
        yield f"{told}{_runs(together.missing, together.seconds)}{':' if together.commands else '.'}"
        yield from together.commands


def _runs(missing: int, seconds: float | None) -> str:
    runs = f"{missing:,} run{'s' * (missing != 1)}"
    return runs if seconds is None else f"{runs}, {duration(seconds)} together"
