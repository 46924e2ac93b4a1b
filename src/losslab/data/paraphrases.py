"""Other wordings of texts out of a file: back-translations, for the most part, made before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from losslab.data.table_format import Skipped, TableFormat
from losslab.data.tables import find_tables, rows_of
from losslab.data.text_columns import encode_texts
from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError

COLUMN = "paraphrase"
"""The column of the other wording, beside that of the text."""


class Paraphrases:
    """Token ids of a text → those of its other wordings.

    Args:
        path: a table, one wording a row; a text may have several rows.
        column: the name of its column of texts, written as in train.
        tokenizer: that of the data.
        context: what is longer is cut, as texts are.

    Raises:
        UserError: for a file that cannot be read, and a row without text.
    """

    def __init__(self, path: str, column: str, tokenizer: Tokenizer, context: int) -> None:
        originals: list[str] = []
        others: list[str] = []
        for file in files_of(path):
            for place, row in rows_of(file, [column, COLUMN], TableFormat(), Skipped()):
                for name in (column, COLUMN):
                    if not isinstance(row[name], str) or not row[name].strip():
                        raise UserError(f"{place} of {file.name} (data.augment.paraphrases) has no text in {name!r}")
                originals.append(row[column])
                others.append(row[COLUMN])

        def encoded(texts: list[str]) -> list[list[int]]:
            found, _ = encode_texts(["text"], [], [{"text": text} for text in texts], tokenizer, context)
            values, counts = found["text"]
            return [part.tolist() for part in np.split(values, np.cumsum(counts)[:-1])]

        self.found: dict[tuple[int, ...], list[list[int]]] = {}
        for original, other in zip(encoded(originals), encoded(others), strict=True):
            self.found.setdefault(tuple(original), []).append(other)

    def of(self, tokens: list[int]) -> list[list[int]]:
        """The other wordings of a text; none where the file has none."""
        return self.found.get(tuple(tokens), [])


def files_of(path: str) -> list[Path]:
    """The files that `data.augment.paraphrases` names. Raises UserError where there are none."""
    return find_tables(path, "data.augment.paraphrases")
