"""The comparison for TensorBoard: a run for each loss beside the runs that it stands for, and a dashboard of them all.

TensorBoard gives each run one colour, and overlays what has the same tag in several: so a loss is a run.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from losslab.event_file import PREFIX, EventWriter, file_name, scalars
from losslab.files import write_atomic

_LOSSES, _FIGURES = "losses", "figures"
_SUFFIX = ".comparison"
_FIRST, _EVERY_RUN = "val", "every run"
_LONGEST_NAME = 200
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""PNG's colour type → number of channels."""


@dataclass(frozen=True)
class Series:
    """One metric of one loss against the optimizer step."""

    metric: str
    """The metric as the runs log it: val/nll_scaled."""
    label: str
    """The loss and its setting: focal gamma=2."""
    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    """Over seeds. A step at which it is not finite is left out."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """The band around the mean; where a bound is not finite, as with one seed, it has no width there."""


def write_events(folder: Path, series: Sequence[Series], *, images: dict[str, bytes], time: float) -> Path:
    """Write the runs that TensorBoard shows as `folder` (dashboard and images) and `folder`/losses/label (a loss's
    curves: metric/mean, /low and /high), an event file each, instead of those that an earlier comparison left.

    The same input gives the same files. A kill leaves old files and new ones, all whole; the next call puts it right.

    Args:
        folder: made where it is missing; what else it holds stays.
        images: title → a PNG; figures/title is its tag.
        time: seconds since 1970; the wall time of all events, so something that the compared runs determine.

    Returns:
        The event file in `folder` itself.

    Raises:
        ValueError: for an image that is no PNG.
        OSError: when something cannot be written.
    """
    own: dict[Path, list[Event]] = {}
    for one in series:
        own.setdefault(folder / _LOSSES / _file_name(one.label), []).extend(_curve(one))
    values = [_image(title, content) for title, content in images.items()]
    # A value that was measured once, at the end, makes no chart.
    if charted := list(dict.fromkeys(one.metric for one in series if len(one.steps) > 1)):
        values.append(_layout(charted))
    # The dashboard last: it promises what must be there.
    own[folder] = [Event(summary=Summary(value=[value])) for value in values]
    written = {}
    for run, events in own.items():
        content = _encode(events, time)
        # A TensorBoard that runs reads a file on from where it stopped, so what is new comes under another name.
        digest = hashlib.sha256(content).hexdigest()[:8]
        written[run] = run / file_name(time, f"{digest}{_SUFFIX}")
        run.mkdir(parents=True, exist_ok=True)
        write_atomic(written[run], content)
    _remove_earlier(folder, keep=set(written.values()))
    return written[folder]


def remove_events(folder: Path) -> None:
    """Take out of TensorBoard what `write_events` left in `folder`; what else it holds stays."""
    _remove_earlier(folder, keep=set())


def _remove_earlier(folder: Path, *, keep: set[Path]) -> None:
    pattern = f"{PREFIX}*{_SUFFIX}"
    for path in sorted({*folder.glob(pattern), *folder.glob(f"{_LOSSES}/*/{pattern}")} - keep):
        path.unlink()
        if path.parent != folder and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _file_name(label: str) -> str:
    """The label, and where a file cannot be called that, something like it."""
    safe = re.sub(r"^\.|[/\0]", "_", label)
    if safe == label and len(label.encode()) <= _LONGEST_NAME:
        return label
    short = safe.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _encode(events: Iterable[Event], time: float) -> bytes:
    file = io.BytesIO()
    writer = EventWriter(file, lambda: time)
    writer.begin(0)  # readers then drop the content of an earlier file that a kill left here
    for event in events:
        writer.write(event)
    return file.getvalue()


def _curve(one: Series) -> list[Event]:
    events = []
    for step, mean, *bounds in zip(one.steps, one.mean, one.low, one.high, strict=True):
        if np.isfinite(mean):
            low, high = (bound if np.isfinite(bound) else mean for bound in bounds)
            parts = {"mean": mean, "low": low, "high": high}
            events.append(scalars(step, {f"{one.metric}/{part}": value for part, value in parts.items()}))
    return events


def _layout(metrics: Iterable[str]) -> Summary.Value:
    """The dashboard: a category for each group of metrics (val, train), and one of the single runs."""
    categories: dict[str, list[layout_pb2.Chart]] = defaultdict(list)
    single = []
    for metric in metrics:
        mean, low, high = (f"{metric}/{part}" for part in ("mean", "low", "high"))
        # One series a chart: a run that has some of a chart's series, but not all, is reported as an error.
        band = layout_pb2.MarginChartContent.Series(value=mean, lower=low, upper=high)
        chart = layout_pb2.Chart(title=f"{metric}, with band", margin=layout_pb2.MarginChartContent(series=[band]))
        categories[metric.partition("/")[0]] += [chart, _lines(f"{metric}, means", mean)]
        single.append(_lines(metric, metric))
    titles = [*sorted(categories, key=lambda title: title != _FIRST), _EVERY_RUN]
    categories[_EVERY_RUN] = single
    layout = layout_pb2.Layout(
        category=[
            # An open section sends a request for each chart and run; most people look at the first.
            layout_pb2.Category(title=title, chart=categories[title], closed=place > 0)
            for place, title in enumerate(titles)
        ]
    )
    content = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[layout.SerializeToString()])
    return Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=content)


def _lines(title: str, tag: str) -> layout_pb2.Chart:
    """A chart with a line for each run that has this tag; the plugin matches patterns at the beginning only."""
    content = layout_pb2.MultilineChartContent(tag=[f"{re.escape(tag)}$"])
    return layout_pb2.Chart(title=title, multiline=content)


def _image(title: str, content: bytes) -> Summary.Value:
    if not content.startswith(_PNG):
        raise ValueError(f"the image {title!r} is no PNG")
    width, height, _, color = struct.unpack(">IIBB", content[16:26])
    image = Summary.Image(height=height, width=width, colorspace=_CHANNELS[color], encoded_image_string=content)
    # The tab groups by what stands before the slash: one group for all.
    return Summary.Value(tag=f"{_FIGURES}/{title}", image=image)
