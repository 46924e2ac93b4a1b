"""The command that grows a sweep: its own words, with more seeds. It adds only the runs that are missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run
from losslab.config.words import choices, has_settings

SEED = "seed"
_LISTED = 30
"""Seeds without a gap are listed up to so many; more are a range."""
_OF_SEEDS = (SEED, "max_seeds", "decide")
"""Words that say how many seeds there are."""
_SWEEPERS = ("hydra.sweeper.", "hydra/sweeper", "hydra.mode")
_HYDRA = ("hydra.", "hydra/")
_MULTIRUN = ("-m", "--multirun")
_CONFIG_DIR = ("--config-dir", "-cd")


def spell_seeds(seeds: Sequence[int]) -> str:
    """`1,2,3`, or `range(1,41)`."""
    if len(seeds) > _LISTED and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def train_command(words: Sequence[str], seeds: Sequence[int]) -> str:
    """`losslab train -m WORDS seed=1,2,3`, for a shell; a word of seeds is replaced where it stands."""
    word = f"{SEED}={spell_seeds(seeds)}"
    kept = [word if _key(own) == SEED else own for own in words if _key(own) not in _OF_SEEDS[1:]]
    return shlex.join(["losslab", "train", "-m", *kept, *([] if word in kept else [word])])


def grown_commands(seeds: Mapping[str, Sequence[int]], contenders: Sequence[Contender]) -> list[str]:
    """The commands that give each loss these seeds, at the setting that was chosen for it; none for runs of which no
    record says how they were made.

    Args:
        seeds: label → seeds; labels that are missing stay as they are.
    """
    grown = [c for c in contenders if c.label in seeds]
    if any(run.folder is None for c in grown for run in c.runs.values()):
        return []
    typed = {tuple(_typed(run)) for c in grown for run in c.runs.values()}
    whole = len(grown) == len(contenders) and all(len(c.groups) == 1 for c in grown)
    if whole and len({tuple(own) for own in seeds.values()}) == len(typed) == 1:
        (of_sweep,) = typed
        if of_sweep:
            return [train_command(of_sweep, next(iter(seeds.values())))]
    merged: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for c in grown:
        run = _newest(c)
        words = [word for word in run.record.overrides if _key(word) != SEED]
        chosen = [word for word in words if _key(word) == "loss"]
        shape = tuple("loss" if word in chosen else word for word in words)
        merged.setdefault(((*_surroundings(run), *shape), tuple(seeds[c.label])), []).extend(
            word.partition("=")[2] for word in chosen
        )
    return [
        train_command([f"loss={','.join(losses)}" if word == "loss" else word for word in shape], own)
        for (shape, own), losses in merged.items()
    ]


def _typed(run: Run) -> list[str]:
    """The words of the multirun that made a run, each key of seeds without its value; none where something else made
    it, or where its losses and seeds do not stand in the words."""
    words = _words(run)
    keys = {_key(part) for word in words for part in _parts(word)}
    of_run = {_key(word) for word in run.record.overrides}
    if keys.isdisjoint(_MULTIRUN) or not of_run <= keys or any(_key(word) == "zip" and SEED in word for word in words):
        return []
    kept = [word for word in words if word not in (*_MULTIRUN, "--yes") and not word.startswith(_SWEEPERS)]
    return [SEED if _key(word) == SEED else word for word in kept if _key(word) not in _OF_SEEDS[1:]]


def _surroundings(run: Run) -> list[str]:
    """Flags and Hydra's own words of the command that made a run, which no override of the run holds."""
    words, found = _words(run), []
    for i, word in enumerate(words):
        if word in _CONFIG_DIR:
            found += words[i : i + 2]
        elif word.startswith((*_HYDRA, *(f"{flag}=" for flag in _CONFIG_DIR))) and not word.startswith(_SWEEPERS):
            found.append(word)
    return found


def _words(run: Run) -> list[str]:
    """The words behind `losslab train`; none where a run was not started by it."""
    try:
        words = shlex.split(str(run.record.provenance.get("command") or ""))
    except ValueError:
        return []
    return words[2:] if words[:2] == ["losslab", "train"] else []


def _parts(word: str) -> list[str]:
    """A word, and those that it stands for: `loss=focal(gamma=1)` says loss.gamma=1, too."""
    return [word, *(part for parts in choices(word) for part in parts)] if has_settings(word) else [word]


def _newest(contender: Contender) -> Run:
    return max(contender.runs.values(), key=lambda run: str(run.record.timing.get("started", "")))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
