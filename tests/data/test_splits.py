"""The split of a document is a fixed rule of its content."""

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from held_texts import pieces_of
from losslab.data.pieces import Documents
from losslab.data.sources import TextSource
from losslab.data.splits import SPLITS, USUAL, assign_groups, assign_stretches, document_hash, split_documents
from losslab.errors import UserError


def split_pieces(assign, groups: list[list[str]], shares=USUAL) -> dict[str, list[str]]:
    pieces = pieces_of(groups)
    chosen = assign(pieces.groups, shares)
    return {split: list(Documents(pieces, np.flatnonzero(chosen == code))) for code, split in enumerate(SPLITS)}


split_groups = partial(split_pieces, assign_groups)
split_stretches = partial(split_pieces, assign_stretches)


def assignment(documents: list[str]) -> dict[str, str]:
    """Document → its split; a document in two splits at once fails here."""
    found: dict[str, str] = {}
    for split, members in split_documents(documents).items():
        for document in members:
            assert found.setdefault(document, split) == split
    return found


def numbers_in(split: str, documents: list[str]) -> list[int]:
    return [documents.index(document) for document in split_documents(documents)[split]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The quick brown fox", 6677799862004466643), ("", 16406829232824261652), ("naïve 🙂", 9222861463666050353)],
)
def test_the_hash_of_a_document_is_for_ever(text: str, expected: int) -> None:
    assert document_hash(text) == expected


@pytest.mark.parametrize(
    ("documents", "val", "test"),
    [
        ([f"document {i}" for i in range(20)], [0, 5, 7, 8, 9, 12], [2, 3, 11, 17, 19]),
        ([f"document {i}. " * 200 for i in range(100)], [29, 39, 56, 72, 74, 84, 87], [23, 34, 38]),
    ],
    ids=["small: a quarter each", "larger: by the hash"],
)
def test_known_documents_keep_their_split_for_ever(documents: list[str], val: list[int], test: list[int]) -> None:
    assert numbers_in("val", documents) == val
    assert numbers_in("test", documents) == test
    assert numbers_in("train", documents) == [i for i in range(len(documents)) if i not in val + test]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=60), st.randoms())
def test_order_does_not_matter_and_copies_stay_together(documents: list[str], shuffler: random.Random) -> None:
    documents = documents + documents[: len(documents) // 3]
    try:
        expected = assignment(documents)
    except UserError:
        return
    shuffled = shuffler.sample(documents, len(documents))
    assert assignment(shuffled) == expected
    assert sorted(d for members in split_documents(shuffled).values() for d in members) == sorted(documents)


@pytest.mark.parametrize("count", [4, 5, 8, 20, 100])
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_every_split_has_a_document(count: int, size: int) -> None:
    by_split = split_documents([f"{i:04d} " * size for i in range(count)])
    assert list(by_split) == list(SPLITS)
    assert all(by_split.values())
    total = count * size * 5
    least = min(max(0.025 * total, 4096), total / 4)
    for split in ("val", "test"):
        assert sum(len(document.encode()) for document in by_split[split]) >= least


def test_documents_keep_their_order_within_a_split(documents) -> None:
    for members in split_documents(documents).values():
        assert members == sorted(members, key=documents.index)


@pytest.mark.parametrize("documents", [[], ["one"], ["one", "two"], ["same"] * 50, ["one", "two"] * 20])
def test_too_few_different_documents_are_refused(documents: list[str]) -> None:
    with pytest.raises(UserError, match="the text is too short"):
        split_documents(documents)


def test_a_large_corpus_keeps_its_documents_where_they_are_when_it_grows() -> None:
    documents = [f"document {i} " * 25 for i in range(4000)]
    small, large = assignment(documents[:2000]), assignment(documents)
    assert {document: large[document] for document in small} == small
    assert set(small.values()) == set(SPLITS)
    shares = {split: list(large.values()).count(split) / len(large) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.9, "val": 0.05, "test": 0.05}, abs=0.015)


