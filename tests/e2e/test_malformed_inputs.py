"""Whatever is typed, or lies in a folder: one line, the right exit code, nothing run untrusted, and nothing lost.

A table. Each row is typed in a folder with a text, a completed run (DONE), an interrupted one (CUT) and an export.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import losslab
from losslab import cli, records
from losslab.errors import Interrupted, UserError
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.process import worker
from runs import TINY, make_text, only_run
from warm_process import PYTHON

COMMON = [*TINY, "data.tokenizer=bpe", "data.vocab_size=300", "checkpoints.every_n_steps=2"]
STOPPED_AT = 6
RUNS = {"DONE": "outputs/done", "CUT": "outputs/cut"}
TRAP = "from pathlib import Path\nPath('mark').touch()\nclass Trap:\n    pass\n"
"""A module that leaves a mark when it is imported."""

Spoil = Callable[[], object]
"""Spoils something in the current folder."""


class Row(NamedTuple):
    command: str
    """As typed after `losslab`; `train` begins with COMMON, `load` and `worker` are losslab.load and the worker."""
    words: str
    """Some of what the line says; empty where no line is due."""
    spoil: Spoil | None = None
    code: int = 2
    unread: bool = False
    """Whether the text must not have been read, and no file have been made."""
    process: bool = False
    """In a process of its own."""


def row(name: str, command: str, words: str, spoil: Spoil | None = None, **more: Any) -> Any:
    return pytest.param(Row(command, words, spoil, **more), id=name)


def typed(overrides: str, words: str, spoil: Spoil | None = None, name: str = "", **more: Any) -> Any:
    """A mistake after `train` that can be known without the text."""
    return row(name or f"train {overrides}"[:60], f"train {overrides}", words, spoil, unread=True, **more)


def with_folders(text: str) -> str:
    for word, sweep in RUNS.items():
        if word in text:
            text = text.replace(word, str(next(path for path in Path(sweep).iterdir() if path.is_dir())))
    return text


def files(pattern: str) -> list[Path]:
    """The files of a glob such as DONE/*.csv, or the one file of that name."""
    path = with_folders(pattern)
    return sorted(Path().glob(path)) or [Path(path)]


def write(pattern: str, content: str | bytes) -> Spoil:
    def spoil() -> None:
        for path in files(pattern):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def change(pattern: str, how: Callable[[bytes], bytes]) -> Spoil:
    return lambda: [path.write_bytes(how(path.read_bytes())) for path in files(pattern)]


def remove(pattern: str) -> Spoil:
    return lambda: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in files(pattern)]


def replace(pattern: str) -> Spoil:
    """A folder by an empty file."""
    return lambda: [(remove(str(path))(), path.touch()) for path in files(pattern)]


def edit(pattern: str, key: str, value: Any) -> Spoil:
    """Put `value` at a key such as trainer/devices of a .json, .yaml or .ckpt; ... takes the key away."""

    def spoil(content: bytes) -> bytes:
        read, dump = FORMATS[Path(pattern).suffix]
        node = whole = read(io.BytesIO(content))
        *parents, last = key.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
        return dump(whole)

    return change(pattern, spoil)


def saved(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


FORMATS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bytes]]] = {
    ".json": (json.load, lambda content: json.dumps(content).encode()),
    ".yaml": (yaml.safe_load, lambda content: yaml.safe_dump(content).encode()),
    ".ckpt": (torch.load, saved),
}


def added(text: str) -> Callable[[bytes], bytes]:
    return lambda content: content + text.encode()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def flipped(content: bytes) -> bytes:
    """With another bit in its middle; of a checkpoint, in the middle of its largest part."""
    at = len(content) // 2
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            largest = archive.read(max(archive.infolist(), key=lambda info: info.file_size))
        at = content.index(largest) + len(largest) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def tokenizer_json(**model: Any) -> str:
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model})


class Shell:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch mark",)


MINE = "mine/loss/mine.yaml"
BY_BATCHES = "trainer.max_steps=null trainer.max_tokens=500"
NO_GPU = [] if torch.cuda.is_available() else [typed("trainer=gpu", "torch finds no GPU here")]
CONFIGURATION = [
    typed("seeed=3", "did you mean 'seed'?", process=True),
    typed("+trainer.foo=1", "there is no key 'trainer.foo'"),
    typed("loss=sqare", "did you mean 'square'?"),
    typed("trainer=null", "a group's choice must be a name"),
    typed("'loss=['", "'loss=['"),
    typed("seed", "KEY=VALUE"),
    typed("seed=1,2", "add -m"),
    typed("'seed=${seed}'", "seed"),
    typed("'name=${oc.env:NOT_THERE}'", "NOT_THERE"),
    # flags
    typed("--max-steps=5", "max_steps=VALUE"),
    typed("--trust os.system", "no flag '--trust'"),
    typed("--cfg jobb", "did you mean 'job'?"),
    typed("--info nope", "--info"),
    typed("--resolve", "--resolve"),
    typed("-m --cfg job", "leave out -m"),
    typed("--config-dir", "--config-dir"),
    typed("--config-dir nowhere", "nowhere is not a folder"),
    typed("--config-dir mine", "rename it", write("mine/loss/square.yaml", "_target_: mine.Loss\n")),
    typed("--config-dir mine loss=mine", "mine", write(MINE, "_target_: ["), "no yaml"),
    typed("--config-dir mine loss=mine", "mine", write(MINE, b"\xff"), "not UTF-8"),
    typed("--config-dir mine loss=mine", "loss/mine", write(MINE, "- 1\n- 2\n"), "a list for a loss"),
    typed("--config-dir mine loss=mine", "loss has no _target_", write(MINE, ""), "an empty yaml for a loss"),
    # multiruns
    typed("-m seed=1,x", "whole number, not 'x'"),
    typed("-m 'seed=range(1,x)'", "range(1,x)"),
    typed("-m hydra/launcher=nope", "hydra/launcher"),
    # the budget and the batch
    typed("trainer.max_steps=0", "trainer.max_steps must be above 0"),
    typed("trainer.devices=two", "trainer.devices must be a whole number"),
    typed("trainer.devices=3", "data.batch_size=4 is not"),
    typed("trainer.num_nodes=2", "torchrun"),
    typed("data.batch_size=0", "data.batch_size must be above 0"),
    typed("data.batch_size=-4", "data.batch_size must be above 0"),
    typed(f"{BY_BATCHES} data.batch_size=0", "data.batch_size", name="tokens by 0 windows"),
    typed(f"{BY_BATCHES} model.context=0", "context", name="tokens by windows of 0"),
    # components
    typed("model.width=6", "even width per head"),
    typed("model.width=1000000000000", "model: Decoder refuses"),
    typed("~loss", "choose one with loss=…"),
    typed("loss._target_=torch.nn.Identity", "must derive from"),
    typed("optimizer.lr=nan", "AdamW refuses"),
    typed("optimizer._target_=torch.optim.AdamV", "did you mean 'Adam"),
    typed(
        "optimizer._target_=torch.optim.LBFGS ~optimizer.betas ~optimizer.eps ~optimizer.weight_decay",
        "LBFGS refuses",
    ),
    typed("scheduler.warmup_steps=-1", "warmup_steps"),
    # the machine
    *NO_GPU,
    typed("trainer.precision=17", "precision"),
    typed("trainer.precision=16-mixed +optimizer.fused=true", "does not go with"),
    typed("trainer.strategy=telepathy", "telepathy"),
    typed("trainer.accelerator=quantum", "quantum"),
    typed("trainer.threads=0", "trainer.threads must be above 0"),
    # places
    typed(f"name={'n' * 300}", "cannot be written"),
    typed("name=taken", "outputs/taken cannot be written", write("outputs/taken", "")),
    typed("output_dir=book.txt", "book.txt"),
    typed("output_dir=/proc/nowhere", "cannot be written"),
]

NEW_TEXTS = [
    row("a text that is missing", "train data.path=nope.txt", "nope.txt does not exist"),
    row("a text without a name", "train data.path=", "data.path"),
    row("a name that is too long", f"train data.path={'n' * 300}", "too long"),
    row("a text and a corpus", "train data.corpus=python_docs", "data.corpus"),
    row("an empty text", "train", "holds no text", write("book.txt", "")),
    row("a text in latin-1", "train", "book.txt is not UTF-8", write("book.txt", "café".encode("latin-1"))),
    row("a picture", "train", "not UTF-8", write("book.txt", b"\x89PNG\r\n" + bytes(range(256)))),
    row("half a .gz", "train data.path=b.gz", "b.gz cannot be", write("b.gz", half(gzip.compress(b"some text" * 99)))),
    row("a .gz with another bit", "train data.path=b.gz", "b.gz", write("b.gz", flipped(gzip.compress(b"words" * 99)))),
    row("a folder without text", "train data.path=library", "without .txt", write("library/notes.rst", "text")),
    row("a text that is too short", "train", "too short", write("book.txt", "too short")),
    row("a context longer than the text", "train model.context=20000", "one window needs 20001"),
    row("class weights for another vocabulary", "train loss.class_weights=[1,2]", "class_weights"),
    typed("data.documents=chapter", "data.documents cannot be 'chapter'"),
    typed("data.vocab_size=256", "at least 257"),
    typed("data.tokenizer=t.json", "t.json is neither"),
    typed("data.tokenizer=t.json", "t.json is not a tokenizer.json", write("t.json", "{}"), "a tokenizer of no kind"),
    row(
        "a tokenizer without tokens",
        "train data.tokenizer=t.json",
        "t.json",
        write("t.json", tokenizer_json(type="BPE", vocab={}, merges=[])),
    ),
    row(
        "a tokenizer that lacks a word",
        "train data.tokenizer=t.json",
        "t.json",
        write("t.json", tokenizer_json(type="WordLevel", vocab={"a": 0}, unk_token="[UNK]")),
    ),
    row("a cache that is a file", "train name=new", ".cache", replace("outputs/.cache")),
]

TEXTS_OF_RUNS = [
    row("resume: the text is gone", "resume CUT", "say where it lies now", remove("book.txt")),
    row("resume: the text is another", "resume CUT", "another text", write("book.txt", make_text(seed=1))),
    row("resume: the text is nowhere", "resume CUT data.path=nope.txt", "nope.txt does not exist"),
    row("evaluate: the text is gone", "evaluate DONE", "say where it lies now", remove("book.txt")),
    row("evaluate: the text is nowhere", "evaluate DONE data.path=nope.txt", "nope.txt does not exist"),
    row("evaluate: the text has no name", "evaluate DONE data.path=", "data.path is empty"),
    row("evaluate: an empty text", "evaluate DONE data.path=b.txt", "holds no text", write("b.txt", "")),
    row("evaluate: a part of one letter", "evaluate DONE data.path=b.txt --split val", "short", write("b.txt", "I")),
    row("evaluate: no such home", "evaluate DONE data.path=~not-here/b", "~not-here"),
    row("resume: no such home", "resume CUT data.path=~not-here/b", "~not-here"),
    row("evaluate: another tokenizer", "evaluate DONE data.tokenizer=bytes", "the tokenizer of"),
    row("evaluate: no such tokenizer", "evaluate DONE data.tokenizer=t.json", "t.json is neither"),
    row(
        "worker: the text is another",
        "worker CUT/config.yaml",
        "not those it began",
        write("book.txt", make_text(seed=1)),
    ),
]

IN_CACHE = "outputs/.cache/*/"
CACHE = [
    row(f"{command}: {name} of the cache is {how}", command, "", spoil, code=0)
    for command, name, how, spoil in [
        ("train name=new", "meta.json", "cut", change(f"{IN_CACHE}meta.json", half)),
        ("resume CUT", "meta.json", "empty", write(f"{IN_CACHE}meta.json", "")),
        ("evaluate DONE", "meta.json", "without sums", edit(f"{IN_CACHE}meta.json", "checksums", ...)),
        ("evaluate DONE", "meta.json", "gone", remove(f"{IN_CACHE}meta.json")),
        ("train name=new", "tokenizer.json", "altered", change(f"{IN_CACHE}tokenizer.json", flipped)),
        ("evaluate DONE", "tokenizer.json", "gone", remove(f"{IN_CACHE}tokenizer.json")),
        ("resume CUT", "train.tokens.npy", "altered", change(f"{IN_CACHE}train.tokens.npy", flipped)),
        ("evaluate DONE", "val.tokens.npy", "cut", change(f"{IN_CACHE}val.tokens.npy", half)),
        ("evaluate DONE", "test.bytes.npy", "zeros", change(f"{IN_CACHE}test.bytes.npy", zeros)),
        ("evaluate DONE", "val.fit.npy", "empty", write(f"{IN_CACHE}val.fit.npy", "")),
        ("resume CUT", "all", "gone", remove("outputs/.cache")),
    ]
]
CACHE += [
    row(
        "meta.json of the cache is a list",
        "evaluate DONE",
        "",
        write(f"{IN_CACHE}meta.json", "[]"),
        code=0,
    ),
]

