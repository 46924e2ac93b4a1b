"""Where the noise comes from, and what a claim costs.

Trains two kinds of ordinary multiruns below --folder, which can be stopped, and go on with the same command:

    streams       experiment=noise: one random stream at a time, twins, and whole seeds
    python_docs   experiment=quickstart under four losses and whole seeds, with a twin of the baseline for each seed;
                  and the same for each text of --texts, under its name

Then prints three tables, and writes them into noise.json there:

    (a) the variance of test/nll_scaled by source, and how much of it pairing leaves
    (b) the cost of a claim: seeds and seconds until a difference of 0.01 nats is found with 80% power at 5%, for three
        losses against cross-entropy on each text, beside the unpaired analysis of the same runs
    (c) how far twins end from one another, beside the deviations of the paired differences
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.noise_numbers import (
    DROPOUT,
    LEVEL,
    MARGIN,
    Claimed,
    Interval,
    Twins,
    Varied,
    by_source,
    claimed,
    twins,
    varied,
)
from benchmarks.tools.options import positive
from losslab.comparison.claim_cost import ClaimCost
from losslab.comparison.durations import at_once, wall_seconds
from losslab.comparison.noise_figures import Figure, write_figures
from losslab.comparison.runs.load import load_runs
from losslab.comparison.runs.run import Run
from losslab.errors import UserError

METRIC = "test/nll_scaled"
BASELINE, SMOOTHING = "cross_entropy", "label_smoothing 0.1"
LOSSES = {
    BASELINE: "cross_entropy",
    SMOOTHING: "cross_entropy:label_smoothing=0.1",
    "focal gamma 1": "focal:gamma=1",
    "poly1": "poly1",
}
"""Names of the tables → words of losslab train."""
PRESET, BUILT_IN, STREAMS = "quickstart", "python_docs", "streams"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, required=True, metavar="FOLDER", help="where the multiruns live, and go on"
    )
    parser.add_argument(
        "--seeds", type=positive, default=12, metavar="N",
        help="for each source of noise, and for each loss of a text (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--texts", nargs="+", type=Path, default=[], metavar="FILE", help="files beside the built-in corpus"
    )
    parser.add_argument(
        "--dropout", type=float, default=0.1, metavar="X",
        help="model.dropout of the runs by stream; 0 leaves that stream out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--with", nargs="+", default=[], dest="words", metavar="KEY=VALUE", help="further words of losslab train"
    )
    parser.add_argument("--publish", action="store_true", help="write the noise of quickstart for losslab plan")


def main(arguments: argparse.Namespace) -> int:
    """Train what is missing, and print the tables."""
    folder, seeds, texts, dropout = arguments.folder, arguments.seeds, arguments.texts, arguments.dropout
    names = {BUILT_IN: None} | {path.stem: path for path in texts}
    if fault := _fault(seeds, texts, names):
        print(f"scripts/benchmark noise: {fault}", file=sys.stderr)
        return 2
    for words in commands(folder, seeds, names, dropout=dropout, more=arguments.words):
        print(f"\nlosslab train {' '.join(words)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "losslab", "train", *words], check=False).returncode
        if code:
            print(f"it ended with exit code {code}: the same command of scripts/benchmark goes on", file=sys.stderr)
            return code
    runs = {name: _by_loss(folder / name) for name in (STREAMS, *names)}
    table = varied(*(by_source(runs[STREAMS][loss], METRIC) for loss in (BASELINE, SMOOTHING)))
    claims = [claim for name in names for claim in claimed(name, runs[name], METRIC)]
    chaos = [found for name in names if (found := twins(name, runs[name][BASELINE], METRIC)) is not None]
    print_variances(table, dropout)
    print_claims(claims)
    print_twins(chaos, claims)
    path = folder / "noise.json"
    path.write_text(json.dumps(content(table, claims, chaos, dropout), indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    if arguments.publish:
        write_figures(figures(claims, runs[BUILT_IN]))
        print("the noise of quickstart is written for losslab plan")
    return 0


def _fault(seeds: int, texts: Sequence[Path], names: Mapping[str, Path | None]) -> str | None:
    missing = [str(path) for path in texts if not path.is_file()]
    if seeds < 2:
        return f"--seeds {seeds}: a deviation takes two seeds or more"
    if missing:
        return f"--texts: {', '.join(missing)} is no file"
    if len(names) != 1 + len(texts) or STREAMS in names:
        return f"--texts: files need names of their own, other than {BUILT_IN} and {STREAMS}"
    return None


def commands(
    folder: Path, seeds: int, names: Mapping[str, Path | None], *, dropout: float, more: Sequence[str]
) -> list[list[str]]:
    """Words of losslab train, a list for each multirun."""
    where = [f"output_dir={folder}", *more]
    found = [
        ["experiment=noise", *where, f"name={STREAMS}", f"model.dropout={dropout:g}", *one_at_a_time(seeds, dropout)]
    ]
    numbers = ",".join(map(str, range(1, seeds + 1)))
    for name, path in names.items():
        text = [] if path is None else ["data=text", f"data.path={path.absolute()}"]
        own = ["-m", f"experiment={PRESET}", *where, f"name={name}", *text, f"seed={numbers}"]
        found.append([*own, f"loss={','.join(LOSSES.values())}"])
        found.append([*own, f"loss={LOSSES[BASELINE]}", "seeds.twin=1"])
    return found


def one_at_a_time(seeds: int, dropout: float) -> list[str]:
    """The lists of experiment=noise for so many seeds."""
    keys = ["seed", "seeds.backbone_init", "seeds.data_order", *(["seeds.dropout"] if dropout else []), "seeds.twin"]
    points: list[dict[str, int]] = [{}]
    for key in keys:
        values = range(1, seeds) if key == "seeds.twin" else range(2, seeds + 1)
        points += [{key: value} for value in values]
    usual = {"seed": "1"}
    lists = [f"{key}={','.join(str(point.get(key, usual.get(key, 'null'))) for point in points)}" for key in keys]
    return [*lists, f"zip=[{','.join(keys)}]", *([] if dropout else ["seeds.dropout=null"])]


def _by_loss(folder: Path) -> dict[str, list[Run]]:
    """Names of LOSSES → runs of them. Raises UserError where a folder holds none."""
    found: dict[str, list[Run]] = {name: [] for name in LOSSES}
    for run in load_runs(folder).runs:
        smoothed = run.settings.get("loss.label_smoothing") or 0
        name = {"focal": "focal gamma 1", "poly1": "poly1"}.get(run.loss, SMOOTHING if smoothed else BASELINE)
        found[name].append(run)
    return found


def print_variances(table: Sequence[Varied], dropout: float) -> None:
    print(
        f"\n(a) {METRIC} of experiment=noise (model.dropout={dropout:g}) by source: cross-entropy, and its difference "
        f"to {SMOOTHING}.\nThe rest of the seeds is 1. share: of the variance of whole seeds; left: variance of paired "
        "differences over the sum of\nboth losses' (1: pairing removes nothing). "
        f"{1 - LEVEL:.0%} intervals: chi-square of deviations, F of ratios."
    )
    print(f"{'source':<18}{'n':>3}{'std':>24}{'share':>20}{'paired std':>24}{'left':>20}")
    for row in table:
        share = "—" if math.isnan(row.share) else f"{row.share:.2f} {_short(row.share_interval)}"
        std, paired = (f"{value:.4f} {_ends(ends)}" for value, ends in _deviations(row))
        left = f"{row.left:.2f} {_short(row.left_interval)}"
        print(f"{row.what:<18}{row.pairs:>3}{std:>24}{share:>20}{paired:>24}{left:>20}")
    if not dropout:
        print(f"{DROPOUT:<18}  — nothing is drawn at model.dropout=0")


def _deviations(row: Varied) -> tuple[tuple[float, Interval], tuple[float, Interval]]:
    return (row.std, row.std_interval), (row.paired_std, row.paired_interval)


def print_claims(claims: Sequence[Claimed]) -> None:
    print(
        f"\n(b) Cost of a claim: seeds, and seconds on this machine, until a difference of {MARGIN:g} nats to "
        "cross-entropy is found with 80% power at 5%;\nunpaired: by the analysis of the same runs without pairs. "
        "95% intervals; no single number below 6 degrees of freedom."
    )
    heads = f"{'paired std':>11}{'s a pair':>9}{'seeds':>17}{'seconds':>22}{'unpaired: seeds':>19}{'seconds':>24}"
    print(f"{'text':<14}{'loss':<20}{'n':>3}{'difference':>11}{heads}")
    for claim in claims:
        a_pair = claim.paired.seconds_a_pair
        print(
            f"{claim.text:<14}{claim.loss:<20}{claim.pairs:>3}{claim.difference:>+11.4f}"
            f"{claim.paired.deviation.std:>11.4f}{'—' if a_pair is None else f'{a_pair:.1f}':>9}"
            f"{_seeds(claim.paired):>17}{_seconds(claim.paired):>22}{_seeds(claim.unpaired):>19}"
            f"{_seconds(claim.unpaired):>24}"
        )


def print_twins(chaos: Sequence[Twins], claims: Sequence[Claimed]) -> None:
    print(
        "\n(c) Chaos: rms difference of twins of cross-entropy (initial weights × (1 + 1e-6 · N(0, 1))) at the end, "
        f"{1 - LEVEL:.0%} interval,\nbeside the standard deviation of paired differences: a pair that differs by less "
        "says nothing of the loss."
    )
    for one in chaos:
        own = ", ".join(f"{claim.loss} {claim.paired.deviation.std:.4f}" for claim in claims if claim.text == one.text)
        print(f"{one.text:<14}{one.rms:.4f} {_ends(one.interval)} of {one.twins} twins; {own}")


def _ends(interval: Interval) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _short(interval: Interval) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def _seeds(cost: ClaimCost) -> str:
    low, high = cost.interval
    return f"{'' if cost.seeds is None else f'{cost.seeds:,} '}[{low:,}, {high:,}]"


def _seconds(cost: ClaimCost) -> str:
    found = [cost.seconds(seeds) for seeds in (cost.seeds, *cost.interval)]
    if found[1] is None or found[2] is None:
        return "—"
    return f"{'' if found[0] is None else f'{found[0]:,.0f} '}[{found[1]:,.0f}, {found[2]:,.0f}]"


def machine() -> str:
    """`2 cores, x86_64`."""
    return f"{os.cpu_count()} cores, {platform.machine()}"


def content(
    table: Sequence[Varied], claims: Sequence[Claimed], chaos: Sequence[Twins], dropout: float
) -> dict[str, Any]:
    """All three tables, for noise.json; null where there is nothing."""
    return {
        "metric": METRIC,
        "machine": machine(),
        "margin": MARGIN,
        "dropout": dropout,
        "level": LEVEL,
        "variances": [{key: _plain(value) for key, value in asdict(row).items()} for row in table],
        "claims": [
            {"text": claim.text, "loss": claim.loss, "pairs": claim.pairs, "difference": claim.difference}
            | {kind: _cost(cost) for kind, cost in (("paired", claim.paired), ("unpaired", claim.unpaired))}
            for claim in claims
        ],
        "twins": [asdict(one) for one in chaos],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cost(cost: ClaimCost) -> dict[str, Any]:
    return {
        "std": cost.deviation.std,
        "df": cost.deviation.df,
        "seconds_a_pair": cost.seconds_a_pair,
        "seeds": cost.seeds,
        "seeds_interval": cost.interval,
        "seconds": cost.seconds(cost.seeds),
        "seconds_interval": [cost.seconds(seeds) for seeds in cost.interval],
    }


def figures(claims: Sequence[Claimed], runs: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """The noise of quickstart on the built-in corpus, for `losslab plan`."""
    everything = [run for own in runs.values() for run in own if run.record.status == "completed"]
    together = at_once(everything)
    found = []
    for claim in (claim for claim in claims if claim.text == BUILT_IN):
        seconds = wall_seconds([run for run in runs[claim.loss] if run.record.status == "completed"])
        if seconds is None:
            raise UserError(f"the records of {claim.loss} do not say how long its runs took")
        found.append(
            Figure(
                preset=PRESET, words=[f"experiment={PRESET}"], loss=LOSSES[claim.loss], baseline=BASELINE,
                metric=METRIC, unit="nats", margin=MARGIN, seeds=claim.pairs, std=claim.paired.deviation.std,
                df=claim.paired.deviation.df, unpaired_std=claim.unpaired.deviation.std, seconds_a_run=seconds,
                at_once=together, machine=machine(), written=datetime.date.today().isoformat(),
            )
        )  # fmt: skip
    return found
