"""A person's own text: find the files, read them as UTF-8, cut them into documents."""

from __future__ import annotations

import glob
import gzip
import hashlib
import re
import zlib
from pathlib import Path
from typing import Literal

from losslab.errors import UserError

DocumentRule = Literal["auto", "file", "blank_line", "block"]

SUFFIXES = (".txt", ".md", ".gz")
BLOCK = 4096
"""Longest block, in characters."""
ENOUGH = 20
"""With fewer files (or blank-line blocks) than this, `auto` takes the next finer rule."""


def find_files(path: str) -> list[Path]:
    """The files that FILE, DIR or GLOB names, sorted. Raises UserError when there are none."""
    if not path.strip():
        raise UserError("data.path is empty: data.path=FILE|DIR|GLOB (an unset variable of the shell, perhaps)")
    try:
        return _find(path, Path(path).expanduser())
    except (OSError, RuntimeError) as error:  # a name too long, a home of nobody's
        raise UserError(f"data.path={path} cannot be opened: {error}") from None


def _find(path: str, expanded: Path) -> list[Path]:
    if expanded.is_file():
        return [expanded]
    if expanded.is_dir():
        found = [p for p in expanded.rglob("*") if p.suffix in SUFFIXES and p.is_file()]
        found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(expanded).parts)]
        if not found:
            raise UserError(f"data.path={path} is a folder without {', '.join(SUFFIXES)} files")
    else:
        found = [Path(p) for p in glob.glob(str(expanded), recursive=True) if Path(p).is_file()]  # noqa: PTH207
        if not found:
            raise UserError(f"data.path={path} does not exist")
    return sorted(found)


def read_file(path: Path) -> str:
    """The text of one file, .gz unpacked. Raises UserError when it is not UTF-8."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be read; convert it first") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def read_texts(path: str) -> list[str]:
    """The texts of all files that are not empty. Raises UserError when all are."""
    texts = [read_file(file) for file in find_files(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UserError(f"data.path={path} holds no text: it is empty")
    return texts


def cut_documents(texts: list[str], rule: DocumentRule) -> list[str]:
    """Cut texts into documents: whole files, blocks between blank lines, or blocks of about 4 KiB."""
    if rule in ("auto", "file") and (rule == "file" or len(texts) >= ENOUGH):
        return texts
    if rule in ("auto", "blank_line"):
        blocks = [block for text in texts for block in re.split(r"\r?\n(?:[ \t]*\r?\n)+", text) if block.strip()]
        if rule == "blank_line" or len(blocks) >= ENOUGH:
            return blocks
    return [block for text in texts for block in _blocks(text)]


def hash_texts(texts: list[str]) -> str:
    """SHA-256 of the texts' content; names and places of files do not count."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def _blocks(text: str) -> list[str]:
    """Pieces of at most BLOCK characters that end at a line, else at a word, else anywhere."""
    blocks, start = [], 0
    while start < len(text):
        end = start + BLOCK
        if end < len(text):
            for separator in ("\n", " "):
                cut = text.rfind(separator, start + BLOCK // 2, end)
                if cut >= 0:
                    end = cut + 1
                    break
        if text[start:end].strip():
            blocks.append(text[start:end])
        start = end
    return blocks
