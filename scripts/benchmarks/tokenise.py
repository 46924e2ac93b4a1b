"""A large file tokenised by losslab, beside the bare batch call of `tokenizers` over the same documents, and a build
that is killed and goes on.

Each is a process tree of its own, whose memory (the sum of the resident sizes) is looked at twenty times a second. The
text is made of the words of the built-in corpus, drawn with a seed, in paragraphs; the tokenizer is trained on that
corpus beforehand. `tokenise` is the writing of the streams alone: reading, encoding, bytes of each token, shards on the
disk. `the whole preparation` also reads and hashes the file, cuts and splits it, looks for copies across splits, and
tries the way back from the tokens.

`--rows` does the same with tables, of rows of 100 bytes and of 1 KB, as JSON lines: `tokenise` is the writing of the
encoded columns, and the bare call is given the texts alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tools.options import positive
from losslab.data.token_writer import SHARD

TABLE = "rows.jsonl"
LEAST_RATIO = 0.8
MOST_MEMORY = 1.5 * 2**30
_VOCABULARY = 4096
_BATCH = 1024
_WIDTHS = (100, 1000)
"""Bytes of a row."""
_CONTEXT = 512
_LABELS = 20
_LOOKS = 0.05
"""Seconds between two looks at the memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--megabytes", type=positive, default=50, metavar="N", help="of text or rows (default: %(default)s)"
    )
    parser.add_argument("--rows", action="store_true", help="tables instead of a text")


def main(arguments: argparse.Namespace) -> int:
    """Print both speeds and memories, and whether a killed build ends with the same bytes; 1 where that is not so, or a
    promise is not kept."""
    return max(measure(arguments.megabytes, width) for width in (_WIDTHS if arguments.rows else (None,)))


def measure(megabytes: int, width: int | None) -> int:
    """A text, or where there is a width, a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_text(folder, megabytes, width)
        what = "text" if width is None else f"rows of {width:,} bytes"
        print(f"{size / 1e6:,.0f} MB of {what}, {os.cpu_count()} cores", flush=True)
        found, our_memory, _ = watched(folder, "ours", "whole")
        tell("losslab", size, found["tokenise"])
        wall, cpu = found["all"]
        print(f"the whole preparation: {wall:.1f} s, {cpu:.1f} s of CPU; peak memory {our_memory / 2**20:,.0f} MiB")
        other, bare_memory, _ = watched(folder, "bare", "whole")
        tell("tokenizers", size, other["tokenise"])
        ratio, by_cpu = (theirs / own for own, theirs in zip(found["tokenise"], other["tokenise"], strict=True))
        print(f"tokenise: {ratio:.2f} × the speed of the bare call, {by_cpu:.2f} × by CPU; the whole preparation:")
        print(f"{other['tokenise'][0] / wall:.2f} ×, {other['tokenise'][1] / cpu:.2f} × by CPU")
        print(f"peak memory of the bare call: {bare_memory / 2**20:,.0f} MiB", flush=True)
        same = killed(folder, found["digest"], after=max(1, size // SHARD // 2))
    return int(ratio < LEAST_RATIO or our_memory > MOST_MEMORY or not same)


def tell(what: str, size: int, took: tuple[float, float]) -> None:
    wall, cpu = took
    print(f"{what:<12}{wall:8.1f} s, {size / 1e6 / wall:6.2f} MB/s; {cpu:8.1f} s of CPU", flush=True)


def killed(folder: Path, expected: str, *, after: int) -> bool:
    """Kill a build once it has recorded `after` shards, and let it go on."""
    process = start(folder, "ours", "killed")
    while process.poll() is None and shards_in(folder) < after:
        time.sleep(_LOOKS)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result, memory, output = watched(folder, "ours", "killed")
    same = result["digest"] == expected
    kept = next((line for line in output if line.startswith("goes on")), None)
    print(kept or "nothing was kept")
    print(
        f"killed and gone on: {'the same bytes' if same else 'OTHER BYTES'}; the rest took "
        f"{result['tokenise'][0]:.1f} s to tokenise, at most {memory / 2**20:,.0f} MiB"
    )
    return same and kept is not None


def shards_in(folder: Path) -> int:
    """Shards that the half of a build has recorded; the first line is about the build."""
    return max(
        (len(path.read_text().splitlines()) - 1 for path in folder.glob("killed/.*.tmp/.shards.jsonl")), default=0
    )


def start(folder: Path, what: str, cache: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.tokenise", what, str(folder), cache]
    source = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": source})


def watched(folder: Path, what: str, cache: str) -> tuple[dict[str, Any], int, list[str]]:
    """The result of a process, the most memory of its tree, and its lines."""
    process = start(folder, what, cache)
    most = 0
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(_LOOKS)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{what} failed: {process.returncode}")
    return json.loads(lines[-1]), most, lines


def memory_of(pid: int) -> int:
    """Resident bytes of a process and of those that it started."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(memory_of(int(child)) for child in children)


