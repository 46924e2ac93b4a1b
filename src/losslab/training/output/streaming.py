"""Write what torch.save writes to an open file, piece by piece, with the system's errors."""

from __future__ import annotations

from typing import Any, BinaryIO

import torch


def stream(content: dict[str, Any], file: BinaryIO | None) -> int:
    """Write `content` as torch.save does, without a copy of it in memory; returns the number of bytes.

    Args:
        file: None to count only.

    Raises:
        OSError: what the file raises, as it is.
    """
    sink = _Sink(file)
    torch.save(content, sink)  # type: ignore[arg-type]
    if sink.failure is not None:
        raise sink.failure
    return sink.size


class _Sink:
    """A file object for torch.save: it counts the bytes, and passes them on to a file if there is one.

    torch's writer is C++, through which no exception may pass: the first one is kept, and raised when all is over.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self.file = file
        self.size = 0
        self.failure: BaseException | None = None

    def write(self, data: memoryview) -> int:
        self.size += len(data)
        if self.file is not None and self.failure is None:
            try:
                self.file.write(data)
            except BaseException as error:  # a Ctrl-C, too, must not pass through C++
                self.failure = error
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is flushed before its fsync."""
