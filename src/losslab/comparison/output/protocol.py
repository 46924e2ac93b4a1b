"""How the runs were made and judged, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from losslab.comparison.analysis import Comparison
from losslab.comparison.output.prose import chosen_by
from losslab.comparison.runs.contenders import order, shown, spell
from losslab.comparison.runs.run import LAST, Run
from losslab.comparison.runs.seed import listed
from losslab.comparison.tuning import tokens_of

_MOST_LISTED = 8
"""Values of a setting that a sentence lists."""


def protocol(c: Comparison) -> list[str]:
    """The protocol of the comparison, in sentences."""
    runs = c.runs
    done = [run for run in runs if run.record.status == "completed"]
    seeds = sorted({run.seed for run in runs})
    losses = {x.label.removesuffix(shown(x.stratum)).rstrip() for x in c.contenders}  # of each width the same ones
    found = [f"Asked for: {text}." for text in c.asked]
    found += [
        f"{len(runs)} runs, {len(done)} of them completed: {_count(len(losses), 'loss', 'losses')}, "
        f"{_count(len(seeds), 'seed', 'seeds')} ({listed(seeds)})."
    ]
    if all(run.folder is None for run in runs):
        return [*found, f"Results of a table, {c.source.name}; how they were made, it does not say.", _procedure(c)]
    found += _setup(done or runs)
    for key in dict.fromkeys(axis.key for axis in c.axes):
        tried = sorted((tried.value for axis in c.axes if axis.key == key for tried in axis.tried), key=order)
        values = list(dict.fromkeys(map(spell, tried)))
        told = ", ".join(values)
        if len(values) > _MOST_LISTED:
            told = f"{len(values)} values from {values[0]} to {values[-1]}"
        found.append(
            f"Each loss took its best {key.rpartition('.')[2]} of {told} by the mean of {c.selection}{c.when} over "
            "seeds."
        )
    found.append(
        "Runs of one seed share the backbone's initial weights, batches (hashes in their records prove both) and "
        f"dropout, and are measured alike, whatever their loss. {_which_count(c)}; test chose nothing."
    )
    found.append(_procedure(c))
    return found


def _which_count(c: Comparison) -> str:
    if c.weights == LAST:
        return "The weights after the last step count, whatever validation said of earlier ones"
    return f"The checkpoint with the {chosen_by(c)} counts"


def _procedure(c: Comparison) -> str:
    """The rules of intervals and verdicts."""
    same = (
        f", equivalent if and only if it lies inside ±{c.margin:g}, below which differences count as none"
        if c.margin is not None
        else ""
    )
    if c.growing is not None:
        return (
            "Differences are paired on seeds. A loss is better or worse as soon as its repeated 95% interval excludes "
            f"zero{same.replace('if and only if', 'as soon as')}. {c.growing.procedure()}"
        )
    rule = (
        "Differences are paired on seeds. A loss is better or worse if and only if its simultaneous 95% interval "
        f"excludes zero{same}."
    )
    results = [row.paired for row in c.rows if row.paired is not None and row.paired.n > 1]
    if not results:
        return rule
    compared = sum(row.paired is not None for row in c.rows)
    kind = (
        "from the joint distribution of the t statistics, by the estimated correlation of the losses' differences"
        if any(result.joint for result in results)
        else "Šidák's"
    )
    constants = " or ".join(dict.fromkeys(f"{result.critical:.3f}" for result in results))
    return (
        f"{rule} Intervals are mean ± c · s / √n, with c = {constants} for "
        f"{_count(compared, 'comparison', 'comparisons')}, {kind}."
    )


def _setup(runs: Sequence[Run]) -> list[str]:
    def told(key: str) -> str:
        values = {repr(run.settings[key]): run.settings[key] for run in runs if run.settings.get(key) is not None}
        return " or ".join(dict.fromkeys(spell(value) for value in sorted(values.values(), key=order)))

    classes = sorted({str(run.settings.get("model._target_", "")).rpartition(".")[2] for run in runs})
    shape = ", ".join(
        f"{told(key)} {word}"
        for key, word in (
            ("model.num_layers", "layer" if told("model.num_layers") == "1" else "layers"),
            ("model.width", "wide"),
            ("model.context", "tokens of context"),
        )
        if told(key)
    )
    text = " or ".join(dict.fromkeys(_text(run) for run in runs))
    shape = f"{_recorded(runs, 'parameters')} parameters: {shape}" if _recorded(runs, "parameters") else shape
    vocabulary = _vocabulary(runs, told("data.tokenizer"), told("data.vocab_size"))
    budgets = dict.fromkeys(run.record.max_steps for run in runs)
    tokens = None if any(map(_of_rows, runs)) else tokens_of(runs[0])  # rows are shorter than the context
    size = f", {tokens / 1e6:.3g} M tokens" if tokens and len(budgets) == 1 else ""
    return [
        f"{' or '.join(classes)} ({shape}) on {text}{vocabulary}: {' or '.join(map(str, budgets))} optimizer steps of "
        f"{'at most ' * bool(told('data.batch_tokens'))}{told('data.batch_size')} sequences{size}, "
        f"{told('trainer.precision')}.",
        f"{_component(runs, 'optimizer', told)}; {_component(runs, 'scheduler', told)}.",
    ]


def _recorded(runs: Sequence[Run], key: str) -> str:
    """Sizes out of the records, such as 4,096 or 80,000 or 80,100; nothing where one does not say."""
    values = {run.record.provenance.get(key) for run in runs}
    known = sorted(value for value in values if isinstance(value, int))
    return " or ".join(f"{value:,}" for value in known) if len(known) == len(values) else ""


def _vocabulary(runs: Sequence[Run], tokenizer: str, asked: str) -> str:
    """` (bpe, vocabulary 1,000)`. Older records say only how large a tokenizer of losslab's own could become."""
    if not tokenizer:
        return ""
    name = tokenizer if tokenizer in ("bpe", "bytes") else "a tokenizer of one's own"
    size = _recorded(runs, "vocab_size")
    limit = f", vocabulary at most {int(asked):,}" if tokenizer == "bpe" and asked.isdecimal() else ""
    return f" ({name}{f', vocabulary {size}' if size else limit})"


def _of_rows(run: Run) -> bool:
    text = run.record.provenance.get("text")
    return isinstance(text, dict) and "rows" in text


def _component(runs: Sequence[Run], group: str, told: Callable[[str], str]) -> str:
    """`AdamW (learning rate 0.003, weight_decay 0.1)`: a class and its settings."""
    keys = sorted({key for run in runs for key in run.settings if key.startswith(f"{group}.")}, key=_lr_first)
    names = {f"{group}.lr": "learning rate"}
    parts = [
        f"{names.get(key, key.removeprefix(f'{group}.').removesuffix('._target_'))} {text}"
        for key in keys
        if key != f"{group}._target_" and (text := told(key)) not in ("", "False")
    ]
    kind = " or ".join(dict.fromkeys(str(run.settings.get(f"{group}._target_", "")).rpartition(".")[2] for run in runs))
    what = "Optimizer" if group == "optimizer" else "learning rate schedule"
    return f"{what}: {kind}" + (f" ({', '.join(parts)})" if parts else "")


def _lr_first(key: str) -> tuple[bool, str]:
    return key != "optimizer.lr", key


def _text(run: Run) -> str:
    path: Any = run.settings.get("data.corpus")
    if path:
        return str(path)
    given = next((text.partition("=")[2] for text in run.record.overrides if text.startswith("data.path=")), "")
    return given.rstrip("/").rpartition("/")[2] or "a text of one's own"


def _count(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
