"""`losslab translate`: a line out for each line in."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import losslab
from losslab.commands.translated_file import PAIRS, TranslatedFile
from losslab.commands.trusted import let_import, one_run
from losslab.console import complain, err, note, out, say, write
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder

if TYPE_CHECKING:
    from losslab.training.scoring.loading import Loaded
    from losslab.training.scoring.translating import Translator

_COLUMNS = ("source", "target")
_HINT = "a line and Enter: it is translated; Ctrl-D ends the program"
_BATCHES = 8
"""Batches of lines that are read before any is translated, so that lines of one length meet."""


@dataclass(frozen=True)
class Given:
    """Input and output of the command. None: standard input, or output.

    Args:
        source: a UTF-8 text, a source a line.
        split: train, val or test of the run's own data.
        to: a file for the translations, or .jsonl for sources and translations.
    """

    source: Path | None = None
    split: str | None = None
    to: Path | None = None

    def check(self) -> None:
        """Refuse what does not go together. Raises UserError."""
        if self.source is not None and self.split is not None:
            raise UserError(f"give a file or --split {self.split}, not both")
        if self.to is not None and self.source is None and self.split is None:
            raise UserError("--to goes with a file or --split: of standard input, write > FILE")


def translate(
    folder: Path,
    given: Given,
    *,
    beams: int | None,
    length_penalty: float | None,
    batch: int,
    device: str,
    checkpoint: str,
    trust: list[str],
    weights: str = "raw",
) -> int:
    """Translate the lines of a file, of standard input, of a split of the run's data, or those that a person types;
    returns the exit code.

    Args:
        beams, length_penalty: of the search; None: those of the run's task.
        batch: lines that are translated at once.

    Raises:
        UserError: for bad input.
    """
    given.check()
    if batch < 1:
        raise UserError(f"--batch must be 1 or more, not {batch}")
    if beams is not None and beams < 1:
        raise UserError(f"--beams must be 1 or more, not {beams}")
    if length_penalty is not None and not math.isfinite(length_penalty):
        raise UserError(f"--length-penalty must be a finite number, not {length_penalty}")
    total = None if given.source is None else sum(1 for _ in _lines_of(given.source))
    run, record = one_run(folder)
    let_import(trust)
    path, loaded = _open(run, record, device, checkpoint, trust, weights)
    translator = _translator(loaded, beams, length_penalty, batch)
    lines: Iterable[str] | None = None if given.source is None else _lines_of(given.source)
    columns, about = _COLUMNS, dict[str, Any]()
    if given.split is not None:
        from losslab.training.scoring.own_sources import own_sources

        lines = own = own_sources(run, record, loaded, given.split, trust)
        columns, about = (own.source, own.target), {"split": given.split, "hashes": own.hashes}
        total = sum(1 for _ in own)
        if given.to is not None and given.to.suffix.lower() != PAIRS and not own.by_line:
            raise UserError(
                f"--to {given.to}: the rows of {given.split} are no lines of one file, with which it would go: name a "
                f"{PAIRS}, which holds each source with its translation (data.path=FILE{PAIRS})"
            )
    if given.to is not None:
        assert lines is not None, "--to goes with a file or a split"
        about |= {} if given.source is None else _about_file(given.source)
        about |= _about(run, record, path, loaded, weights, translator)
        _write(TranslatedFile(given.to, about, columns), translator, lines, total)
    else:
        try:
            if lines is None and sys.stdin.isatty():
                _converse(translator)
            else:
                _translate(translator, _standard_input() if lines is None else lines, total)
        except BrokenPipeError:
            out.on_broken_pipe()
    for text in translator.notes():
        note(text)
    return 0


def _open(
    run: RunFolder, record: Record, device: str, checkpoint: str, trust: list[str], weights: str
) -> tuple[Path, Loaded]:
    from losslab.config.stored import open_config
    from losslab.training.compute import first_device, set_threads
    from losslab.training.scoring.averaged import told
    from losslab.training.scoring.loading import find_checkpoint, rebuild

    where = first_device(device, named_by="--device")
    open_config(run.config(), trust, run.config_file)
    path = find_checkpoint(run, checkpoint)
    loaded = rebuild(path, trust, weights)
    if (whose := told(weights, loaded.averaged)) is not None:
        note(whose)
    set_threads(loaded.config, record)
    loaded.network.to(where)
    return path, loaded


def _translator(loaded: Loaded, beams: int | None, length_penalty: float | None, batch: int) -> Translator:
    from losslab.training.scoring.translating import Translator

    return Translator(
        loaded.network, loaded.info, loaded.config["data"], loaded.autocast,
        beams=beams, length_penalty=length_penalty, batch=batch,
    )  # fmt: skip


def _about_file(source: Path) -> dict[str, Any]:
    from losslab.data.row_files import hash_files

    return {"file": str(source.absolute()), "hashes": {"file": hash_files([source])}}


def _about(
    run: RunFolder, record: Record, path: Path, loaded: Loaded, weights: str, translator: Translator
) -> dict[str, Any]:
    """All that decides the translations of a source."""
    from losslab.data.row_files import hash_files

    return {
        "run": str(run.path.absolute()),
        "identity": record.identity,
        "checkpoint": path.name,
        "checkpoint_sha256": hash_files([path]),
        "step": loaded.step,
        "weights": weights,
        **translator.generation._asdict(),
        "losslab": losslab.__version__,
    }


def _write(file: TranslatedFile, translator: Translator, lines: Iterable[str], total: int | None) -> None:
    """Write a file, several batches at a time."""
    from losslab.training.output.progress import shown_work

    with shown_work("translating lines", total) as advance:

        def translate(part: list[str]) -> list[str]:
            found = translator(part)
            advance(len(part))
            return found

        empty = file.write(lines, _BATCHES * translator.batch, translate)
    left_out = f"; {empty:,} of them are empty, which data=pairs leaves out" if empty else ""
    say(f"{total:,} translations: {file.path}; how they were made: {file.about_file}{left_out}")


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