def write_text(folder: Path, megabytes: int, width: int | None) -> int:
    """Write text.txt, or rows.jsonl of this width, and tokenizer.json; returns the bytes of the text or the table."""
    from losslab.data.python_docs import read_texts
    from losslab.data.tokenizer import FileTokenizer

    texts = read_texts()
    FileTokenizer.train(texts, _VOCABULARY).save(folder)
    words = " ".join(texts).split()
    draw = random.Random(megabytes)
    with (folder / ("text.txt" if width is None else TABLE)).open("wb") as file:
        while file.tell() < megabytes * 10**6:
            if width is None:
                file.write((" ".join(draw.choices(words, k=draw.randint(20, 300))) + "\n\n").encode())
            else:
                file.write(row(draw, words, width).encode())
        return file.tell()


def row(draw: random.Random, words: Sequence[str], width: int) -> str:
    """A line of about `width` bytes."""
    found = {"text": "", "label": f"c{draw.randrange(_LABELS)}"}
    left, chosen = width - len(json.dumps(found)), list[str]()
    while left > 0:
        chosen.append(draw.choice(words))
        left -= len(chosen[-1]) + 1
    return json.dumps(found | {"text": " ".join(chosen)}, ensure_ascii=False) + "\n"


def spent() -> tuple[float, float]:
    """Wall and CPU seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.monotonic(), used.ru_utime + used.ru_stime


def since(began: tuple[float, float]) -> tuple[float, float]:
    now = spent()
    return now[0] - began[0], now[1] - began[1]


def ours(folder: Path, cache: str) -> dict[str, Any]:
    """Prepare the text or the table as a run does."""
    from losslab.data import cache as caches
    from losslab.data import row_store
    from losslab.data.module import TextDataModule
    from losslab.data.rows import RowsDataModule
    from losslab.tasks.classification import Classification
    from losslab.tasks.lm import LanguageModeling

    found: dict[str, Any] = {}

    def timed(write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*arguments: Any, **more: Any) -> Any:
            began = spent()
            written = write(*arguments, **more)
            found["tokenise"] = since(began)
            return written

        return writing

    caches.write_streams = timed(caches.write_streams)
    row_store.write_rows = timed(row_store.write_rows)
    tokenizer = str(folder / "tokenizer.json")
    began = spent()
    if (table := folder / TABLE).exists():
        rows = RowsDataModule(path=str(table), tokenizer=tokenizer, context=_CONTEXT, rules=2)
        rows.prepare(folder / cache, Classification())
    else:
        text = TextDataModule(path=str(folder / "text.txt"), tokenizer=tokenizer, context=128, rules=2)
        text.prepare(folder / cache, LanguageModeling())
    found["all"] = since(began)
    digest = hashlib.sha256()
    for path in sorted((folder / cache).glob("*/*.npy")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return found | {"digest": digest.hexdigest()}


def bare(folder: Path) -> dict[str, Any]:
    """The batch call of the library alone: the same documents, and nothing kept."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    began = spent()
    waiting: list[str] = []
    table = folder / TABLE
    for text in texts_of(table) if table.exists() else paragraphs(folder / "text.txt"):
        waiting.append(text)
        if len(waiting) == _BATCH:
            tokenizer.encode_batch(waiting, add_special_tokens=False)
            waiting = []
    tokenizer.encode_batch(waiting, add_special_tokens=False)
    return {"tokenise": since(began)}


def texts_of(table: Path) -> Iterator[str]:
    with table.open(encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def paragraphs(path: Path) -> Iterator[str]:
    """One line each, as `write_text` wrote them."""
    with path.open(encoding="utf-8") as file:
        yield from (line[:-1] for line in file if line != "\n")


if __name__ == "__main__":
    kind, place, name = sys.argv[1:]
    print(json.dumps(ours(Path(place), name) if kind == "ours" else bare(Path(place))))
