"""The comparison's event files: what TensorBoard's own readers find in them."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams import metadata as hparams

from losslab.comparison.output.events import Series, write_events

NOW = 1_800_000_000.25


def png(width: int, height: int) -> bytes:
    """A black picture, in shades of grey."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" * (width + 1)) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def curve(label: str, mean: list[float], *, metric: str = "val/nll_scaled", width: float = 0.5) -> Series:
    values = np.array(mean)
    return Series(metric, label, np.arange(1, len(mean) + 1) * 10, values, values - width, values + width)


SERIES = [
    curve("cross_entropy", [4.0, 3.0, 2.5]),
    curve("focal gamma=2.0", [5.0, 3.5, 3.0]),
    curve("cross_entropy", [1.0, 0.5, 0.25], metric="train/objective"),
    curve("cross_entropy", [0.75], metric="val/top5"),
]
IMAGES = {"curves": png(7, 3), "scale/frontier": png(2, 5)}


def write(folder: Path, series: list[Series] = SERIES, *, time: float = NOW) -> Path:
    return write_events(folder / "comparison", series, images=IMAGES, time=time)


def read_back(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def runs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder).parent) for path in folder.rglob("events*"))


def layout_of(folder: Path) -> dict[str, Any]:
    *_, event = read_back(folder).Tensors(metadata.CONFIG_SUMMARY_TAG)
    return {
        category.title: list(category.chart)
        for category in layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    }


def test_each_loss_is_a_run_with_its_mean_and_band(tmp_path: Path) -> None:
    write(tmp_path)
    assert runs(tmp_path) == [
        "comparison",
        "comparison/losses/cross_entropy",
        "comparison/losses/focal gamma=2.0",
    ]
    events = read_back(tmp_path / "comparison/losses/focal gamma=2.0")
    assert events.Tags()["scalars"] == ["val/nll_scaled/mean", "val/nll_scaled/low", "val/nll_scaled/high"]
    for part, shift in (("mean", 0.0), ("low", -0.5), ("high", 0.5)):
        found = [(event.wall_time, event.step, event.value) for event in events.Scalars(f"val/nll_scaled/{part}")]
        assert found == [(NOW, 10, 5.0 + shift), (NOW, 20, 3.5 + shift), (NOW, 30, 3.0 + shift)]
    own = read_back(tmp_path / "comparison/losses/cross_entropy")
    assert [event.value for event in own.Scalars("train/objective/mean")] == [1.0, 0.5, 0.25]


def test_the_dashboard_finds_every_curve_that_it_names(tmp_path: Path) -> None:
    write(tmp_path)
    layout = layout_of(tmp_path / "comparison")
    assert list(layout) == ["val", "train", "every run"]
    tags = read_back(tmp_path / "comparison/losses/cross_entropy").Tags()["scalars"]
    for category, metric in (("val", "val/nll_scaled"), ("train", "train/objective")):
        band, lines = layout[category]
        (bounds,) = band.margin.series
        assert [bounds.value, bounds.lower, bounds.upper] == [f"{metric}/{part}" for part in ("mean", "low", "high")]
        assert {bounds.value, bounds.lower, bounds.upper} <= set(tags)
        (pattern,) = lines.multiline.tag
        assert [tag for tag in tags if re.match(pattern, tag)] == [bounds.value]
    # The single runs' own curves, and nothing else that begins like them.
    own = ["val/nll_scaled", "val/nll", "best/val/nll_scaled", "train/objective", "train/objective/first", *tags]
    for chart, metric in zip(layout["every run"], ("val/nll_scaled", "train/objective"), strict=True):
        assert [tag for tag in own if re.match(chart.multiline.tag[0], tag)] == [metric]


def test_images_come_with_their_sizes(tmp_path: Path) -> None:
    write(tmp_path)
    events = read_back(tmp_path / "comparison")
    found = {tag: events.Images(f"figures/{tag}")[0] for tag in IMAGES}
    assert {tag: (image.width, image.height) for tag, image in found.items()} == {
        "curves": (7, 3),
        "scale/frontier": (2, 5),
    }
    assert {tag: image.encoded_image_string for tag, image in found.items()} == IMAGES


def test_the_comparison_is_no_row_of_the_hparams_tab(tmp_path: Path) -> None:
    write(tmp_path)
    for run in runs(tmp_path):
        assert hparams.SESSION_START_INFO_TAG not in read_back(tmp_path / run).summary_metadata


