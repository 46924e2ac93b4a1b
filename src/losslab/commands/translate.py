"""`losslab translate`: a line out for each line in."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.commands.trusted import let_import, one_run
from losslab.console import complain, err, note, out, say, write
from losslab.errors import UserError

if TYPE_CHECKING:
    from losslab.training.scoring.translating import Translator

_HINT = "a line and Enter: it is translated; Ctrl-D ends the program"
_BATCHES = 8
"""Batches of lines that are read before any is translated, so that lines of one length meet."""


def translate(
    folder: Path,
    source: Path | None,
    *,
    beams: int | None,
    length_penalty: float | None,
    batch: int,
    device: str,
    checkpoint: str,
    trust: list[str],
    weights: str = "raw",
) -> int:
    """Translate the lines of a file, of standard input, or those that a person types; returns the exit code.

    Args:
        source: a UTF-8 text; None: standard input.
        beams, length_penalty: of the search; None: those of the run's task.
        batch: lines that are translated at once.

    Raises:
        UserError: for bad input.
    """
    if batch < 1:
        raise UserError(f"--batch must be 1 or more, not {batch}")
    if beams is not None and beams < 1:
        raise UserError(f"--beams must be 1 or more, not {beams}")
    if length_penalty is not None and not math.isfinite(length_penalty):
        raise UserError(f"--length-penalty must be a finite number, not {length_penalty}")
    total = None if source is None else sum(1 for _ in _lines_of(source))
    translator = _open(folder, beams, length_penalty, batch, device, checkpoint, trust, weights)
    try:
        if source is None and sys.stdin.isatty():
            _converse(translator)
        else:
            _translate(translator, _standard_input() if source is None else _lines_of(source), total)
    except BrokenPipeError:
        out.on_broken_pipe()
    for text in translator.notes():
        note(text)
    return 0


def _open(
    folder: Path,
    beams: int | None,
    length_penalty: float | None,
    batch: int,
    device: str,
    checkpoint: str,
    trust: list[str],
    weights: str,
) -> Translator:
    run, record = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.training.compute import first_device, set_threads
    from losslab.training.scoring.averaged import told
    from losslab.training.scoring.loading import find_checkpoint, rebuild
    from losslab.training.scoring.translating import Translator

    where = first_device(device, named_by="--device")
    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust, weights)
    if (whose := told(weights, loaded.averaged)) is not None:
        note(whose)
    set_threads(loaded.config, record)
    loaded.network.to(where)
    return Translator(
        loaded.network, loaded.info, loaded.config["data"], loaded.autocast,
        beams=beams, length_penalty=length_penalty, batch=batch,
    )  # fmt: skip


def _translate(translator: Translator, lines: Iterable[str], total: int | None) -> None:
    """Write a line for each, several batches at a time."""
    from losslab.training.output.progress import shown_work

    left = iter(lines)
    with shown_work("translating lines", total, on=err) as advance:
        while part := list(islice(left, _BATCHES * translator.batch)):
            write("".join(f"{line}\n" for line in translator(part)))
            advance(len(part))


def _converse(translator: Translator) -> None:
    """Translate what a person types, line by line."""
    err.print(_HINT, markup=False)
    while True:
        try:
            line = input("> ")
            line.encode()
        except EOFError:
            say("")
            return
        except UnicodeError as error:  # Python keeps such bytes of standard input as half characters
            complain(f"not UTF-8 text: {error}")
            continue
        say(*translator([line]))


def _standard_input() -> Iterator[str]:
    """Lines of UTF-8, whatever the terminal's encoding is."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input, line {number}, is not UTF-8 text: {error}") from None


def _lines_of(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as content:
            for line in content:
                yield line.rstrip("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
