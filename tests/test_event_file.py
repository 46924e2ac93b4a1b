"""Event files as TensorBoard's own reader finds them."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab.event_file import EventWriter, file_name, scalars


def write(folder: Path, time: float, *, first_step: int, values: dict[int, float]) -> Path:
    path = folder / file_name(time, "test")
    with path.open("wb") as file:
        writer = EventWriter(file, lambda: time)
        writer.begin(first_step)
        for step, value in values.items():
            writer.write(scalars(step, {"val/nll": value}))
        writer.flush()
    return path


def test_a_later_file_replaces_the_values_from_its_first_step_on(tmp_path: Path) -> None:
    write(tmp_path, 1e9 + 2e-6, first_step=2, values={2: 0.25, 3: 0.5})
    write(tmp_path, 1e9 + 1e-6, first_step=0, values={1: 3.0, 2: 2.0})
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    found = reader.Scalars("val/nll")
    assert [(event.step, event.value) for event in found] == [(1, 3.0), (2, 0.25), (3, 0.5)]
    assert [event.wall_time for event in found] == [1e9 + 1e-6, 1e9 + 2e-6, 1e9 + 2e-6]


def test_equal_events_give_equal_bytes_and_names_sort_by_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first = write(tmp_path, 1e9, first_step=0, values={1: 3.0})
    again = write(tmp_path / "again", 1e9, first_step=0, values={1: 3.0})
    assert first.read_bytes() == again.read_bytes() and first.name == again.name
    names = [file_name(time, "x") for time in (9e8, 1e9, 1e9 + 1e-6)]
    assert names == sorted(names) and len(set(names)) == 3