def test_names_and_places_of_files_do_not_matter(tmp_path: Path, documents) -> None:
    names = {"one": [f"{i:03d}.txt" for i in range(60)], "two": [f"deep/{(i * 37) % 60}/x{i}.md" for i in range(60)]}
    found = []
    for folder, paths in names.items():
        for path, document in zip(paths, documents, strict=True):
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_text(document, encoding="utf-8", newline="")
        texts = TextSource(str(tmp_path / folder)).read().texts["all"]
        found.append(assignment([text.read() for text in texts]))
    assert found[0] == found[1]
    assert len(found[0]) == 60


def runs(pieces: list[str], members: list[str]) -> int:
    """How many stretches of neighbours `members` are in `pieces`."""
    inside = [piece in members for piece in pieces]
    return sum(now and not before for before, now in zip([False, *inside], inside, strict=False))


def book(name: str, pieces: int, size: int = 20) -> list[str]:
    return [f"{name} {i} " + "word " * size for i in range(pieces)]


@pytest.mark.parametrize("pieces", [3, 4, 20, 57, 1000])
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_val_and_test_are_a_stretch_each(name: str, pieces: int) -> None:
    text = book(name, pieces, 200)
    found = split_stretches([text])
    assert sorted(piece for members in found.values() for piece in members) == sorted(text)
    assert runs(text, found["val"]) == runs(text, found["test"]) == 1
    assert all(found[split] == [piece for piece in text if piece in found[split]] for split in SPLITS)
    if pieces == 1000:
        for split in ("val", "test"):
            assert 0.05 <= len(found[split]) / pieces <= 0.05 + 2 / pieces
        assert {text[0], text[-1]} <= set(found["train"])


def test_every_long_text_gives_its_stretch_and_short_ones_stay_in_train() -> None:
    long, short = [book("one", 400, 200), book("two", 100, 200)], book("three", 19)
    found = split_stretches([*long, short])
    for text in long:
        for split in ("val", "test"):
            own = [piece for piece in text if piece in found[split]]
            assert runs(text, own) == 1
            assert len(own) / len(text) == pytest.approx(0.05, abs=0.011)
    assert set(short) <= set(found["train"])


def test_short_texts_alone_count_as_one() -> None:
    texts = [book(str(i), 5, 100) for i in range(9)]
    found = split_stretches(texts)
    pieces = [piece for text in texts for piece in text]
    assert runs(pieces, found["val"]) == runs(pieces, found["test"]) == 1


def test_a_text_that_repeats_itself_does_not_leak() -> None:
    text = book("once", 300)
    found = split_stretches([text + text])
    assert not set(found["train"]) & set(found["val"])
    assert not set(found["train"]) & set(found["test"])
    assert not set(found["val"]) & set(found["test"])


def test_what_is_short_may_be_said_twice() -> None:
    text = [piece for own in book("a", 400) for piece in (own, "* * *")]
    found = split_stretches([text])
    assert all("* * *" in found[split] for split in SPLITS)


@pytest.mark.parametrize("shares", [{"val": 0.2, "test": 0.1}, {"val": None, "test": 0.3}, {"test": 0.25}])
@pytest.mark.parametrize("cut", [split_documents, lambda d, s: split_stretches([d], s)], ids=["hashes", "stretches"])
def test_shares_are_of_the_bytes(shares: dict[str, float | None], cut) -> None:
    documents = book("x", 500)
    found = cut(documents, shares)
    total = sum(len(document) for document in documents)
    for split, share in shares.items():
        assert sum(map(len, found[split])) / total == pytest.approx(share or 0.05, abs=0.003)
    assert sum(map(len, found.values())) == 500


@pytest.mark.parametrize("texts", [[], [["one", "two"]], [["one"], ["two"]], [["one two three four five six 7 8"] * 9]])
def test_too_few_pieces_are_refused(texts: list[list[str]]) -> None:
    with pytest.raises(UserError, match="the text is too short"):
        split_stretches(texts)


def test_groups_stay_whole() -> None:
    groups = [book(str(i), 5) for i in range(100)]
    found = split_groups(groups)
    for members in found.values():
        assert all(set(group) <= set(members) or not set(group) & set(members) for group in groups)
    assert all(found.values())