def test_the_same_input_gives_the_same_bytes_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    before = files(tmp_path / "a")
    assert write(tmp_path / "a") == first
    assert files(tmp_path / "a") == before
    write(tmp_path / "b")
    assert files(tmp_path / "b") == before
    assert len(before) == 3


@pytest.mark.parametrize("time", [NOW, NOW + 60])
def test_a_later_comparison_replaces_an_earlier_one(tmp_path: Path, time: float) -> None:
    folder = tmp_path / "comparison"
    earlier = write(tmp_path)
    (folder / "figures").mkdir()
    (folder / "figures/curves.png").write_bytes(b"")
    (folder / "losses/focal gamma=2.0/note.txt").write_bytes(b"mine")
    changed = [curve("cross_entropy", [9.0, 8.0]), curve("square", [7.0, 6.0])]
    later = write(tmp_path, changed, time=time)
    # A TensorBoard that has read the earlier file reads the later one only if it has a name of its own.
    assert later.name != earlier.name
    assert runs(tmp_path) == ["comparison", "comparison/losses/cross_entropy", "comparison/losses/square"]
    own = read_back(folder / "losses/cross_entropy")
    assert [event.value for event in own.Scalars("val/nll_scaled/mean")] == [9.0, 8.0]
    assert (folder / "figures/curves.png").exists()
    assert (folder / "losses/focal gamma=2.0/note.txt").read_bytes() == b"mine"


def test_files_that_a_kill_left_beside_the_new_ones_are_not_seen(tmp_path: Path) -> None:
    earlier = write(tmp_path / "old", [curve("square", [5.0, 4.0, 3.0])])
    write(tmp_path, [curve("square", [7.0, 6.0])], time=NOW + 60)
    run = Path("comparison/losses/square")
    (left,) = (tmp_path / "old" / run).iterdir()
    left.rename(tmp_path / run / left.name)
    earlier.rename(tmp_path / "comparison" / earlier.name)
    assert [event.value for event in read_back(tmp_path / run).Scalars("val/nll_scaled/mean")] == [7.0, 6.0]
    assert list(layout_of(tmp_path / "comparison")) == ["val", "every run"]


def test_nothing_to_compare_leaves_a_file_that_reads(tmp_path: Path) -> None:
    path = write_events(tmp_path / "comparison", [], images={}, time=NOW)
    assert path.exists()
    tags = read_back(path.parent).Tags()
    assert (tags["scalars"], tags["images"], tags["tensors"]) == ([], [], [])
    nothing = Series("val/nll", "square", *(np.array([]) for _ in range(4)))
    write_events(tmp_path / "comparison", [nothing], images={}, time=NOW)
    assert read_back(tmp_path / "comparison/losses/square").Tags()["scalars"] == []


def test_values_that_are_not_finite_leave_curves_whose_steps_agree(tmp_path: Path) -> None:
    nan = float("nan")
    steps = np.array([1, 2, 3])
    one = Series("val/nll", "square", steps, np.array([2.0, nan, 1.0]), np.full(3, nan), np.array([3.0, 3.0, np.inf]))
    write(tmp_path, [one])
    events = read_back(tmp_path / "comparison/losses/square")
    found = {part: [(e.step, e.value) for e in events.Scalars(f"val/nll/{part}")] for part in ("mean", "low", "high")}
    assert found == {"mean": [(1, 2.0), (3, 1.0)], "low": [(1, 2.0), (3, 1.0)], "high": [(1, 3.0), (3, 1.0)]}


@pytest.mark.parametrize("label", ["../focal", "a/b | k=(1, 2)", ".hidden", "..", "w" * 300, "Verlust für ö=1"])
def test_any_label_is_one_run_in_the_folder(tmp_path: Path, label: str) -> None:
    write(tmp_path, [curve(label, [2.0, 1.0]), curve(label.replace("/", "_") + "'", [4.0, 3.0])])
    found = [path for path in (tmp_path / "comparison/losses").iterdir() if path.is_dir()]
    assert len(found) == 2
    assert len(runs(tmp_path)) == 3
    values = sorted(read_back(path).Scalars("val/nll_scaled/mean")[0].value for path in found)
    assert values == [2.0, 4.0]


def test_what_is_no_png_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'curves' is no PNG"):
        write_events(tmp_path / "comparison", SERIES, images={"curves": b"<svg/>"}, time=NOW)
    assert not (tmp_path / "comparison").exists()