RECORD, CONFIG = "outputs/*/*/run.json", "outputs/*/*/config.yaml"
READERS = ["resume CUT", "evaluate DONE", "export DONE", "compare outputs/done"]
RECORDS = [
    row(f"{command}: run.json {name}", command, words, spoil)
    for command in [*READERS, "clean outputs"]
    for name, words, spoil in [
        ("is empty", "run.json cannot be read", write(RECORD, "")),
        ("is cut", "run.json cannot be read", change(RECORD, half)),
        ("is zeros", "run.json cannot be read", change(RECORD, zeros)),
        ("is a list", "run.json is no record", write(RECORD, "[]")),
        ("has no schema", "run.json is no record", edit(RECORD, "schema", ...)),
        ("has a schema before the first", "run.json is not a whole", edit(RECORD, "schema", 0)),
        ("has a newer schema", "update losslab", edit(RECORD, "schema", 99)),
        ("has no identity", "run.json is not a whole", edit(RECORD, "identity", ...)),
        ("has a step in words", "run.json holds 'six' as step", edit(RECORD, "step", "six")),
        ("has a status of its own", "no status but 'lost'", edit(RECORD, "status", "lost")),
        ("has one metric", "run.json holds metrics", edit(RECORD, "metrics", {"best": 3})),
        ("has metrics in words", "run.json holds metrics", edit(RECORD, "metrics/best", {"val/nll": "low"})),
    ]
]
RECORDS += [
    row(f"{command}: run.json is gone", command, "no run", remove(RECORD))
    for command in [*READERS, "load DONE", "worker CUT/config.yaml"]
]
RECORDS += [
    row(f"{command}: run.json {name}", command, "run.json", edit(RECORD, key, value))
    for command, name, key, value in [
        ("compare outputs/done", "has a number as choices", "provenance/choices", 5),
        ("compare outputs/done", "has a list as version", "versions/torch", ["2"]),
        ("compare outputs/done", "has a huge metric", "metrics/best", {"test/nll_scaled": 10**400}),
        ("evaluate DONE trainer.threads=null", "has threads in words", "hardware/threads", "two"),
        ("resume CUT trainer.threads=null", "has threads in words", "hardware/threads", "two"),
    ]
]
RECORDS += [
    row(
        "compare: no finite metric",
        "compare outputs/done",
        "finite",
        edit(RECORD, "metrics/best", {"test/nll_scaled": None}),
    ),
    row(
        "evaluate: run.json has a number as folder",
        "evaluate DONE",
        "run.json",
        lambda: [edit(RECORD, "provenance/folder", 5)(), remove("book.txt")()],
    ),
]

