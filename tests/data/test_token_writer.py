"""Token streams are written in shards: a build that stops at any of them goes on, and ends with the same bytes."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from losslab import console
from losslab.data import cache as caches
from losslab.data import encoding, overlap, token_writer
from losslab.data.cache import build_cache, cache_key
from losslab.data.module import TextDataModule
from losslab.data.sources import corpus_of
from losslab.data.tokenizer import FileTokenizer
from losslab.tasks.lm import LanguageModeling

SETTINGS = {"source": "s", "documents": "auto", "tokenizer": "bpe"}


def build(root: Path, documents: list[str]) -> dict[str, bytes]:
    """The files of a build."""
    cache = build_cache(root, SETTINGS, corpus_of(documents, "given"), "bpe", 300)
    return {path.name: path.read_bytes() for path in sorted(cache.folder.iterdir()) if path.name != "verified.json"}


@pytest.fixture
def small(monkeypatch) -> None:
    """Shards of about 4 KB in pieces of about 500 characters: five of train, one of val and one of test."""
    monkeypatch.setattr(token_writer, "SHARD", 4000)
    monkeypatch.setattr(encoding, "_AT_ONCE", 500)


def half_built(root: Path) -> Path:
    return root / f".{cache_key(SETTINGS)}.tmp"


def stop_at(monkeypatch, number: int) -> None:
    """Interrupt the build while it records its shard of this number, after the shard's bytes were written."""
    add = token_writer.Journal.add

    def stopping(journal: token_writer.Journal, shard: token_writer.Shard) -> None:
        if len(journal.shards) == number:
            raise KeyboardInterrupt
        add(journal, shard)

    monkeypatch.setattr(token_writer.Journal, "add", stopping)


def test_a_build_that_stops_at_any_shard_goes_on_to_the_same_bytes(
    small, documents, tmp_path, monkeypatch, capsys
) -> None:
    whole = build(tmp_path / "whole", documents)
    trained = []
    monkeypatch.setattr(FileTokenizer, "train", _noting(trained, FileTokenizer.train))
    for number in range(7):
        root = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_at(patch, number)
            with pytest.raises(KeyboardInterrupt):
                build(root, documents)
        assert half_built(root).is_dir()
        capsys.readouterr()
        assert build(root, documents) == whole
        assert ("goes on where it was killed" in capsys.readouterr().out) == (number > 0)
        assert not half_built(root).exists()
    assert len(trained) == 7  # and not again where a build goes on


def _noting(calls: list[int], train):
    def noted(*arguments, **more):
        calls.append(1)
        return train(*arguments, **more)

    return noted


@pytest.mark.parametrize("damage", ["array", "journal", "tokenizer", "note"])
def test_what_is_damaged_of_a_half_built_text_is_made_again(
    damage: str, small, documents, tmp_path, monkeypatch, capsys
) -> None:
    whole = build(tmp_path / "whole", documents)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "other", documents)
    folder = half_built(tmp_path / "other")
    if damage == "array":
        content = bytearray((folder / "train.tokens.npy").read_bytes())
        content[128 + 2800] ^= 1  # behind the first shard
        (folder / "train.tokens.npy").write_bytes(content)
    else:
        path = folder / {"journal": ".shards.jsonl", "tokenizer": "tokenizer.json", "note": ".tokenizer"}[damage]
        path.write_bytes(path.read_bytes()[:-5])
    capsys.readouterr()
    assert build(tmp_path / "other", documents) == whole
    assert ("goes on" in capsys.readouterr().out) == (damage in ("array", "journal"))


def test_a_build_that_fails_leaves_nothing(small, documents, tmp_path, monkeypatch) -> None:
    def full(journal: token_writer.Journal, shard: token_writer.Shard) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_writer.Journal, "add", full)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path, documents)
    assert not half_built(tmp_path).exists()


@pytest.fixture(scope="module")
def byte_level() -> FileTokenizer:
    return FileTokenizer.train(["the loss of a model — naïve 模型 🙂 is is the the loss loss 12 12\n\n"] * 9, 280)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["", "<|endoftext|>", "模型 the loss 🙂🙂"]))))
