"""Files of rows: which ones a path names, and the reader of each. Each row is a mapping of column names to cells."""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from losslab.data.formats.class_folders import CLASS_FOLDERS
from losslab.data.formats.conll import CONLL
from losslab.data.formats.csv_files import CSV, TSV
from losslab.data.formats.json_lines import JSON_LINES
from losslab.data.formats.label_first import LABEL_FIRST
from losslab.data.formats.parquet import PARQUET
from losslab.data.opened import PACKED, check_not_empty
from losslab.data.table_format import Format, FormatName, Row, Skipped, TableFormat
from losslab.errors import UserError

__all__ = ["Row", "Skipped", "TableFormat", "column_names", "find_tables", "form_beside", "read_rows", "rows_of"]

FORMATS: dict[FormatName, Format] = {
    "csv": CSV,
    "tsv": TSV,
    "jsonl": JSON_LINES,
    "parquet": PARQUET,
    "label_first": LABEL_FIRST,
    "conll": CONLL,
    "class_folders": CLASS_FOLDERS,
}
SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS.values() for suffix in form.suffixes if suffix != ".txt"))
"""Each of them says how a file is written; that of a text does not."""
_WAY_OUT = "write it as .csv or .jsonl (pandas' to_csv and to_json(orient='records', lines=True) do that)"


def find_tables(path: str | Sequence[str], key: str, form: TableFormat | None = None) -> list[Path]:
    """The files that FILE, DIR, GLOB or a list of these names, in the order of the list and sorted within each.

    Raises:
        UserError: where there are none, where one holds no rows or is named twice, and for a folder with several kinds.
    """
    form = form or TableFormat()
    found = [file for part in ([path] if isinstance(path, str) else path) for file in _find(part, key, form)]
    if not found:
        raise UserError(f"{key} is an empty list: {key}=FILE|DIR|GLOB")
    if twice := [file for file, count in Counter(found).items() if count > 1]:
        raise UserError(f"{key} names {twice[0]} twice")
    for file in found:
        format_of(file, form)
        check_not_empty(file)
    return found


def _find(path: str, key: str, form: TableFormat) -> list[Path]:
    if not path.strip():
        raise UserError(f"{key} is empty: {key}=FILE|DIR|GLOB (an unset variable of the shell, perhaps)")
    try:
        place = Path(path).expanduser()
        if place.is_dir():
            return _in_folder(place, f"{key}={path}", form)
        found = [place] if place.is_file() else sorted(Path(p) for p in glob.glob(str(place), recursive=True))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
    except (OSError, RuntimeError) as error:  # a name too long, a home of nobody's
        raise UserError(f"{key}={path} cannot be opened: {error}") from None
    if not files:
        raise UserError(f"{key}={path} does not exist")
    return files


def _in_folder(folder: Path, said: str, form: TableFormat) -> list[Path]:
    """The tables of a folder and of those below it, sorted: of one kind."""
    wanted = FORMATS[form.name].suffixes if form.name else SUFFIXES
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and suffix_of(file) in wanted:
            kinds[suffix_of(file)].append(file)
    if not kinds:
        raise UserError(f"{said} is a folder without a file of rows ({', '.join(wanted)})")
    if len(kinds) > 1:
        shown = " and ".join(f"{len(files):,} {suffix}" for suffix, files in kinds.items())
        raise UserError(f"{said} holds {shown} files, perhaps the same rows twice: name those to read, '{said}/*.csv'")
    return next(iter(kinds.values()))


def suffix_of(path: Path) -> str:
    """In lower case, without that of a packed file."""
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).suffix.lower()


def format_of(path: Path, form: TableFormat) -> Format:
    """The reader of a file. Raises UserError where nothing says which."""
    if form.name is not None:
        return FORMATS[form.name]
    known = FORMATS.values() if suffix_of(path) in SUFFIXES else ()
    found = next((each for each in known if suffix_of(path) in each.suffixes), None)
    if found is None:
        raise UserError(
            f"{path} is no table that can be read ({', '.join(SUFFIXES)}, also {' and '.join(PACKED)}): {_WAY_OUT}; "
            f"where only its name is another: data.format={'|'.join(FORMATS)}"
        )
    return found


def form_beside(path: Path, form: TableFormat) -> TableFormat:
    """The form of a file that stands beside the data, such as one to predict: that of the data, or where its suffix
    says another format than `data.format`, that of its suffix alone."""
    named = form.name is not None and suffix_of(path) in SUFFIXES
    return TableFormat() if named and suffix_of(path) not in format_of(path, form).suffixes else form


def column_names(path: Path, form: TableFormat) -> list[str]:
    """The columns of a file, from its beginning. Raises UserError for a file without any."""
    return format_of(path, form).names(path, form)


def rows_of(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """The cells of these columns, row by row, with the place of each (`line 7`); blank lines are counted in `skipped`.

    Raises:
        UserError: naming the line of what cannot be read, and the columns that there are where one is missing.
    """
    there = column_names(path, form)
    if missing := [column for column in columns if column not in there]:
        raise UserError(f"{path} has no column {missing[0]!r}, but {', '.join(map(repr, there)) or 'nothing'}")
    yield from format_of(path, form).rows(path, columns, form, skipped)


def read_rows(path: Path, columns: list[str], form: TableFormat) -> Iterator[Row]:
    """The cells of these columns, row by row. Raises UserError as `rows_of` does."""
    return (row for _, row in rows_of(path, columns, form, Skipped()))
