"""Tokens on disk: built once for each setting, by however many processes, and built again when damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from losslab.data.cache import TokenCache, build_cache, cache_key, open_cache
from losslab.data.sources import Corpus, corpus_of
from losslab.data.splits import SPLITS, document_hash, split_documents
from losslab.data.store import growing, map_array
from losslab.data.tokenizer import FileTokenizer

SETTINGS = {"source": "s", "documents": "auto", "tokenizer": "bytes"}
KINDS = ("tokens", "bytes", "fit", "lengths")


def build(root: Path, documents: list[str], tokenizer: str = "bytes", vocab_size: int = 300, **changes) -> TokenCache:
    settings = SETTINGS | {"tokenizer": tokenizer} | changes
    return build_cache(root, settings, corpus_of(documents, "given"), tokenizer, vocab_size)


def content(cache: TokenCache) -> dict[str, list[int]]:
    arrays = {f"{s}.{k}": getattr(cache.splits[s], k).tolist() for s in SPLITS for k in KINDS}
    return arrays | {"counts": cache.counts.tolist()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


@pytest.mark.parametrize("choice", ["bpe", "bytes", "lowering", "dropping", "prefixing"])
def test_each_split_holds_its_documents_tokens_and_bytes(choice: str, documents, tokenizer_json, tmp_path) -> None:
    path = choice if choice in ("bpe", "bytes") else str(tokenizer_json(choice))
    cache = build(tmp_path, documents, path)
    by_split = split_documents(documents)
    tokenizer = cache.tokenizer()
    for split in SPLITS:
        arrays = cache.splits[split]
        ends = [] if tokenizer.end is None else [tokenizer.end]
        encoded = [[*ids, *ends] for ids, _ in tokenizer.encode(by_split[split])]
        assert arrays.tokens.tolist() == [token for ids in encoded for token in ids]
        assert int(arrays.bytes.sum()) == sum(len(text.encode()) for text in by_split[split])
        halves = [document_hash(text) & 1 for text, ids in zip(by_split[split], encoded, strict=True) for _ in ids]
        assert arrays.fit.tolist() == halves
        assert cache.meta["tokens"][split] == len(arrays.tokens)
        assert cache.meta["documents"][split] == len(by_split[split])
    counts = np.bincount(cache.splits["train"].tokens, minlength=tokenizer.vocab_size)
    assert cache.counts.tolist() == counts.tolist()
    assert cache.meta["vocab_size"] == len(cache.counts) == tokenizer.vocab_size
    assert cache.meta["tokenizer"] == tokenizer.digest()


def test_bytes_decode_to_the_documents(documents, tmp_path) -> None:
    cache = build(tmp_path, documents)
    tokens = cache.splits["val"].tokens.tolist()
    texts = bytes(0xFF if token == 256 else token for token in tokens).split(b"\xff")[:-1]
    assert [text.decode() for text in texts] == split_documents(documents)["val"]
    assert tokens.count(256) == len(texts)


def test_a_document_that_the_tokenizer_drops_leaves_its_bytes_to_its_end(tokenizer_json, tmp_path) -> None:
    documents = [f"{'模' * (10 + i)}" for i in range(30)]
    cache = build(tmp_path, documents, str(tokenizer_json("dropping")))
    by_split = split_documents(documents)
    for split in SPLITS:
        assert cache.splits[split].bytes.tolist() == [len(text.encode()) for text in by_split[split]]


def test_a_bpe_is_trained_on_train_alone(documents, tmp_path) -> None:
    cache = build(tmp_path, documents, "bpe")
    assert cache.meta["tokenizer"] == FileTokenizer.train(split_documents(documents)["train"], 300).digest()


def test_a_large_vocabulary_gets_wider_integers(tmp_path, documents) -> None:
    from tokenizers import Tokenizer, models

    words = {"[UNK]": 0} | {str(i): i for i in range(1, 2**16 + 1)}
    path = tmp_path / "large.json"
    Tokenizer(models.WordLevel(words, unk_token="[UNK]")).save(str(path))
    cache = build(tmp_path / "cache", [str(2**16 - i) for i in range(40)], str(path))
    assert cache.splits["train"].tokens.dtype == np.uint32
    assert max(int(cache.splits[split].tokens.max()) for split in SPLITS) == 2**16
    assert build(tmp_path / "cache", documents).splits["train"].tokens.dtype == np.uint16


def test_the_same_settings_are_opened_and_not_built_again(documents, tmp_path) -> None:
    first = build(tmp_path, documents)
    before = times(first.folder)
    second = build_cache(tmp_path, SETTINGS, None, "bytes", 300)  # the corpus is not looked at
    assert second.folder == first.folder
    assert times(second.folder) == before
    assert content(second) == content(first)


@pytest.mark.parametrize("key", ["source", "documents", "tokenizer", "vocab_size"])
def test_other_settings_have_a_folder_of_their_own(key: str) -> None:
    assert cache_key(SETTINGS | {key: "other"}) != cache_key(SETTINGS)


def test_the_key_does_not_depend_on_the_order_of_settings() -> None:
    assert cache_key(dict(reversed(SETTINGS.items()))) == cache_key(SETTINGS)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


def shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("damage", [empty, halve, garble, shorten, Path.unlink])
@pytest.mark.parametrize("name", ["train.tokens.npy", "val.bytes.npy", "test.fit.npy", "counts.npy"])
def test_a_damaged_array_is_built_again(damage, name: str, documents, tmp_path) -> None:
    first = build(tmp_path, documents)
    expected = content(first)
    damage(first.folder / name)
    assert content(build(tmp_path, documents)) == expected
    assert content(open_cache(first.folder)) == expected


@pytest.mark.parametrize("meta", [b"", b"{", b"{}", b"\x00" * 200, b'{"tokens": {"train": 1}}'])
def test_a_damaged_description_is_built_again(meta: bytes, documents, tmp_path) -> None:
    first = build(tmp_path, documents)
    (first.folder / "meta.json").write_bytes(meta)
    second = build(tmp_path, documents)
    assert second.meta == first.meta
    assert content(second) == content(first)


def test_a_lost_tokenizer_is_not_mistaken_for_bytes(documents, tmp_path) -> None:
    first = build(tmp_path, documents, "bpe")
    (first.folder / "tokenizer.json").unlink()
    assert build(tmp_path, documents, "bpe").tokenizer().digest() == first.meta["tokenizer"]


def test_a_failed_build_leaves_no_folder(documents, tmp_path) -> None:
    broken = {split: _Unreadable(texts) for split, texts in split_documents(documents).items()}
    with pytest.raises(OSError, match="no such text"):
        build_cache(tmp_path, SETTINGS, Corpus(broken, {}, {}), "bytes", 300)
    assert folders(tmp_path) == []
    build(tmp_path, documents)


class _Unreadable(list):
    def __iter__(self):
        raise OSError("no such text")


BUILDER = """
import json, os, signal, sys, time
from pathlib import Path
from losslab.data import cache
from losslab.data.sources import corpus_of

