"""The split of a document is a fixed rule of its content."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.data.sources import cut_documents, read_texts
from losslab.data.splits import SPLITS, document_hash, split_documents
from losslab.errors import UserError


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
        found.append(assignment(cut_documents(read_texts(str(tmp_path / folder)), "auto")))
    assert found[0] == found[1]
    assert len(found[0]) == 60
