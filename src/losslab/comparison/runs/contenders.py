"""Sort runs by what is compared: losses, the settings each of them was tried with, and what must be kept apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from losslab.comparison.runs.run import Run
from losslab.config.nearest import closest
from losslab.errors import UserError
from losslab.pairing import MUST_MATCH, OF_LOSS
from losslab.records import DONE, SHORT

_SHAPE = "model."
_NOT_SHAPE = ("model.dropout",)
INTERVAL = "trainer.val_check_interval"
"""Says how often the best checkpoint could be chosen: a caveat where it varies, no setting."""
_CHOOSING = (INTERVAL, "trainer.interim_eval_tokens")
"""Keys that say how often a run validates, and on how many tokens."""
Setting = tuple[tuple[str, Any], ...]
ABSENT = "—"
"""The value of a setting that a run does not have: another optimizer's, say."""
_DIGITS = frozenset("0123456789abcdef")
_NUMBER = re.compile(r"((?<==)-?\d+(?:\.\d+)?(?:e-?\d+)?(?=$|[ ,]))")
_POINT_ZERO = re.compile(r"(?<=\d)\.0(?=$| )")
_NAMED = 5
"""Settings that a sentence lists at most."""
_WHOLE = 1e16
"""Below it whole numbers are written without a decimal point."""


@dataclass
class Group:
    """One loss under one setting: runs that differ in nothing but their seed."""

    setting: Setting
    """Dotted key → value of what each loss is tuned over."""
    runs: dict[int, Run] = field(default_factory=dict)
    """Seed → its newest completed run."""
    others: list[Run] = field(default_factory=list)
    """Runs without a result."""
    repeated: int = 0
    """Older repetitions (fresh=true) that the newest one stands for."""
    twins: list[Run] = field(default_factory=list)
    """Twins of these runs, whatever became of them."""

    @property
    def counts(self) -> Counter[str]:
        """Status → number of runs without a result."""
        return Counter(run.record.status for run in self.others)


@dataclass
class Contender:
    """A loss, with what it was tried at: a row of the table."""

    loss: str
    label: str
    """Its name, and those of its options in which it differs from others of that name."""
    plain: bool
    """Whether it stands at its default options."""
    stratum: Setting
    """Settings that separate it from contenders of another question: a model's width, say."""
    groups: list[Group]
    chosen: Group
    across_code: bool = False
    """Runs of other code of losslab's than theirs make pairs with these, too."""

    @property
    def runs(self) -> dict[int, Run]:
        return self.chosen.runs

    @property
    def tried(self) -> list[Run]:
        """Every run of it, whatever became of it."""
        return [run for group in self.groups for run in (*group.runs.values(), *group.others)]


def shown(setting: Setting) -> str:
    """`lr=0.003 model=LSTM`, by last names where these are unique; of hashes the first digits, of classes the name."""
    own = [_said(key, " ".join(spell(value).split())) for key, value in setting if value != ABSENT]
    last = Counter(key.rpartition(".")[2] for key, _ in own)
    parts = []
    for key, text in own:
        name = key.rpartition(".")[2]
        cut = text[:SHORT] if len(text) == 64 and _DIGITS.issuperset(text) else text
        parts.append(f"{name if last[name] == 1 else key}={cut}")
    return " ".join(parts)


def _said(key: str, text: str) -> tuple[str, str]:
    """A class as `model=LSTM`."""
    group = key.removesuffix("._target_")
    return (key, text) if group == key else (group, text.rpartition(".")[2])


