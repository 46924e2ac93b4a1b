"""A run's event files for TensorBoard, written in the thread that logs: flushed events are on disk, and a full disk is
an exception here and now, not a lost thread's."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from losslab.event_file import PREFIX, EventWriter, file_name, scalars
from losslab.files import naming, write_atomic

_PARTS = ("val/", "test/", "best/val/", "best/test/")
"""Prefixes of metrics of the last step, and of the best checkpoint."""
_VARIED = ("loss", "loss_settings", "lr", "regularizers", "seed")
"""Settings that most comparisons vary: the tab shows five columns by default, and these before the others."""
_HEADER, _FOOTER = 12, 4
"""Bytes around a record: its length and that length's checksum; its own checksum."""


class EventFile:
    """One session's events of a run; several sessions lie side by side in its folder, and readers see one series.

    Args:
        purge_from: readers drop what earlier sessions logged from this step on; None goes on with the last session.
    """

    def __init__(self, folder: Path, *, purge_from: int | None) -> None:
        name = file_name(time.time(), f"{socket.gethostname()}.{os.getpid()}")
        self.path = folder / name if purge_from is not None else _event_files(folder)[-1]
        self._file = self.path.open("ab")
        self._events = EventWriter(self._file, time.time)
        if purge_from is not None:
            self._events.begin(purge_from)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at an optimizer step."""
        self._events.write(scalars(step, values))

    def hparams(self, values: Mapping[str, str | float], metrics: Sequence[str]) -> None:
        """Describe the run for the HParams tab: one row instead of the one that earlier sessions of this run left.
        Every run gives the same keys with the same types.

        Args:
            metrics: the names of those that the tab shows.
        """
        infos = [
            api_pb2.HParamInfo(
                name=key,
                type=api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64,
                differs=key in _VARIED,
            )
            for key, value in values.items()
        ]
        tags = [f"{part}{name}" for name in metrics for part in _PARTS]
        metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags]
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for key, value in values.items():
            if isinstance(value, str):
                start.hparams[key].string_value = value
            else:
                start.hparams[key].number_value = value
        experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
        self._plugin(metadata.EXPERIMENT_TAG, experiment=experiment)
        self._plugin(metadata.SESSION_START_INFO_TAG, session_start_info=start)
        self.flush()
        for path in _event_files(self.path.parent):
            if path != self.path:
                _forget_row(path)

    def result(self, success: bool) -> None:
        """Close the row; a run that was only stopped stays open."""
        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    def flush(self) -> None:
        with naming(self.path):
            self._events.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._events.close()

    def _plugin(self, tag: str, **content: Any) -> None:
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
        value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
        self._events.write(Event(summary=Summary(value=[value])))


def has_row(folder: Path) -> bool:
    """Whether the run's row of the HParams tab is there."""
    return any(_is_row(event) for path in _event_files(folder) for _, event in _records(path))


def has_scalars(folder: Path) -> bool:
    """Whether any session has logged a value there."""
    return any(
        value.WhichOneof("value") == "simple_value"
        for path in _event_files(folder)
        for _, event in _records(path)
        for value in event.summary.value
    )


def _forget_row(path: Path) -> None:
    """Readers keep the first row that they find, and would show a failure that was mended since."""
    records = list(_records(path))
    kept = [content for content, event in records if not _is_row(event)]
    if len(kept) < len(records):
        write_atomic(path, b"".join(kept))


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def _records(path: Path) -> Iterator[tuple[bytes, Event]]:
    """The bytes of each record and what it says, up to where a kill tore the file: readers come no further."""
    content, start = path.read_bytes(), 0
    while len(content) >= start + _HEADER:
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + _HEADER + length + _FOOTER
        if len(content) < end:
            return
        try:
            event = Event.FromString(content[start + _HEADER : end - _FOOTER])
        except DecodeError:
            return
        yield content[start:end], event
        start = end


def _is_row(event: Event) -> bool:
    return any(value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME for value in event.summary.value)