CONFIGS = [
    row(f"{command}: config.yaml {name}", command, words, spoil)
    for command in READERS
    for name, words, spoil in [
        ("is gone", "holds no config.yaml", remove(CONFIG)),
        ("is empty", "config.yaml cannot be read", write(CONFIG, "")),
        ("is cut", "config.yaml cannot be read", change(CONFIG, half)),
        ("is zeros", "config.yaml cannot be read", change(CONFIG, zeros)),
        ("is latin-1", "config.yaml cannot be read", write(CONFIG, "name: café".encode("latin-1"))),
        ("is a list", "config.yaml cannot be read", write(CONFIG, "[]")),
        ("holds an alias", "config.yaml cannot be read", change(CONFIG, added("x: &a [1]\ny: *a\n"))),
        ("lacks a group", "config.yaml cannot be read", edit(CONFIG, "model", ...)),
        ("lacks the seed", "config.yaml cannot be read", edit(CONFIG, "seed", ...)),
        ("has a list as trainer", "config.yaml cannot be read", edit(CONFIG, "trainer", [])),
    ]
]
CONFIGS += [
    row(f"{command}: config.yaml {name}", command, words, edit(CONFIG, key, value))
    for command in READERS[:3]
    for name, words, key, value in [
        ("lacks a class", "loss has no _target_", "loss/_target_", ...),
        ("has devices in words", "trainer.devices must be", "trainer/devices", "two"),
        ("has an unknown key", "no key 'trainer.foo'", "trainer/foo", 1),
        ("has a seed in words", "seed must be", "seed", "one"),
        ("has text as loggers", "loggers must be named nodes", "loggers", "yes"),
        ("has another place as name", "plain folder name", "name", "../elsewhere"),
    ]
]
CONFIGS += [
    row(
        "resume: config.yaml has another width",
        "resume CUT",
        "config.yaml was changed",
        edit(CONFIG, "model/width", 32),
    ),
    row("resume: config.yaml has a width of 0", "resume CUT", "above 0", edit(CONFIG, "model/width", 0)),
    row("resume: config.yaml has a width in words", "resume CUT", "model.width must", edit(CONFIG, "model/width", "w")),
    row("resume: config.yaml has no path", "resume CUT", "data.path is missing", edit(CONFIG, "data/path", None)),
    row("resume: config.yaml has a path of 5", "resume CUT", "data.path must be text", edit(CONFIG, "data/path", 5)),
    row(
        "resume: config.yaml has no budget",
        "resume CUT",
        "max_steps",
        edit(CONFIG, "trainer/max_steps", None),
    ),
    row("resume: config.yaml has no batch", "resume CUT", "batch_size", edit(CONFIG, "data/batch_size", ...)),
    row(
        "resume: config.yaml has two odd keys",
        "resume CUT",
        "no key",
        change(CONFIG, added("5: 1\nx: 2\n")),
    ),
    row(
        "resume: config.yaml is named",
        "resume CUT",
        "config.yaml",
        edit(CONFIG, "trainer/devices", "two"),
    ),
    row(
        "compare: config.yaml lacks a class",
        READERS[3],
        "loss has no",
        edit(CONFIG, "loss/_target_", ...),
    ),
    row(
        "compare: config.yaml has a seed in words",
        READERS[3],
        "seed must be",
        edit(CONFIG, "seed", "one"),
    ),
    row("train: config.yaml is empty", "train name=cut", "", write("CUT/config.yaml", ""), code=0),
    row(
        "train: config.yaml has devices in words",
        "train name=cut",
        "",
        edit(CONFIG, "trainer/devices", "two"),
        code=0,
    ),
    row(
        "train: config.yaml lacks its split",
        "train name=cut",
        "",
        edit(CONFIG, "trainer/micro_batch_size", ...),
        code=0,
    ),
    row("train: run.json is cut", "train name=cut", "run.json cannot be read", change(RECORD, half)),
    row("worker: run.json is empty", "worker CUT/config.yaml", "run.json cannot be read", write(RECORD, "")),
    row(
        "worker: an empty folder",
        "worker empty/config.yaml",
        "empty holds no config.yaml",
        lambda: Path("empty").mkdir(),
    ),
    row(
        "worker: config.yaml has words",
        "worker CUT/config.yaml",
        "trainer.devices",
        edit(CONFIG, "trainer/devices", "two"),
    ),
    row(
        "worker: of a completed run",
        "worker DONE/config.yaml",
        "trainer.devices",
        edit(CONFIG, "trainer/devices", "two"),
    ),
]

