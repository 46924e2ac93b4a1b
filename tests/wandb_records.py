"""A reader of W&B's .wandb files: records of its protocol buffers in the framing of LevelDB's log."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BEGINNING = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK, _HEADER = 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class Part:
    """The content of one folder of a run."""

    id: str = ""
    name: str = ""
    group: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False


def parts(run: Path) -> list[Path]:
    """The folders of a run's sessions, oldest first."""
    return sorted((run / "wandb").glob("*run-*"))


def read_part(folder: Path) -> Part:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    part = Part()
    for content in _records(file.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            part.id, part.name, part.group = record.run.run_id, record.run.display_name, record.run.run_group
            part.tags = list(record.run.tags)
            part.config |= _values(record.run.config.update)
        elif kind == "config":
            part.config |= _values(record.config.update)
        elif kind == "history":
            part.rows.append(_values(record.history.item))
        elif kind == "summary":
            part.summary |= _values(record.summary.update)
        elif kind == "exit":
            part.exit_code = record.exit.exit_code
        elif kind == "preempting":
            part.preempting = True
    return part


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    assert content.startswith(_BEGINNING)
    position, whole = len(_BEGINNING), b""
    while position < len(content):
        if _BLOCK - position % _BLOCK < _HEADER:  # too little room for a header is left empty
            position += _BLOCK - position % _BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        chunk = content[position + _HEADER : position + _HEADER + length]
        if len(chunk) < length or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return  # torn by a kill
        assert checksum == zlib.crc32(bytes([kind]) + chunk)
        position += _HEADER + length
        whole = chunk if kind in (_FULL, _FIRST) else whole + chunk
        if kind in (_FULL, _LAST):
            yield whole
