"""Identities, documents, splits and token streams of texts stay what they were, bit for bit, under every rule."""

import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling

WORDS = "the loss of a model is what it pays for each token that it did not foresee naïve 模型 🙂 É\u2003x \x1cy".split(
    " "
)


def prose(seed: int, words: int, *, line: str = "\n", gap: str = "\n\n") -> str:
    """Sentences, some in lines of their own, some behind a blank line."""
    draw = random.Random(seed)
    return "".join(
        draw.choice(WORDS) + draw.choices([" ", line, gap, f"{line} \t{line}"], [40, 3, 1, 0.2])[0]
        for _ in range(words)
    )


def joined(separator: str, seed: int, count: int = 40, **how: str) -> str:
    return separator.join(prose(seed * 1000 + i, 60 + i, **how) for i in range(count))


def articles(seed: int, count: int) -> str:
    return " \n" + "".join(
        f" = Title {seed} {i} = \n \n {prose(seed + i, 90)}\n = = Part = = \n x\n" for i in range(count)
    )


MARKED = b"\xef\xbb\xbf" + prose(8, 5000).encode()
WIKI = {f"wiki.{name}.tokens": articles(i * 100, 30 - 10 * i) for i, name in enumerate(("train", "valid", "test"))}
BOOK = {"a.txt": prose(1, 9000)}
BOOKS = {f"{i}.txt": prose(i, 4000, line="\r\n", gap="\r\n\r\n") for i in range(3)} | {"copy.txt": prose(2, 4000)}
CASES: dict[str, tuple[dict[str, str | bytes], dict[str, Any]]] = {
    "book": (BOOK, {}),
    "book_by_file": ({f"{i}.txt": prose(i, 200 + i) for i in range(26)}, {"documents": "file"}),
    "book_in_blocks": (BOOK, {"documents": "block"}),
    "books_of_crlf": (BOOKS, {}),
    "books_in_blocks": (BOOKS, {"documents": "block", "val_fraction": 0.2}),
    "rules_1": (BOOKS, {"rules": 1}),
    "rules_1_in_blocks": (BOOKS, {"rules": 1, "documents": "block", "test_fraction": 0.1}),
    "one_line": ({"a.txt": prose(3, 9000, line=" ", gap=" ").replace("\n", " ")}, {}),
    "no_space": ({"a.txt": "模型🙂ab" * 6000}, {}),
    "many_files": ({f"{i}.txt": prose(i, 300) for i in range(30)}, {}),
    "many_files_of_paragraphs": ({f"{i}.txt": prose(i, 300) for i in range(30)}, {"documents": "blank_line"}),
    "end_of_text": ({"a.txt": joined("\r\n<|endoftext|>\n\n", 1), "b.txt": joined("<|endoftext|>", 2, 3)}, {}),
    "llama_end": ({"a.txt": joined("<|end_of_text|>\n", 1)}, {}),
    "sentence_end": ({"a.txt": joined(" </s> \t\n", 1) + "</s> inside\n\n\n </s>"}, {}),
    "few_marked": ({"a.txt": joined("<|endoftext|>", 4, 5)}, {}),
    "few_marked_in_blocks": ({"a.txt": joined("<|endoftext|>", 4, 3, line=" ", gap=" ").replace("\n", " ")}, {}),
    "titles": ({"a.txt": articles(7, 40)}, {}),
    "titles_late": ({"a.txt": "first of all\n" + articles(7, 40)}, {}),
    "few_titles": ({"a.txt": articles(9, 4), "b.txt": prose(9, 3000)}, {}),
    "wiki": (WIKI, {}),
    "wiki_with_fraction": ({k: v for k, v in WIKI.items() if "test" not in k}, {"test_fraction": 0.2}),
    "separator": ({"a.txt": joined("\n---\n", 5), "b.txt": prose(5, 2000)}, {"separator": "---"}),
    "separator_of_lines": ({"a.txt": joined("\n\n\n", 5)}, {"separator": "\\n\\n\\n"}),
    "pattern": ({"a.txt": joined("\nChapter 12\n", 6)}, {"separator": "re:^Chapter \\d+$"}),
    "pattern_kept": ({"a.txt": joined("\n# x\n", 6)}, {"separator": "re:(?=^# )"}),
    "pattern_rules_1": ({"a.txt": joined("\n\n***\n", 6)}, {"separator": "re:\\n\\*+\\n", "rules": 1}),
    "packed": (
        {"a.txt.gz": gzip.compress(MARKED, mtime=0), "b.txt": prose(9, 3000)},
        {},
    ),
    "with_mark": ({"a.txt": MARKED, "empty.txt": " \n\u2003\x1c"}, {}),
    "copies": ({"a.txt": joined("<|endoftext|>", 1, 30) + "<|endoftext|> \n" + joined("<|endoftext|>", 1, 30)}, {}),
    "near_copies": ({"a.txt": joined("\n\n", 1, 99, gap=" ") + " x\n\n" + joined(" y\n\n", 1, 99, gap=" ")}, {}),
    "stretches_of_copies": ({"a.txt": prose(1, 6000) + prose(1, 6000)}, {}),
}
PINNED: dict[str, str] = json.loads((Path(__file__).parent / "pinned_texts.json").read_text())


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / "text" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "text"


def digest(folder: Path, name: str, tokenizer: str = "bytes") -> str:
    """SHA-256 of all that a text becomes, its sentence for people and its refusal included."""
    files, how = CASES[name]
    module = TextDataModule(
        path=str(write(folder, files)), tokenizer=tokenizer, vocab_size=300, context=8, **({"rules": 2} | how)
    )
    try:
        module.prepare(folder / "cache", LanguageModeling())
    except UserError as error:
        return hashlib.sha256(str(error).replace(str(folder), "").encode()).hexdigest()
    arrays = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in module.cache.folder.glob("*.npy")}
    kept = ("settings", "documents", "words", "how", "tokens", "overlap", "round_trip", "tokenizer")
    found = {key: module.cache.meta[key] for key in kept} | {"arrays": arrays, "key": module.cache.folder.name}
    found |= {"told": module.told(), "hash": module.source_hash()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_a_text_becomes_what_it_became_before(name: str, tmp_path: Path) -> None:
    assert digest(tmp_path, name) == PINNED[name]


def test_a_trained_tokenizer_is_what_it_was_before(tmp_path: Path) -> None:
    assert digest(tmp_path, "books_of_crlf", "bpe") == PINNED["bpe"]