def test_bytes_of_byte_level_tokens_are_those_of_their_offsets(texts: list[str], byte_level: FileTokenizer) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    assert byte_level._byte_lengths is not None
    found = byte_level.encode_together(texts)
    expected = list(byte_level.encode(texts))
    assert found.ids.tolist() == [token for ids, _ in expected for token in ids]
    assert found.bytes.tolist() == [size for _, sizes in expected for size in sizes]
    assert found.counts.tolist() == [len(ids) for ids, _ in expected]


@pytest.mark.parametrize("name", ["lowering", "dropping", "prefixing"])
def test_bytes_of_other_tokens_are_those_of_their_offsets(name: str, tokenizer_json, documents) -> None:
    tokenizer = FileTokenizer.read(str(tokenizer_json(name)))
    assert tokenizer._byte_lengths is None
    found = tokenizer.encode_together(documents)
    expected = list(tokenizer.encode(documents))
    assert found.ids.tolist() == [token for ids, _ in expected for token in ids]
    assert found.bytes.tolist() == [size for _, sizes in expected for size in sizes]


def test_a_lowered_text_keeps_the_bytes_of_its_offsets() -> None:
    tokenizer = FileTokenizer.train(["İstanbul is a CITY"] * 3, 270, lowercase=True)
    assert tokenizer._byte_lengths is None  # a character in lower case may have more bytes
    found = tokenizer.encode_together(["İstanbul"])
    assert int(np.sum(found.bytes)) == len("İstanbul".encode())


def test_shards_of_another_build_are_not_taken(small, documents, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, documents)
    other = half_built(tmp_path).with_name(".other.tmp")
    shutil.copytree(half_built(tmp_path), other)
    journal = token_writer.Journal(other, {"settings": {"source": "another"}, "tokenizer": "t"})
    assert journal.shards == []


def test_a_large_text_gives_a_sample_by_hash_to_the_tokenizer_and_to_the_search_for_copies(
    tmp_path, monkeypatch, capsys
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"paragraph {i} of a text that is long enough for windows" for i in range(900)))

    def prepare() -> TextDataModule:
        module = TextDataModule(path=str(text), vocab_size=300, context=8, rules=1)
        module.prepare(tmp_path / str(caches.TRAINED_ON), LanguageModeling())
        return module

    whole = prepare()
    assert "tokenizer_trained_on" not in whole.summary()
    monkeypatch.setattr(caches, "TRAINED_ON", 10_000)
    monkeypatch.setattr(overlap, "MOST", 1000)
    sampled = prepare()
    assert sampled.cache.meta["tokenizer"] != whole.cache.meta["tokenizer"]
    trained = sampled.summary()["tokenizer_trained_on"]
    assert trained["of"] == whole.cache.meta["documents"]["train"]
    assert 0.5 < trained["documents"] / (10_000 / 55) < 1.5
    found = sampled.cache.meta["overlap"]["val"]
    assert found["sample_of"] == whole.cache.meta["overlap"]["val"]["documents"] > found["documents"] > 5
    lines = "\n".join(line for line, _ in sampled.introduction(0))
    assert f"{trained['documents']:,} of {trained['of']:,} documents" in lines
    assert f"(a sample of {found['sample_of']:,})" in lines


def test_progress_is_told_in_lines_where_there_is_no_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(console, "_SECONDS", 0.0)
    with console.measuring("tokenising", 200, 100) as advance:
        advance(50, 10**6)
    started, line = capsys.readouterr().out.splitlines()
    assert started == "tokenising …"
    assert re.fullmatch(r"tokenising: 75%, [\d,.]+ MB/s, 0:00:00 left", line)


def test_progress_is_a_bar_on_a_terminal(monkeypatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "is_live", lambda: True)
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=100))
    with console.measuring("tokenising", 200) as advance:
        advance(50, 10**6)
    assert "25%" in screen.getvalue() and "MB/s" in screen.getvalue()