root, documents, log, start = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3], sys.argv[4]
write = cache._write

def noted(folder, *rest):
    with open(log, "a") as file:
        file.write(f"{folder}\\n")
    if "--die" in sys.argv:
        (folder / "train.tokens.npy").write_bytes(b"half of an arr")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    write(folder, *rest)

cache._write = noted
print("ready", flush=True)
while not Path(start).exists():
    time.sleep(0.005)
built = cache.build_cache(root, json.loads(sys.argv[5]), corpus_of(documents, "given"), "bytes", 300)
print(built.folder, int(built.splits["train"].tokens.sum()))
"""


class Builders:
    """Processes that build the same cold cache, all at once after `start`."""

    def __init__(self, folder: Path, documents: list[str]) -> None:
        self.root = folder / "cache"
        self.log = folder / "log"
        self.signal = folder / "start"
        (folder / "documents.json").write_text(json.dumps(documents))
        self.arguments = [str(self.root), str(folder / "documents.json"), str(self.log), str(self.signal)]
        self.processes: list[subprocess.Popen[str]] = []

    def add(self, *flags: str) -> None:
        command = [sys.executable, "-c", BUILDER, *self.arguments, json.dumps(SETTINGS), *flags]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def run(self) -> list[str]:
        """Let them go; returns their last lines."""
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"
        self.signal.touch()
        outputs = [process.communicate(timeout=60)[0] for process in self.processes]
        return [output.strip().rpartition("\n")[2] for output in outputs]

    def built(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def builders(tmp_path, documents):
    made = Builders(tmp_path, documents)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_parallel_processes_build_a_cold_cache_once(builders) -> None:
    for _ in range(4):
        builders.add()
    outputs = builders.run()
    assert [process.returncode for process in builders.processes] == [0] * 4
    assert len(builders.built()) == 1
    assert len(set(outputs)) == 1
    assert folders(builders.root) == [cache_key(SETTINGS)]


def test_a_killed_builder_does_no_harm(builders, documents, tmp_path) -> None:
    builders.add("--die")
    builders.run()
    assert builders.processes[0].returncode == -signal.SIGKILL
    leftover = Path(builders.built()[0])
    assert leftover.is_dir()
    assert not (builders.root / cache_key(SETTINGS)).exists()
    cache = build(builders.root, documents)
    assert content(cache) == content(build(tmp_path / "elsewhere", documents))


def test_a_folder_that_was_half_renamed_by_hand_is_replaced(documents, tmp_path) -> None:
    half = tmp_path / cache_key(SETTINGS)
    half.mkdir()
    (half / "train.tokens.npy").write_bytes(b"half")
    assert sorted(path.name for path in build(tmp_path, documents).folder.iterdir()) == sorted(
        [*(f"{split}.{kind}.npy" for split in SPLITS for kind in KINDS), "counts.npy", "meta.json", "verified.json"]
    )


def test_a_cache_can_be_moved(documents, tmp_path) -> None:
    first = build(tmp_path / "one", documents, "bpe")
    expected = content(first)
    shutil.move(tmp_path / "one", tmp_path / "two")
    moved = build(tmp_path / "two", documents, "bpe")
    assert content(moved) == expected
    assert folders(tmp_path) == ["two"]


def test_arrays_are_verified_once(documents, tmp_path, monkeypatch) -> None:
    first = build(tmp_path, documents)

    def refuse(path: Path, start: int = 0, size: int | None = None) -> int:
        raise AssertionError(f"{path} is read to its end")

    monkeypatch.setattr("losslab.data.store.checksum", refuse)
    assert content(open_cache(first.folder)) == content(first)


def test_a_byte_that_was_changed_is_found_though_size_and_time_are_the_same(documents, tmp_path) -> None:
    first = build(tmp_path, documents)
    expected = content(first)
    path = first.folder / "train.tokens.npy"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ValueError, match="damaged"):
        open_cache(first.folder)
    assert content(build(tmp_path, documents)) == expected


def test_a_cache_that_cannot_be_written_is_verified_each_time(documents, tmp_path, monkeypatch) -> None:
    first = build(tmp_path, documents)
    (first.folder / "verified.json").unlink()

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("losslab.data.store.write_atomic", refuse)
    assert content(open_cache(first.folder)) == content(first)
    assert not (first.folder / "verified.json").exists()


def test_streamed_arrays_are_those_that_numpy_saves(tmp_path) -> None:
    pieces = [np.arange(5), np.arange(0), np.arange(100_000)]
    with growing(tmp_path / "grown.npy", np.uint32) as array:
        for piece in pieces:
            array.append(piece)
    np.save(tmp_path / "saved.npy", np.concatenate(pieces).astype(np.uint32))
    assert (tmp_path / "grown.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()
    with growing(tmp_path / "empty.npy", np.uint32):
        pass
    assert map_array(tmp_path / "empty.npy").tolist() == []
