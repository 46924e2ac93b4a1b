"""TensorBoard's event files, in its own protocol buffers and records. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

PREFIX = "events.out.tfevents."
"""The part of a file's name by which readers recognise it."""


def file_name(time: float, origin: str) -> str:
    """The name of an event file. Readers take the files of a folder in the order of their names.

    Args:
        time: seconds since 1970; microseconds distinguish files of one second.
        origin: the rest of the name, such as host and process.
    """
    return f"{PREFIX}{round(time * 1e6):016d}.{origin}"


def scalars(step: int, values: Mapping[str, float]) -> Event:
    """The event of some values at an optimizer step, by tag."""
    content = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(step=step, summary=Summary(value=content))


class EventWriter:
    """Events of one file, written one after the other in the thread that calls.

    Args:
        file: open for binary writing.
        clock: the wall time of an event, in seconds since 1970, when it is written.
    """

    def __init__(self, file: BinaryIO, clock: Callable[[], float]) -> None:
        self._records = RecordWriter(file)
        self._clock = clock

    def begin(self, step: int) -> None:
        """Open a session. Readers drop the values of earlier files in the folder from this step on."""
        self.write(Event(file_version="brain.Event:2"))
        self.write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, event: Event) -> None:
        """Append an event; equal events give equal bytes."""
        event.wall_time = self._clock()
        self._records.write(event.SerializeToString(deterministic=True))

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()
