"""Frames of files and of sound: the formula of log-mel bands, what is refused, and rows as batches hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from losslab.contracts import DataInfo, Share
from losslab.data.frame_files import FrameReader
from losslab.data.frames import FrameRows
from losslab.data.log_mel import filterbank, log_mel
from losslab.data.row_files import FileRows
from losslab.data.rows import RowsDataModule
from losslab.data.table_format import Skipped
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.tasks.transcription import Transcription
from made_speech import SPEAKERS, write_sound, write_utterances

RATE, WINDOW, HOP = 8000, 200, 80


def tone(seconds: float = 0.5, hertz: float = 1000.0) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round(RATE * seconds))
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(len(noise)) / RATE) + 0.01 * noise


def test_bands_are_those_of_the_published_formula() -> None:
    """Short-time spectra by scipy; triangles written out band by band."""
    samples, mels = tone(), 12
    _, _, spectra = scipy.signal.stft(
        samples, window="hann", nperseg=WINDOW, noverlap=WINDOW - HOP, nfft=256, boundary=None, padded=False
    )
    power = np.abs(spectra * scipy.signal.get_window("hann", WINDOW).sum()) ** 2  # scipy divides by that sum

    def hertz(mel: float) -> float:
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = [hertz(top * i / (mels + 1)) for i in range(mels + 2)]
    expected = np.zeros((power.shape[1], mels))
    for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for k in range(129):
            f = k * RATE / 256
            share = (f - low) / (middle - low) if f <= middle else (high - f) / (high - middle)
            expected[:, band] += max(share, 0.0) * power[k]
    found = log_mel(samples, RATE, mels=mels, window=WINDOW, hop=HOP)
    assert found.shape == (1 + (len(samples) - WINDOW) // HOP, mels)
    np.testing.assert_allclose(found, np.log(expected), rtol=1e-9, atol=1e-9)
    assert found.mean(axis=0).argmax() == np.abs(np.array(edges[1:-1]) - 1000).argmin()


def test_silence_has_the_floor_and_narrow_bands_are_refused() -> None:
    assert np.array_equal(
        log_mel(np.zeros(WINDOW), RATE, mels=4, window=WINDOW, hop=HOP), np.full((1, 4), np.log(1e-10))
    )
    with pytest.raises(ValueError, match=r"of data.source.mels=128 bands are narrower than the 31.2 Hz"):
        filterbank(128, 256, RATE)
    with pytest.raises(ValueError, match="fewer than the 200 of one window"):
        log_mel(np.zeros(199), RATE, mels=4, window=WINDOW, hop=HOP)


def test_sound_is_read_as_its_samples_say(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone())
    found = FrameReader(mels=12).read(path)
    exact = log_mel(np.round(tone() * 2**15) / 2**15, RATE, mels=12, window=WINDOW, hop=HOP)
    assert found.rate == RATE and found.frames.dtype == np.float32
    np.testing.assert_allclose(found.frames, exact, rtol=1e-6)


def test_stacked_frames_repeat_the_last_one() -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert FrameReader(stack=3).stacked(frames).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 8, 9]]
    assert FrameReader(stack=5).stacked(frames).tolist() == [list(range(10))]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda p: write_sound(p / "x.wav", tone(), channels=2), r"has 2 channels, and one is read: mix them down"),
        (lambda p: write_sound(p / "x.wav", tone(), depth=1), r"8 bits, and 16 are read"),
        (lambda p: write_sound(p / "x.wav", tone(), rate=16000), r"16,000 samples a second, and others have 8,000"),
        (lambda p: write_sound(p / "x.wav", tone(0.01)), r"x.wav: it has 80 samples, fewer than the 200"),
        (lambda p: saved(p / "x.wav", b"RIFF"), r"x.wav cannot be read"),
        (lambda p: saved(p / "x.mp3", b"..."), r"x.mp3 is no file of frames: .npy and .wav are read"),
        (lambda p: p / "nothing.npy", r"nothing.npy does not exist"),
        (lambda p: array(p / "x.npy", np.zeros(3)), r"x.npy: it holds float64 \[3\], and frames are numbers \[T, F\]"),
        (lambda p: array(p / "x.npy", np.zeros((0, 3))), r"at least one"),
        (lambda p: array(p / "x.npy", np.full((2, 12), np.inf)), r"x.npy holds numbers that are not finite"),
        (lambda p: array(p / "x.npy", np.array([["a"]])), r"frames are numbers"),
        (lambda p: array(p / "x.npy", np.zeros((2, 5))), r"x.npy has 5 values a frame, and others have 12"),
        (lambda p: saved(p / "x.npy", b"no array"), r"x.npy"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, written: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FrameReader(mels=12, rate=RATE, width=12).read(written(tmp_path))


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def array(path: Path, content: np.ndarray) -> Path:
    np.save(path, content)
    return path


@pytest.mark.parametrize(("name", "value"), [("mels", 0), ("stack", -1), ("hop_ms", 0.0), ("window_ms", -2.0)])
def test_settings_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"data.source.{name} must be above 0, not {value:g}"):
        FrameRows(**{name: value})  # type: ignore[arg-type]


def module(path: Path, *, source: dict[str, Any] | None = None, **settings: Any) -> RowsDataModule:
    given = FrameRows(**{"stack": 1} | (source or {}))
    return RowsDataModule(**{"path": str(path), "source": given, "rules": 2, "context": 64} | settings)


def prepared(path: Path, cache: Path, **settings: Any) -> tuple[RowsDataModule, DataInfo]:
    data = module(path, **settings)
    data.check_task(Transcription())
    data.info = data.prepare(cache, Transcription())
    return data, data.info


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_utterances(tmp_path_factory.mktemp("utterances"), 60)


def test_rows_are_standardised_by_train_and_hold_their_text(table: Path, tmp_path: Path) -> None:
    data, info = prepared(table, tmp_path)
    assert (info.frame_width, info.num_classes, info.class_names, info.vocab_size) == (8, 4, tuple("0123"), None)
    rows = [data.store.row("train", i) for i in range(data.store.count("train"))]
    every = torch.cat([row["frames"] for row in rows])  # type: ignore[misc]
    torch.testing.assert_close(every.double().mean(dim=0), torch.zeros(8, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(every.double().std(dim=0, correction=0), torch.ones(8, dtype=torch.float64))
    scale = json.loads(info.artifacts["frames.json"])["frames"]
    told = {
        row["text"]: np.load(table.parent / row["frames"]) for row in map(json.loads, table.read_text().splitlines())
    }
    by_text = {"".join(info.class_names[c] for c in row["text"]): row["frames"] for row in rows}  # type: ignore[index,union-attr]
    some = sorted(text for text in by_text if len(text) == 4)[0]
    found = by_text[some].double().numpy() * np.array(scale["std"]) + np.array(scale["mean"])  # type: ignore[union-attr]
    np.testing.assert_allclose(found, told[some], atol=1e-5)
    assert info.class_counts is not None and info.class_counts.sum() == sum(len(row["text"]) for row in rows)  # type: ignore[arg-type]
    assert json.loads(info.artifacts["audio.json"])["width"] == 8


def test_a_speaker_stays_in_one_split_where_the_table_names_them(table: Path, tmp_path: Path) -> None:
    def speakers(data: RowsDataModule) -> list[set[str]]:
        frames = {
            np.load(table.parent / row["frames"]).tobytes(): row["speaker"]
            for row in map(json.loads, table.read_text().splitlines())
        }
        scale = json.loads(data.info.artifacts["frames.json"])["frames"]
        keys = {round(float(np.frombuffer(k, dtype="<f4")[0]), 4): who for k, who in frames.items()}
        found = []
        for split in data.splits:
            firsts = [data.store.row(split, i)["frames"][0, 0] for i in range(data.store.count(split))]  # type: ignore[index]
            found.append({keys[round(float(x) * scale["std"][0] + scale["mean"][0], 4)] for x in firsts})
        return found

    apart = speakers(prepared(table, tmp_path, val_fraction=0.2, test_fraction=0.2)[0])
    assert sorted(map(len, apart)) == [1, 1, 2] and set().union(*apart) == {*SPEAKERS}
    mixed = speakers(prepared(table, tmp_path, source={"speaker": None}, val_fraction=0.2, test_fraction=0.2)[0])
    assert sum(map(len, mixed)) > len(SPEAKERS)
    assert module(table, group="text").reading.group == "text" and module(table).reading.group == "speaker"


def test_batches_of_similar_length_count_frames(table: Path, tmp_path: Path) -> None:
    data, _ = prepared(table, tmp_path, batch_tokens=96, batch_size=16, num_workers=0)
    data.seed = 3
    shapes = [data.train_batch(step, Share()).inputs["frames"].shape for step in range(data.train.order.steps)]  # type: ignore[attr-defined]
    assert all(rows * frames <= 96 for rows, frames, _ in shapes) and len({frames for _, frames, _ in shapes}) > 3
    assert sum(rows for rows, _, _ in shapes) == data.store.count("train")
    assert any("at most 96 frames; " in line for line in data.train.told())  # type: ignore[attr-defined]


def test_what_is_stored_depends_on_files_and_settings(table: Path, tmp_path: Path) -> None:
    task = Transcription()
    plain = module(table).content_hashes(task)
    assert plain.keys() == {"data.path", "data.source.files"}
    other = write_utterances(tmp_path / "other", 60)
    assert module(other).content_hashes(task) == plain
    frames = np.load(other.parent / "frames/7.npy")
    np.save(other.parent / "frames/7.npy", frames + 1)
    changed = module(other).content_hashes(task)
    assert changed["data.path"] == plain["data.path"] and changed["data.source.files"] != plain["data.source.files"]
    prepared(table, tmp_path / "cache")
    _, stacked = prepared(table, tmp_path / "cache", source={"stack": 2, "unfit": "skip"})
    assert stacked.frame_width == 16


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"frames": 5}, {}, r"line 8: its frames must be the path of a file \(.npy or .wav\), not 5"),
        ({"frames": "no.npy"}, {}, r"utterances.jsonl: line 8: .*no.npy does not exist"),
        ({"text": " "}, {}, r"line 8 cannot be used: its text must be text of one character or more.*unlabelled=skip"),
        ({"text": "0" * 40}, {}, r"line 8: it has \d+ frames of 1, and its text needs 79 .*data.source.unfit=skip"),
        ({}, {"context": 8}, r"line \d+: it has \d+ frames of 1, and data.context=8: give model.context=\d+, a larger"),
        ({"text": "0X"}, {"source": {"speaker": None}}, r"no row of train has the character 'X' in its text"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(
    table: Path, tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    place = next(i for i, row in enumerate(rows) if i >= 7)
    rows[place] |= changes
    for row in rows:
        row["frames"] = str(table.parent / row["frames"]) if isinstance(row["frames"], str) else row["frames"]
    (path := tmp_path / "utterances.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own: dict[str, Any] = {}
    if changes.get("text") == "0X":  # to be in val
        path.write_text("\n".join(json.dumps(row) for row in rows if row is not rows[place]))
        (tmp_path / "val.jsonl").write_text("\n".join(json.dumps(row) for row in rows[place : place + 2]))
        own = {"val_path": str(tmp_path / "val.jsonl")}
    with pytest.raises(UserError, match=said):
        prepared(path, tmp_path / "cache", **settings, **own)


def test_rows_without_room_are_left_out_and_counted(table: Path, tmp_path: Path) -> None:
    data, _ = prepared(table, tmp_path, source={"unfit": "skip", "speaker": None}, context=14)
    skipped = data.summary()["skipped"]["utterances longer than data.context"]
    assert sum(data.summary()["rows"].values()) == 60 - skipped and skipped > 5
    assert any("left out" in line and "utterances longer" in line for line, _ in data.introduction(0))


def test_sound_and_arrays_are_not_mixed(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", tone())
    array(tmp_path / "b.npy", np.zeros((4, 40)))
    rows = [{"frames": name, "text": "ab"} for name in ("a.wav", "b.npy")]
    (path := tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"line 2: .*b.npy is an array, and others are not"):
        prepared(path, tmp_path / "cache")


def test_tables_and_tasks_that_do_not_go_together_are_refused(table: Path, tmp_path: Path) -> None:
    (path := tmp_path / "rows.jsonl").write_text('{"frames": "a.npy", "text2": "a"}\n')
    with pytest.raises(UserError, match=r"data.columns.text=text: .* has no such column, but 'frames', 'text2'"):
        module(path).check_task(Transcription())
    with pytest.raises(UserError, match=r"data\.path is missing"):
        RowsDataModule(source=FrameRows(), context=8)
    plain = RowsDataModule(path=str(table), rules=2, context=64)
    with pytest.raises(UserError, match=r"its frames must be finite numbers \[T, F\], which data=frames reads"):
        plain.prepare(tmp_path / "cache", Transcription())
    with pytest.raises(UserError, match="gives frames, and task=classification reads none: task=transcription does"):
        module(table).check_task(Classification())


def test_hidden_stretches_follow_the_place_and_leave_the_rest(table: Path, tmp_path: Path) -> None:
    augment = {"time_masks": 2, "time_mask_length": 3, "frequency_masks": 1, "frequency_mask_width": 2}
    settings: dict[str, Any] = {"source": {"stack": 2, "unfit": "skip"}, "batch_size": 4}
    plain, masked = (prepared(table, tmp_path, augment=keys, **settings)[0] for keys in (None, augment))
    lengths, bands = set(), set()
    for step in range(30):
        before, after = (data.train_batch(step, Share()).inputs["frames"] for data in (plain, masked))
        assert torch.equal(after, masked.train_batch(step, Share()).inputs["frames"])
        second = masked.train_batch(step, Share(1, 2)).inputs["frames"]
        assert torch.equal(second, after[2:, : second.shape[1]])
        assert bool(((after == before) | (after == 0)).all())
        for own, whole in zip(after.view(4, -1, 2, 8), before, strict=True):
            real = int((whole != 0).any(dim=1).sum())
            lengths.add(int((own[:real] == 0).flatten(1).all(dim=1).sum()))
            bands.add(int((own[:real] == 0).flatten(0, 1).all(dim=0).sum()))
    assert bands == {0, 1, 2} and {0, 1, 2, 3} < lengths and max(lengths) <= 6
    assert torch.equal(
        next(iter(plain.eval_batches("val", Share()))).inputs["frames"],
        next(iter(masked.eval_batches("val", Share()))).inputs["frames"],
    )


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ({"time_masks": 1.5}, "data.augment.time_masks must be a whole number from 0 on, not 1.5"),
        ({"frequency_masks": 1, "frequency_mask_width": 0}, "frequency_mask_width must be a whole number from 1 on"),
        ({"time_mask_length": 3}, "data.augment.time_mask_length goes with data.augment.time_masks, which is 0"),
        ({"deletion": 0.1}, "data.augment.deletion changes tokens, and task=transcription reads none"),
        ({"mixup": 0.1}, "mixes rows of one target each, and task=transcription gives each position its own"),
    ],
)
def test_changes_that_frames_do_not_take_are_refused(table: Path, augment: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        module(table, augment=augment).check_task(Transcription())


def test_tasks_without_frames_hide_none(table: Path) -> None:
    data = RowsDataModule(path=str(table), rules=2, context=8, augment={"time_masks": 1}, columns={"label": "speaker"})
    with pytest.raises(UserError, match=r"data.augment.time_masks hides frames, and task=classification reads none"):
        data.check_task(Classification())


def test_the_table_of_spoken_digits_is_made_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    for name in ("7_jackson_32", "0_theo_1", "3_theo_0"):
        write_sound(tmp_path / f"recordings/{name}.wav", tone())
    page = Path(__file__).parents[2] / "docs/transcription.md"
    exec(page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0], {})
    rows = [json.loads(line) for line in (tmp_path / "digits.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["zero", "three", "seven"] and rows[2]["speaker"] == "jackson"
    source = FrameRows(mels=12, stack=2).over(FileRows("digits.jsonl"), {"frames": "audio"}, 64)
    found = [cells["audio"].shape for _, cells in source.rows("train", ["audio", "text"], Skipped())]
    assert found == [(24, 24)] * 3 and source.group() == "speaker"
