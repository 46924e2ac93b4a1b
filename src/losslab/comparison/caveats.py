"""Caveats that a reader of the table must know, a sentence each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from losslab.comparison.growing import Growing
from losslab.comparison.metrics import Declarations, short
from losslab.comparison.missing_seeds import few_seeds, missing_seeds
from losslab.comparison.rows import Row, shared_starts, takes_weights, unequal_start
from losslab.comparison.runs.contenders import INTERVAL, Contender, Setting, shown
from losslab.comparison.runs.run import BEST, Run
from losslab.comparison.shared_streams import stream_caveats
from losslab.comparison.stopping import some, stopping_caveats
from losslab.comparison.tuning import tuning_caveats
from losslab.comparison.twins import twin_caveats
from losslab.records import SHORT
from losslab.run_folder import how_to_repeat

ONE_LEARNING_RATE = "one learning rate for all losses: this ranks settings, not losses"
SAME_SEEDS = (
    "the settings were chosen (on validation) with the very seeds that the table reports: all losses alike, but the "
    "chosen ones look a little better than they are; fresh seeds at the chosen settings would be the strictest test"
)
TRAINED_START = (
    "these runs began with trained weights (init_from): this ranks losses for training on from those, and seeds "
    "differ in the order of the data and in dropout alone"
)
PRETRAINED_START = (
    "these runs began with the weights of a pretrained model (model.name): this ranks losses for fine-tuning it, and "
    "seeds differ in batches, dropout and a fresh projection alone"
)
ALONE = "there is only one loss here: nothing to compare it with"
_LONGEST_ERROR = 200


def caveats(
    contenders: Sequence[Contender],
    rows: Sequence[Row],
    baselines: dict[Setting, Contender],
    *,
    metric: str,
    selection: str | None,
    declared: Declarations,
    weights: str,
    source: Path,
    growing: Growing | None = None,
) -> list[str]:
    """Every caveat that the records give rise to but those of `start_caveats`, the gravest first."""
    found = _several_codes(contenders, how_to_repeat(source))
    found += [ALONE] if len(contenders) == 1 else []
    found += _lost(contenders)
    found += missing_seeds(contenders, rows, metric, growing)
    if any(run.settings.get("init_from") for c in contenders for run in c.runs.values()):
        found.append(TRAINED_START)
    elif any(takes_weights(run.record.hashes) for c in contenders for run in c.runs.values()):
        found.append(PRETRAINED_START)
    found += _unequal_origins(contenders)
    found += stopping_caveats(contenders)
    found += _unequal_validations(contenders) if weights == BEST else []
    found += _unequal_tokenizers(contenders, metric, declared)
    found += _late_bests(contenders) if weights == BEST else []
    tuned = selection is not None and any(len(c.groups) > 1 for c in contenders)
    if selection is not None and any(c.chosen.setting for c in contenders):
        found += tuning_caveats(contenders, selection, declared)
    if tuned:
        found.append(SAME_SEEDS)
    rates = {repr(run.settings.get("optimizer.lr")) for c in contenders for run in c.tried}
    known = any("optimizer.lr" in run.settings for c in contenders for run in c.tried)
    if len(rates) == 1 and known and len(contenders) > 1:
        found.append(ONE_LEARNING_RATE)
    found += [*stream_caveats(rows), *twin_caveats(contenders)]
    found += few_seeds(rows, contenders) if growing is None else []
    found += _still_improving(contenders)
    return found


def _several_codes(contenders: Sequence[Contender], again: str) -> list[str]:
    """Results of old and new code, losslab's or a person's own, which the means of rows mix."""
    found = []
    codes: dict[str, list[str]] = defaultdict(list)
    for c in contenders:
        for seed, run in sorted(c.runs.items()):
            if code := run.record.hashes.get("code"):
                codes[code].append(f"{c.label} seed {seed}")
    if len(codes) > 1:
        most, *others = sorted(codes, key=lambda code: -len(codes[code]))
        told = "; ".join(f"{len(codes[code])} by {code[:SHORT]}: {some(codes[code])}" for code in others)
        pairs = (
            "--mixed pairs them all the same"
            if any(c.across_code for c in contenders)
            else "pairs of unequal code are left out (--mixed pairs them all the same)"
        )
        found.append(
            f"these runs were made by {len(codes)} versions of losslab's code (hashes.code in run.json): "
            f"{len(codes[most])} by {most[:SHORT]}, {told}; a row that holds both is a mean over both, "
            f"{pairs}; {again}"
        )
    for c in contenders:
        own: dict[str, list[int]] = defaultdict(list)
        for seed, run in sorted(c.runs.items()):
            own[str(run.record.hashes.get("own_code"))].append(seed)
        if len(own) > 1:
            seeds = " and ".join(f"seed {', '.join(map(str, seeds))}" for seeds in own.values())
            found.append(
                f"{c.label}: its own code (own_code in run.json) is not the same for {seeds}, and the row is a mean "
                f"over all of them: {again}"
            )
    return found


def start_caveats(contenders: Sequence[Contender], baselines: dict[Setting, Contender]) -> list[str]:
    """Faults in the starts of the runs, on which every claim rests: they stand before all else."""
    return [*_shared_starts(contenders), *_unequal_starts(contenders, baselines)]


def _shared_starts(contenders: Sequence[Contender]) -> list[str]:
    """Seeds that are no repetitions, because they all began with the same weights."""
    return [
        f"{c.label}: different seeds with equal initial weights (backbone_init), seed "
        f"{' and '.join(', '.join(map(str, seeds)) for seeds in groups)}: they are no independent repetitions, and "
        "nothing is claimed from them; the model seeds itself, or an older losslab trained it"
        for c in contenders
        if (groups := shared_starts(c))
    ]


def _lost(contenders: Sequence[Contender]) -> list[str]:
    found = []
    for contender in contenders:
        by_status: dict[str, list[Run]] = defaultdict(list)
        places: dict[str, dict[str, None]] = defaultdict(dict)
        for group in contender.groups:
            for run in group.others:
                by_status[run.record.status].append(run)
                places[run.record.status][shown(group.setting)] = None
        for status, runs in sorted(by_status.items()):
            seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
            error = next((run.record.error for run in runs if run.record.error), None)
            at = f" at {', '.join(places[status])}" if any(places[status]) else ""
            why = f" ({_cut(error)})" if error and status in ("failed", "diverged") else ""
            result = "a result, but not in these means" if status == "diverged" else "not in these means"
            found.append(f"{contender.label}: {len(runs)} {status}{at}, seed {seeds}{why}: {result}")
        repeated = sum(group.repeated for group in contender.groups)
        if repeated:
            found.append(f"{contender.label}: of repeated runs the newest counts ({repeated} older left out)")
    return found


def _cut(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"


def _unequal_starts(contenders: Sequence[Contender], baselines: dict[Setting, Contender]) -> list[str]:
    """Pairs whose initial weights or batches are not the same are no pairs."""
    found = []
    for c in contenders:
        reference = baselines.get(c.stratum)
        if reference is None or reference is c:
            continue
        by_what: dict[str, list[str]] = defaultdict(list)
        for seed in sorted(c.runs.keys() & reference.runs.keys()):
            if unequal := unequal_start(c, reference, seed):
                by_what[" and ".join(unequal)].append(str(seed))
        found += [
            f"{c.label}, seed {', '.join(seeds)}: differs from the baseline in {what}: left out, because it is no pair"
            for what, seeds in by_what.items()
        ]
    return found


def _unequal_origins(contenders: Sequence[Contender]) -> list[str]:
    """Versions, machines and settings that are not the same for all compared runs."""
    records = [run.record for c in contenders for run in c.runs.values() if run.folder is not None]
    origins: dict[str, set[str]] = defaultdict(set)
    for record in records:
        origins["device"].add(str(record.hardware.get("device_name") or record.hardware.get("device")))
        for package, version in record.versions.items():
            origins[f"version of {package}"].add(version)
    unequal = [name for name, values in origins.items() if len(values) > 1]
    found = [f"these runs differ in the {', '.join(unequal)}: see each run.json"] if unequal else []
    threads = sorted({threads for record in records if (threads := record.hardware.get("threads")) is not None})
    if len(threads) > 1:
        told = " or ".join(map(str, threads))
        found.append(f"runs used {told} threads, which add up in another order: trainer.threads=1 makes them alike")
    changed = [record for record in records if record.provenance.get("changes")]
    if changed:
        found.append(f"{len(changed)} run(s) were continued with other code or versions than they began with")
    return found


def _unequal_validations(contenders: Sequence[Contender]) -> list[str]:
    counts: dict[int, set[str]] = defaultdict(set)
    for c in contenders:
        for run in c.runs.values():
            interval = run.settings.get(INTERVAL)
            if isinstance(interval, int) and interval > 0:
                counts[-(-run.record.max_steps // interval)].add(c.label)
    if len(counts) < 2:
        return []
    told = ", ".join(f"{count} of {', '.join(sorted(labels))}" for count, labels in sorted(counts.items()))
    return [f"unequal numbers of validations ({told}): more of them find a better best checkpoint"]


def _unequal_tokenizers(contenders: Sequence[Contender], metric: str, declared: Declarations) -> list[str]:
    """Rows of `--mixed` that count different tokens, and tokenizers that lose text."""
    runs = [run for c in contenders for run in c.runs.values()]
    found = []
    per_text = declared.shown("per_text")
    if len({run.record.hashes.get("tokenizer") for run in runs}) > 1 and per_text and short(metric) not in per_text:
        found.append(
            f"these runs have different tokenizers, and {metric} counts tokens: compare it within a tokenizer only; "
            f"test/{per_text[-1]} counts the same text for all"
        )
    lossy = {c.label for c in contenders for run in c.runs.values() if _loses_text(run)}
    if lossy:
        found.append(
            f"the tokenizer of {', '.join(sorted(lossy))} does not keep the text (decode(encode(text)) is another): "
            "nll is about what it kept, and there is no bits_per_byte"
        )
    return found


def _loses_text(run: Run) -> bool:
    return run.record.provenance.get("text", {}).get("tokenizer_lossless") is False


def _late_bests(contenders: Sequence[Contender]) -> list[str]:
    """Runs that continue another whose earlier best checkpoint was not to be had."""
    steps: dict[str, list[int]] = defaultdict(list)
    for c in contenders:
        for run in c.runs.values():
            continued = run.record.provenance.get("continued")
            if isinstance(continued, dict) and isinstance(step := continued.get("best_from"), int):
                steps[c.label].append(step)
    return [
        f"{label}: the best checkpoint of {len(own)} continued run(s) counts from step {min(own)} on, and not from the "
        "beginning"
        for label, own in sorted(steps.items())
    ]


def _still_improving(contenders: Sequence[Contender]) -> list[str]:
    runs = [run for c in contenders for run in c.runs.values() if run.record.max_steps and run.best_step is not None]
    once = [run for run in runs if (run.settings.get(INTERVAL) or 0) >= run.record.max_steps]
    last = [run for run in runs if run.best_step == run.record.stopped.get("step", run.record.max_steps)]
    found = []
    if once:
        found.append(
            f"{len(once)} of {len(runs)} runs were validated at their last step alone: that it is their best does not "
            "say whether they might still improve"
        )
    if last := [run for run in last if run not in once]:
        found.append(
            f"{len(last)} of {len(runs)} runs were best at their last step and might still improve: the order may be "
            "another one with a longer budget"
        )
    return found