METRICS = [
    row("compare: metrics.csv is gone", "compare outputs/done", "", remove("DONE/metrics.csv"), code=0),
    row("compare: metrics.csv is cut", "compare outputs/done", "", change("DONE/metrics.csv", half), code=0),
    row("resume: metrics.csv is zeros", "resume CUT", "", change("CUT/metrics.csv", zeros), code=0),
    row("resume: metrics.csv is cut", "resume CUT", "", change("CUT/metrics.csv", half), code=0),
    row("resume: metrics.csv is no text", "resume CUT", "", write("CUT/metrics.csv", bytes(range(256))), code=0),
    *[
        row(
            f"compare: metrics.csv {name}",
            "compare outputs/done",
            "",
            write("DONE/metrics.csv", content),
            code=0,
        )
        for name, content in [
            ("has words", "step,val/nll_scaled\none,two\n"),
            ("is no text", b"step,val/nll_scaled\n1,\xe9\n"),
            ("is another table", "a,b\n1,2\n"),
        ]
    ],
]

TYPED_OF_RUNS = [
    row(f"{verb} {what}", f"{verb} {what}", what, lambda: Path("empty").mkdir())
    for verb in ("resume", "evaluate", "export", "generate", "compare", "clean", "load")
    for what in ("nowhere", "book.txt", "empty")
    if f"{verb} {what}" != "clean empty"
]
TYPED_OF_RUNS += [
    row("trian", "trian", "did you mean 'train'"),
    row("--nope", "--nope", "--nope"),
    row("resume", "resume", "needs RUN_DIR"),
    row("resume a sweep", "resume outputs/done", "name one of them"),
    row("resume another width", "resume CUT model.width=8", "'model.width' cannot be changed here"),
    row("resume on two", "resume CUT trainer.devices=two", "trainer.devices must be a whole number"),
    row("resume on 3", "resume CUT trainer.devices=3", "data.batch_size=4 is not"),
    row("resume by telepathy", "resume CUT trainer.strategy=telepathy", "telepathy"),
    row(
        "resume on two machines",
        "resume CUT trainer.num_nodes=2 trainer.accumulate_grad_batches=1",
        "torchrun",
    ),
    row("resume in no month", "resume CUT trainer.threads=2020-99-99", "whole number"),
    row("resume without a value", "resume CUT data.path", "KEY=VALUE"),
    row("resume --trust", "resume CUT --trust", "--trust"),
    row("resume --fresh", "resume CUT --fresh", "--fresh"),
    row("evaluate --split train", "evaluate DONE --split train", "--split must be val or test"),
    row("evaluate --checkpoint nope", "evaluate DONE --checkpoint nope", "checkpoint must be"),
    row("evaluate --checkpoint outputs", "evaluate DONE --checkpoint outputs", "checkpoint must be"),
    row("evaluate --checkpoint book.txt", "evaluate DONE --checkpoint book.txt", "book.txt is damaged"),
    row("evaluate another seed", "evaluate DONE seed=2", "'seed' cannot be changed here"),
    row("evaluate in another precision", "evaluate DONE trainer.precision=64", "'trainer.precision' cannot be changed"),
    row("evaluate with no threads", "evaluate DONE trainer.threads=0", "trainer.threads must be above 0"),
    row("evaluate many at once", "evaluate DONE data.val_batch_size=many", "data.val_batch_size must be"),
    row("evaluate chapters", "evaluate DONE data.documents=chapter", "data.documents cannot be"),
    row("export --checkpoint nope", "export DONE --checkpoint nope", "checkpoint must be"),
    row("export to a file", "export DONE --output book.txt", "book.txt cannot be made"),
    row("compare one run", "compare DONE", "is one run"),
    row("compare all sweeps", "compare outputs", "those below it do: cut, done"),
    row("compare what is not completed", "compare outputs/cut", "no run is completed yet"),
    row("compare with nobody", "compare outputs/done --baseline nope", "choose --baseline from"),
    row("compare by nothing", "compare outputs/done --metric nope", "no run has the metric"),
    row("clean --all", "clean outputs --all", "--all"),
]