def spell(value: Any) -> str:
    """A value as people type it: 2 for 2.0."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE
    return str(int(value)) if is_whole else str(value)


def group_runs(runs: Sequence[Run], *, tune: str = "auto", mixed: bool = False) -> list[Contender]:
    """A contender for each loss, in the order of their labels; each has its first group chosen (`tuning.choose`).

    Args:
        tune: over what each loss takes its best setting: `auto` (everything outside the loss but the model's shape,
            and what a search looked for), `all`, `none` (every setting is kept apart), or dotted keys with commas
            between.
        mixed: compare runs that differ in data, budget or precision, each kind on its own, and pair runs of unequal
            code.

    Raises:
        UserError: when runs differ in data, budget or precision.
    """
    # Attempts that came to nothing must not keep the others from being compared.
    counting = [run for run in runs if run.record.status == "completed"] or list(runs)
    clash = [key for key in _varying(counting) if key.startswith(MUST_MATCH)]
    if clash and not mixed:
        raise UserError(_tell_clash(counting, clash[0]))
    varying = [key for key in _varying(runs) if key in clash or not key.startswith(MUST_MATCH)]
    outside = [key for key in varying if not key.startswith(OF_LOSS) and key not in _CHOOSING]
    tuned = _tuned(outside, varying, tune, runs)
    results = _varying([run for run in runs if run.record.status in DONE] or runs)
    apart = [key for key in outside if key not in tuned and key in results]
    by_loss: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_loss[run.loss].append(run)
    found: dict[tuple[str, Setting], dict[Setting, Group]] = {}
    meta: dict[tuple[str, Setting], list[Run]] = defaultdict(list)
    for loss, own in by_loss.items():
        inside = [key for key in _varying(own) if key.startswith(OF_LOSS) and key not in tuned]
        for run in own:
            stratum = _setting(run, apart)
            label = " ".join(filter(None, [loss, shown(_setting(run, inside)), shown(stratum)]))
            setting = _setting(run, tuned)
            groups = found.setdefault((label, stratum), {})
            _place(groups.setdefault(setting, Group(setting)), run)
            meta[label, stratum].append(run)
    contenders = []
    for (label, stratum), settings in sorted(found.items(), key=lambda item: natural(item[0][0])):
        members = meta[label, stratum]
        ordered = sorted(settings.values(), key=lambda group: [order(value) for _, value in group.setting])
        plain = all(run.plain for run in members)
        contenders.append(Contender(members[0].loss, label, plain, stratum, ordered, ordered[0], across_code=mixed))
    return contenders


def find_baselines(contenders: Sequence[Contender], baseline: str) -> dict[Setting, Contender]:
    """The baseline of each stratum; named by its loss (of several options, the one at its defaults), or by its whole
    label. A stratum without such a one has no baseline.

    Raises:
        UserError: when there is none of that name, or several and none of them at its defaults.
    """
    typed = _POINT_ZERO.sub("", baseline)  # gamma=2.0, which earlier reports wrote
    named = [c for c in contenders if c.label in (baseline, typed)] or [c for c in contenders if c.loss == baseline]
    if not named:
        known = [c.label for c in contenders]
        raise UserError(
            f"there is no baseline {baseline!r} among these runs; choose --baseline from {', '.join(map(repr, known))}"
        )
    found: dict[Setting, Contender] = {}
    for stratum in dict.fromkeys(c.stratum for c in named):
        own = [c for c in named if c.stratum == stratum]
        own = own if len(own) == 1 else [c for c in own if c.plain]
        if len(own) == 1:
            found[stratum] = own[0]
    if not found:
        labels = ", ".join(repr(c.label) for c in named)
        raise UserError(
            f"several settings are called {baseline!r}, and none of them has the defaults of that loss; choose one "
            f"with --baseline from {labels}"
        )
    return found


def natural(label: str) -> list[tuple[bool, float, str]]:
    """A key that sorts labels by their words, and the numbers in them by size: gamma=2 before gamma=10."""
    parts = enumerate(_NUMBER.split(label))  # every second one is a number
    return [(False, float(part), "") if place % 2 else (True, 0.0, part) for place, part in parts]


def _tuned(outside: list[str], varying: list[str], tune: str, runs: Sequence[Run]) -> list[str]:
    if tune == "none":
        return []
    searched = sorted({key for run in runs for key in run.record.trial.get("searched", ())}.intersection(varying))
    outside = [key for key in outside if key not in searched]
    if tune == "all":
        return [*searched, *outside]
    free = [key for key in outside if not key.startswith(MUST_MATCH)]
    if tune == "auto":
        return [*searched, *(key for key in free if not key.startswith(_SHAPE) or key in _NOT_SHAPE)]
    wanted = [key.strip() for key in tune.split(",")]
    losses = {run.loss for run in runs}
    within = {key for loss in losses for key in _varying([run for run in runs if run.loss == loss])}
    free = [key for key in varying if key in within or not key.startswith(OF_LOSS)]
    for name in wanted:
        if name not in free:
            raise UserError(f"--tune {name}: {_why_not_tuned(name, free, runs)}")
    return wanted


def _why_not_tuned(name: str, free: Sequence[str], runs: Sequence[Run]) -> str:
    """The reason, with the key that was meant, or the few that there are."""
    known = set().union(*(run.settings for run in runs))
    same_name = sorted(key for key in known if key.endswith(f".{name}"))
    named = [key for key in known if not key.endswith("._target_")]
    if name not in known and (meant := same_name[0] if same_name else closest(name, named)):
        return f"no run has such a setting: did you mean {meant!r}?"
    reason = "the runs of each loss have one value of it" if name in known else "no run has such a setting"
    there = f"they differ in {', '.join(free[:_NAMED])}{' and others' * (len(free) > _NAMED)}"
    return f"{reason}; {there if free else 'they differ in nothing but the loss and the seed'}"


def _tell_clash(runs: Sequence[Run], key: str) -> str:
    """The sentence for runs that do not belong together; it names the strays."""
    by_value: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_value[str(run.settings.get(key))].append(run)
    parts = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[0]))
    told = [
        f"{value if len(value) <= 20 else value[:12] + '…'} ({len(own)} run{'s' * (len(own) != 1)}"
        + (f", {own[0].name}" if i else "")
        + ")"
        for i, (value, own) in enumerate(parts)
    ]
    why = "; nll counts tokens, and theirs are not the same" if key in ("data.tokenizer", "data.vocab_size") else ""
    return (
        f"these runs differ in {key} and cannot be compared: {', '.join(told)}{why}; compare some of them with "
        f"--where {key}={parts[0][0]}, or each kind on its own with --mixed"
    )


def _varying(runs: Sequence[Run]) -> list[str]:
    """The settings in which they differ."""
    keys: set[str] = set().union(*(run.settings for run in runs))
    return [key for key in sorted(keys) if len({repr(run.settings.get(key)) for run in runs}) > 1]


def _setting(run: Run, keys: Sequence[str]) -> Setting:
    return tuple((key, _spelled(run.settings[key]) if key in run.settings else ABSENT) for key in keys)


def _spelled(value: Any) -> Any:
    """Numbers as they are, all else as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, int | float) else str(value)


def order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before all else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not number, float(value) if number else 0.0, str(value))


def _place(group: Group, run: Run) -> None:
    if run.twin is not None:
        group.twins.append(run)
        return
    if run.record.status != "completed":
        group.others.append(run)
        return
    known = group.runs.get(run.seed)
    if known is not None:
        group.repeated += 1
        if known.record.timing.get("started", "") > run.record.timing.get("started", ""):
            return
    group.runs[run.seed] = run
