"""The command that grows a sweep: its own words, with more seeds. It adds only the runs that are missing.

Words hold paths, and runs are found in output_dir/name: a command holds in the folder in which it was typed. From
elsewhere it begins with `cd FOLDER &&`; of a sweep that was moved it says where that is now.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run
from losslab.config.words import choices, has_settings

SEED = "seed"
_LISTED = 30
"""Seeds without a gap are listed up to so many; more are a range."""
_OF_SEEDS = (SEED, "max_seeds", "decide", "seeds.twin")
"""Words that say how many seeds there are, and which of them have twins, which a plan counts no runs for."""
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
    typed = {(_started_in(run), tuple(_typed(run))) for c in grown for run in c.runs.values()}
    whole = len(grown) == len(contenders) and all(len(c.groups) == 1 for c in grown)
    if whole and len({tuple(own) for own in seeds.values()}) == len(typed) == 1:
        ((_, of_sweep),) = typed
        if of_sweep:
            return [_command(_newest(grown[0]), of_sweep, next(iter(seeds.values())))]
    merged: dict[tuple[str, tuple[str, ...], tuple[int, ...]], list[tuple[Run, str]]] = {}
    for c in grown:
        run = _newest(c)
        words = [word for word in run.record.overrides if _key(word) != SEED]
        chosen = [word for word in words if _key(word) == "loss"]
        shape = (*_surroundings(run), *("loss" if word in chosen else word for word in words))
        merged.setdefault((_started_in(run), shape, tuple(seeds[c.label])), []).extend(
            (run, word.partition("=")[2]) for word in chosen
        )
    commands = []
    for (_, shape, own), of in merged.items():
        losses = f"loss={','.join(loss for _, loss in of)}"
        commands.append(_command(of[0][0], [losses if word == "loss" else word for word in shape], own))
    return commands


def where_to_run(contenders: Sequence[Contender]) -> list[str]:
    """A sentence where nothing says in which folder these commands hold, or where that is not there."""
    folders = {_started_in(run) for c in contenders for run in c.runs.values() if run.folder is not None}
    if gone := sorted(folder for folder in folders if folder and not Path(folder).is_dir()):
        return [
            f"The runs were started in {', '.join(gone)}, which is not here: a command's relative paths hold there."
        ]
    if "" in folders:
        return ["No record says in which folder the runs were started: a command's relative paths hold there."]
    return []


def _command(run: Run, words: Sequence[str], seeds: Sequence[int]) -> str:
    """The command with these words, as it holds from the current folder; for runs like this one."""
    start = _started_in(run)
    if not start:
        return train_command(words, seeds)
    command = train_command(_moved(run, Path(start), words), seeds)
    return command if Path(start) == Path.cwd() or not Path(start).is_dir() else f"cd {shlex.quote(start)} && {command}"


def _moved(run: Run, start: Path, words: Sequence[str]) -> list[str]:
    """The words, with the folder in which the sweep lies now, where it was moved since it was trained."""
    assert run.folder is not None
    config, sweep = run.folder.config(), run.folder.path.resolve().parent
    if (start / str(config["output_dir"]) / str(config["name"])).resolve() == sweep:
        return list(words)
    own = {"name": f"name={sweep.name}", "output_dir": f"output_dir={sweep.parent}"}
    kept = [own.pop(_key(word), word) for word in words]
    return [*kept, *own.values()]


def _started_in(run: Run) -> str:
    """The folder in which the command of a run was typed; empty where no record says."""
    return str(run.record.provenance.get("started_in") or "")


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