LAST, EITHER, OF_DONE = (
    f"{run}/checkpoints/{name}.ckpt" for run, name in (("CUT", "last"), ("CUT", "*"), ("DONE", "*"))
)
ALL = "outputs/*/*/checkpoints/*.ckpt"
EMBEDDING = "state_dict/network.backbone.embedding.weight"
DAMAGES: list[tuple[str, Callable[[str], Spoil]]] = [
    ("empty", lambda pattern: write(pattern, "")),
    ("cut", lambda pattern: change(pattern, half)),
    ("altered in one bit", lambda pattern: change(pattern, flipped)),
    ("zeros", lambda pattern: change(pattern, zeros)),
    ("text", lambda pattern: write(pattern, "a checkpoint")),
    ("another program's", lambda pattern: write(pattern, saved({"weights": torch.ones(2)}))),
]
CODE: list[tuple[str, Callable[[str], Spoil]]] = [
    ("a bare pickle", lambda pattern: write(pattern, pickle.dumps(Shell()))),
    ("a pickled object", lambda pattern: write(pattern, saved({"state_dict": {}, "losslab": Shell(), "config": {}}))),
    ("a pickle of older torch", lambda pattern: write(pattern, saved(Shell(), _use_new_zipfile_serialization=False))),
]
LOADERS = ["evaluate DONE", "export DONE", "generate DONE --prompt a", "load DONE"]
CHECKPOINTS = [
    *[row(f"last.ckpt is {name}", "resume CUT", "from best.ckpt", how(LAST), code=0) for name, how in DAMAGES],
    *[row(f"all are {name}", "resume CUT", "no checkpoint in", how(EITHER)) for name, how in DAMAGES],
    *[row(f"{c}: best.ckpt is {name}", c, "best.ckpt is", how(OF_DONE)) for name, how in DAMAGES for c in LOADERS],
    *[row(f"{c}: {name}", c, "run code", how(ALL)) for name, how in CODE for c in ["resume CUT", *LOADERS]],
    row("last.ckpt is code", "resume CUT", "run code", CODE[1][1](LAST)),
    row("train: last.ckpt is cut", "train name=cut", "from best.ckpt", change(LAST, half), code=0),
    row("last.ckpt is gone", "resume CUT", "", remove(LAST), code=0),
    row("checkpoints are gone", "resume CUT", "", remove("CUT/checkpoints"), code=0),
    row("evaluate: checkpoints are gone", "evaluate DONE", "has no best.ckpt: none was written yet", remove(OF_DONE)),
    row("export: checkpoints are gone", "export DONE", "has no best.ckpt: none was written yet", remove(OF_DONE)),
    row("evaluate: other weights", "evaluate DONE", "best.ckpt do not fit", edit(ALL, EMBEDDING, torch.ones(3, 5))),
    row("evaluate: no weights", "evaluate DONE", "best.ckpt do not fit", edit(ALL, "state_dict", {})),
    row("evaluate: another width", "evaluate DONE", "best.ckpt do not fit", edit(ALL, "config/model/width", 32)),
    row("evaluate: no sizes of the data", "evaluate DONE", "best.ckpt was written by", edit(ALL, "data", ...)),
    row("evaluate: sizes of no kind", "evaluate DONE", "its data is not what losslab writes", edit(ALL, "data", {})),
    row(
        "evaluate: a tokenizer of no kind",
        "evaluate DONE",
        "is not the one that its text gives now",
        edit(ALL, "data/artifacts", {"tokenizer.json": "{}"}),
    ),
    row("evaluate: no configuration", "evaluate DONE", "cannot be taken away", edit(ALL, "config", {})),
    row("resume: a state of another version", "resume CUT", "losslab.step", edit(ALL, "losslab", {"stepp": 6})),
    row(
        "an empty zip",
        "resume CUT",
        "from best.ckpt",
        write(LAST, b"PK\5\6" + bytes(18)),
        code=0,
    ),
    row(
        "clean: best.ckpt is cut",
        "clean outputs",
        "best.ckpt is damaged",
        change("DONE/checkpoints/best.ckpt", half),
    ),
    row("checkpoints is a file", "resume CUT", "checkpoints", replace("CUT/checkpoints")),
    *[
        row(f"{command}: {name}", command, "ckpt", edit(ALL, key, value))
        for command, name, key, value in [
            ("resume CUT", "other weights", EMBEDDING, torch.ones(3, 5)),
            ("resume CUT", "no weights", "state_dict", {}),
            ("resume CUT", "no optimizer", "optimizer_states", ...),
            ("resume CUT", "no loops", "loops", ...),
            ("resume CUT", "no state", "losslab", {}),
            ("resume CUT", "a step in words", "losslab/step", "six"),
            ("resume CUT", "a step that is not its weights'", "losslab/step", 3),
            ("evaluate DONE", "no state", "losslab", {}),
            ("evaluate DONE", "a number as validation", "losslab/latest", 5),
            ("evaluate DONE", "a number as weights", EMBEDDING, 5),
            ("evaluate DONE", "a number as name", "state_dict", {5: torch.ones(2)}),
            ("evaluate DONE", "no budget", "config/trainer/max_steps", None),
            ("export DONE", "a scale in words", "losslab/latest", {"val/scale": "x"}),
            ("load DONE", "a vocabulary in words", "vocab_size", "many"),
            ("load DONE", "devices in words", "config/trainer/devices", "two"),
        ]
    ],
]

WEIGHTS, ABOUT = "export/model.safetensors", "export/config.json"
EXPORTS = [
    row(f"load: {name}", "load export", words, spoil)
    for name, words, spoil in [
        ("config.json is cut", "no whole export", change(ABOUT, half)),
        ("config.json is a list", "no whole export", write(ABOUT, "[]")),
        ("config.json is no text", "no whole export", write(ABOUT, b"\xff")),
        ("config.json is gone", "no whole export", remove(ABOUT)),
        ("weights are cut", "no whole export", change(WEIGHTS, half)),
        ("weights are zeros", "no whole export", change(WEIGHTS, zeros)),
        ("weights are a pickle", "no whole export", write(WEIGHTS, pickle.dumps(Shell()))),
        ("tokenizer.json is gone", "tokenizer.json", remove("export/tokenizer.json")),
    ]
]
EXPORTS += [
    row("load: a number as configuration", "load export", "export", edit(ABOUT, "config", 5)),
]

SHELL = {"_target_": "os.system", "command": "touch mark"}
POISON: list[tuple[str, str, Any]] = [
    ("os.system", "loss", SHELL),
    ("torch.utils.collect_env.run", "model", {"_target_": "torch.utils.collect_env.run", "command": "touch mark"}),
    (
        "losslab.training.output.provenance.subprocess.Popen",
        "loss",
        {"_target_": "losslab.training.output.provenance.subprocess.Popen", "args": "touch mark", "shell": True},
    ),
    ("trap.Trap", "loss", {"_target_": "trap.Trap"}),
    ("loss.inner._target_", "loss/inner", SHELL),
    ("loss._partial_", "loss/_partial_", True),
    ("hydra.callbacks.x._target_", "hydra", {"callbacks": {"x": SHELL}}),
    ("logger.enabled._target_", "logger/enabled", SHELL),
    ("trainer.strategy._target_", "trainer/strategy", SHELL),
]
TRUST = [
    row(f"{command}: {name} in config.yaml", command, name.removesuffix("._target_"), edit(CONFIG, key, value))
    for command in [*READERS, "worker CUT/config.yaml"]
    for name, key, value in POISON
    if (command, name) != ("compare outputs/done", "trap.Trap")
]
TRUST += [
    row(
        f"{command}: {name} in the checkpoint",
        command,
        name.removesuffix("._target_"),
        edit(ALL, f"config/{key}", value),
    )
    for command in [*LOADERS, "load DONE/checkpoints/last.ckpt"]
    for name, key, value in POISON
]
TRUST += [
    row(f"{command}: a call in config.yaml", command, "config.yaml cannot be read", change(CONFIG, added(call)))
    for command in [*READERS, "worker CUT/config.yaml"]
    for call in ["x: !!python/object/apply:os.system ['touch mark']\n"]
]
TRUST += [
    row("load: os.system in an export", "load export", "os.system", edit(ABOUT, "config/loss", SHELL)),
    row(
        "compare: trap.Trap in config.yaml",
        "compare outputs/done",
        "",
        edit(CONFIG, "loss/_target_", "trap.Trap"),
        code=0,
    ),
    row("resume: os.system in the checkpoint", "resume CUT", "", edit(ALL, "config/loss", SHELL), code=0),
    row("train: os.system in config.yaml", "train name=cut", "", edit(CONFIG, "loss", SHELL), code=0),
    row("resume: trust for os.system", "resume CUT --trust os.system", "os.system", edit(CONFIG, "loss", SHELL)),
    row(
        "a worker's process: trap.Trap in config.yaml",
        "worker CUT/config.yaml",
        "trap.Trap",
        edit(CONFIG, "loss", {"_target_": "trap.Trap"}),
        process=True,
    ),
    row("a library's name in the current folder", "compare nowhere", "nowhere", write("yaml.py", TRAP), process=True),
]

ROWS = [
    *CONFIGURATION,
    *NEW_TEXTS,
    *TEXTS_OF_RUNS,
    *CACHE,
    *RECORDS,
    *CONFIGS,
    *METRICS,
    *TYPED_OF_RUNS,
    *CHECKPOINTS,
    *EXPORTS,
    *TRUST,
]


class Made(NamedTuple):
    place: Path
    """Where all rows are typed."""
    kept: Path
    """Folder of the files that are there at the beginning of each."""
    metrics: dict[str, dict[str, float]]
    """Metrics of DONE, and of CUT once it is completed: their configurations are the same."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("malformed") / "place"
    place.mkdir()
    (place / "book.txt").write_text(make_text(), encoding="utf-8")
    (place / "trap.py").write_text(TRAP)
    save = RunCallback._save

    def save_and_stop(self: RunCallback, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if self.state.step == STOPPED_AT:
            raise Interrupted("for the test")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "path", list(sys.path))
        assert enter(["train", *COMMON, "name=done"]) == 0
        assert enter(["export", with_folders("DONE"), "--output", "export"]) == 0
        patch.setattr(RunCallback, "_save", save_and_stop)
        assert enter(["train", *COMMON, "name=cut"]) == 1
    _, cut = only_run(place / "outputs/cut")
    assert (cut.status, cut.step, cut.metrics["best"]["step"]) == ("interrupted", STOPPED_AT, 4)
    kept = place.with_name("kept")
    shutil.copytree(place, kept)
    return Made(place, kept, only_run(place / "outputs/done")[1].metrics)


def enter(arguments: list[str]) -> int:
    """Type a command in this process; returns its exit code."""
    if arguments[0] == "worker":
        return worker.main(arguments[1:])
    if arguments[0] == "load":
        try:
            losslab.load(arguments[1])
        except UserError as error:
            sys.stderr.write(f"losslab: {error}\n")
            return 2
        return 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["losslab", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


def start(arguments: list[str]) -> tuple[int, str, str]:
    """The same in a process that imports everything itself, with what it said."""
    module = "losslab.training.process.worker" if arguments[0] == "worker" else "losslab"
    command = [PYTHON, "-m", module, *(arguments[1:] if arguments[0] == "worker" else arguments)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return process.returncode, process.stdout, process.stderr


def remains() -> dict[str, Any]:
    """Content that must not change: each file's hash, and the part of an unfinished run's record that its checkpoints
    stand for."""
    found: dict[str, Any] = {}
    for path in sorted(Path().rglob("*")):
        if path.is_dir() or ".cache" in path.parts or path.name in (".lock", "evaluations.jsonl", "train.log"):
            continue
        content = path.read_bytes()
        found[str(path)] = hashlib.sha256(content).hexdigest()
        if path.name == records.CONFIG and path.parts[:2] == ("outputs", "cut"):
            found[str(path)] = _parsed(yaml.safe_load, content)
        if path.name == records.FILE and path.parts[:2] == ("outputs", "cut"):
            record = _parsed(json.loads, content)
            if isinstance(record, dict):
                found[str(path)] = {key: record.get(key) for key in ("identity", "step", "metrics", "hashes")}
    return found


def _parsed(parse: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return parse(content)
    except (ValueError, yaml.YAMLError):
        return content


def check_results(metrics: dict[str, dict[str, float]]) -> None:
    """Every completed run of the place, and every evaluation, has the numbers that it had before."""
    for path in Path("outputs").glob("*/*/run.json"):
        record = records.read(path.parent)
        assert record.status != "completed" or record.metrics == metrics
    for path in Path("outputs").glob("*/*/evaluations.jsonl"):
        values = json.loads(path.read_text())["metrics"]
        assert values == {key: metrics["best"][key] for key in values}


@pytest.mark.parametrize("row", ROWS)
def test_a_malformed_input_is_told_in_one_line_and_nothing_is_lost(
    row: Row, made: Made, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(made.place)
    shutil.copytree(made.kept, made.place)
    monkeypatch.chdir(made.place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    read: list[str] = []
    if row.unread:
        monkeypatch.setattr("losslab.data.sources.read_file", lambda path, _: read.append(path) or make_text())
    arguments = shlex.split(with_folders(row.command))
    if arguments[0] == "train":
        arguments[1:1] = COMMON
    if row.spoil is not None:
        row.spoil()
    before = remains()
    capfd.readouterr()
    code, out, err = start(arguments) if row.process else (enter(arguments), *capfd.readouterr())
    after = remains()

    lines = err.splitlines()
    assert (code, len(lines)) == (row.code, bool(row.words)), err
    assert all(line.startswith("losslab: ") and row.words in line for line in lines), err
    assert "Traceback" not in out + err and not re.search(r"[^.][.!?] [A-Z]", err)
    assert not read
    assert not Path("mark").exists() and "trap" not in sys.modules
    untouched = {path for path in before if code or not path.startswith("outputs/cut/")}
    assert [path for path in untouched if after.get(path) != before[path]] == []
    created = after.keys() - before.keys()
    assert not (row.unread and created)
    assert not (code and any(path.startswith(("outputs/done/", "outputs/cut/")) for path in created))
    statuses = [path.read_text(errors="replace") for path in Path("outputs").glob("*/*/run.json")]
    assert not any('"status": "running"' in text for text in statuses)
    if code == 0:
        check_results(made.metrics)
