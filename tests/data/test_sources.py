"""A text of one's own: which files become which documents of which split, and what is said of it."""

import gzip
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from held_texts import held
from losslab.data import read_texts
from losslab.data.read_texts import Read, hash_read
from losslab.data.sources import Corpus, TextSource
from losslab.data.splits import split_documents
from losslab.data.words import count_words
from losslab.errors import UserError


def hash_texts(texts: list[str]) -> str:
    return read_texts.hash_texts([held(text) for text in texts])


def contents(read: Read) -> dict[str, list[str]]:
    return {part: [text.read() for text in texts] for part, texts in read.texts.items()}


def listed(corpus: Corpus) -> dict[str, list[str]]:
    return {split: list(documents) for split, documents in corpus.documents.items()}


def paragraph(name: str, number: int) -> str:
    return f"{name} {number} begins here.\n" + " ".join(f"{name}{number * i}" for i in range(20))


def story(name: str, paragraphs: int = 5) -> str:
    return "\n\n".join(paragraph(name, i) for i in range(paragraphs))


def article(name: str) -> str:
    return f" = {name} = \n \n {paragraph(name, 1)} \n \n = = Section = = \n \n {paragraph(name, 2)} \n"


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    def write(content: Mapping[str, str]) -> Path:
        for name, text in content.items():
            path = tmp_path / "text" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        return tmp_path / "text"

    return write


WIKI = {
    "wiki.train.tokens": " \n" + "".join(article(f"Train {i}") for i in range(25)),
    "wiki.valid.tokens": " \n" + "".join(article(f"Val {i}") for i in range(4)),
    "wiki.test.tokens": " \n" + "".join(article(f"Test {i}") for i in range(3)),
}


def test_a_folder_like_wikitext_has_its_own_splits(files) -> None:
    source = TextSource(str(files(WIKI | {"README.md": "About it.", "raw.jsonl": "{}"})))
    read = source.read()
    corpus = source.cut(read)
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        content = WIKI[f"wiki.{name}.tokens"]
        assert "".join(corpus.documents[split]) == content
        assert all(" = = Section = = " in text for text in corpus.documents[split])
        assert corpus.words[split] == count_words(content) == sum(map(count_words, corpus.documents[split]))
    assert {split: len(texts) for split, texts in corpus.documents.items()} == {"train": 25, "val": 4, "test": 3}
    assert corpus.how == {"documents": "cut at ' = Title = ' lines", "splits": "its own"}
    assert read.told() == (
        f"read 3 files (wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens), {sum(map(len, WIKI.values())):,} "
        "characters; left out: 1 .jsonl (structured), 1 beside the splits (README.md)"
    )


def test_the_hash_is_of_the_content_and_its_division() -> None:
    assert hash_texts(["ab", "c"]) == hash_texts(["ab", "c"])
    others = [["a", "bc"], ["abc"], ["ab", "c", ""], ["ab", "d"], ["ab"]]
    assert len({hash_texts(texts) for texts in [["ab", "c"], *others]}) == 6


def test_the_hash_does_not_depend_on_names_or_packing(tmp_path: Path) -> None:
    for folder, names in (("one", ("a.txt", "b.txt")), ("two", ("x.md", "y.txt.gz"))):
        for name, content in zip(names, (b"first", b"second"), strict=True):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    one, two = (TextSource(str(tmp_path / folder)).read() for folder in ("one", "two"))
    assert hash_read(one) == hash_read(two) == hash_texts(["first", "second"])


def test_the_splits_of_a_folder_belong_to_the_hash_and_its_names_do_not(files, tmp_path) -> None:
    folder = files(WIKI)
    original = hash_read(TextSource(str(folder)).read())
    copy = tmp_path / "copy"
    for name, content in WIKI.items():
        path = copy / name.split(".")[1] / "any.txt"
        path.parent.mkdir(parents=True)
        path.write_text(content, newline="")
    assert hash_read(TextSource(str(copy)).read()) == original
    named = {f"{split}_path": str(copy / name) for split, name in (("val", "valid"), ("test", "test"))}
    assert hash_read(TextSource(str(copy / "train"), **named).read()) == original
    swapped = {"val_path": named["test_path"], "test_path": named["val_path"]}
    assert hash_read(TextSource(str(copy / "train"), **swapped).read()) != original
    assert hash_read(TextSource(str(folder), rules=1).read()) == hash_texts([WIKI[name] for name in sorted(WIKI)])


def test_a_glob_of_splits_is_recognised_as_well(files) -> None:
    folder = files(WIKI)
    assert list(TextSource(f"{folder}/*.tokens").read().texts) == ["train", "val", "test"]


def test_a_missing_test_split_is_cut_out_of_train(files) -> None:
    folder = files({name: content for name, content in WIKI.items() if "test" not in name})
    source = TextSource(str(folder), test_fraction=0.2)
    corpus = source.cut(source.read())
    assert "".join(corpus.documents["val"]) == WIKI["wiki.valid.tokens"]
    assert sorted([*corpus.documents["train"], *corpus.documents["test"]]) == sorted(
        [" \n" + article("Train 0"), *(article(f"Train {i}") for i in range(1, 25))]
    )
    assert len(corpus.documents["test"]) in (5, 6)
    assert corpus.how["splits"] == "its own val; of the rest, each document's hash decides"
    assert corpus.words["train"] + corpus.words["test"] == count_words(WIKI["wiki.train.tokens"])


def test_a_split_that_is_named_stands_before_the_folders_own(files, tmp_path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(story("other", 30))
    read = TextSource(str(files(WIKI)), val_path=str(other)).read()
    assert contents(read)["val"] == [story("other", 30)]
    assert contents(read)["train"] == [WIKI["wiki.train.tokens"]]
    assert "1 of the folder's own val (data.val_path is given)" in read.told()


def test_a_split_inside_the_text_is_taken_out_of_train(files) -> None:
    folder = files({"a.txt": story("a", 40), "held_out.txt": story("h", 40)})
    source = TextSource(str(folder), val_path=str(folder / "held_out.txt"))
    read = source.read()
    assert contents(read) == {"train": [story("a", 40)], "val": [story("h", 40)]}
    assert "1 from train (it is val or test)" in read.told()
    corpus = source.cut(read)
    assert list(corpus.documents["val"]) == story("h", 40).split("\n\n")
    assert corpus.words["val"] == count_words(story("h", 40))


def test_stories_between_separators_never_share_paragraphs(files) -> None:
    stories = [story(f"s{i}") for i in range(84)]
    folder = files({"stories.txt": "\n<|endoftext|>\n".join(stories)})
    source = TextSource(str(folder / "stories.txt"))
    corpus = source.cut(source.read())
    assert listed(corpus) == split_documents(stories)
    assert corpus.how["documents"] == "cut at <|endoftext|>"


@pytest.mark.parametrize("rule", ["auto", "blank_line", "block"])
def test_blocks_of_one_file_stay_neighbours(rule: str, files) -> None:
    books = {f"{name}.txt": story(name, 900) for name in ("one", "two")}
    source = TextSource(str(files(books)), documents=rule)
    read = source.read()
    corpus = source.cut(read)
    for content in books.values():
        for split in ("val", "test"):
            places = [content.index(piece) for piece in corpus.documents[split] if piece in content]
            own = [piece for piece in corpus.documents[split] if piece in content]
            stretch = content[places[0] : places[-1] + len(own[-1])]
            assert places == sorted(places)
            assert "".join("".join(own).split()) == "".join(stretch.split())
    assert corpus.how["splits"] == "neighbours stay together, one stretch of each file in val and one in test"
    scattered = TextSource(str(files(books)), documents=rule, rules=1)
    assert listed(scattered.cut(read)) != listed(corpus)


def test_pieces_of_many_files_stay_with_their_file(files) -> None:
    texts = {f"{i}.txt": story(f"n{i}") for i in range(60)}
    source = TextSource(str(files(texts)), documents="blank_line")
    corpus = source.cut(source.read())
    for content in texts.values():
        where = {split for split, pieces in corpus.documents.items() if set(content.split("\n\n")) & set(pieces)}
        assert len(where) == 1
    assert all(corpus.documents.values())


@pytest.mark.parametrize("separator", [None, "re:(?=^s\\d+ 0 )"])
def test_the_rules_of_before_are_kept(separator: str | None, files) -> None:
    stories = [story(f"s{i}") for i in range(84)]
    folder = files({"a.txt": "\n<|endoftext|>\n".join(stories), "train.txt": "x", "valid.txt": "y"})
    source = TextSource(str(folder), rules=1, separator=separator)
    read = source.read()
    assert list(read.texts) == ["all"]
    if separator is None:
        pieces = [piece for text in contents(read)["all"] for piece in text.split("\n\n")]
        assert listed(source.cut(read)) == split_documents(pieces)
    else:
        assert source.cut(read).how["documents"] == f"cut at {separator}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"separator": "re:("}, "data.separator=re:( is no regular expression"),
        ({"separator": "x", "documents": "file"}, "leave data.documents out"),
        ({"val_fraction": 0.0}, "data.val_fraction must be above 0 and below 1, not 0.0"),
        ({"test_fraction": 1.0}, "data.test_fraction must be above 0 and below 1, not 1.0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"val_path": "a.txt", "val_fraction": 0.1}, "not both"),
        ({"val_path": "nowhere.txt"}, "data.val_path=nowhere.txt does not exist"),
        ({"test_path": ""}, "data.test_path is empty"),
    ],
)
def test_contradictions_are_refused_before_anything_is_read(changes, reason: str, files, monkeypatch) -> None:
    folder = files({"b.txt": "b"})
    monkeypatch.chdir(folder)
    monkeypatch.setattr("losslab.data.sources.read_file", lambda path, _: pytest.fail(f"{path} was read"))
    with pytest.raises(UserError) as caught:
        TextSource("b.txt", **changes).check()
    assert reason in str(caught.value)


def test_what_leaves_no_text_is_refused(files, monkeypatch) -> None:
    monkeypatch.chdir(files(WIKI | {"empty.txt": " \n"}))
    with pytest.raises(UserError, match=r"data.path=. has a val split of its own \(wiki.valid.tokens\)"):
        TextSource(".", val_fraction=0.1).check()
    with pytest.raises(UserError, match="nothing is left to train on"):
        TextSource("empty.txt", val_path="empty.txt").check()
    with pytest.raises(UserError, match=r"data.val_path=empty.txt holds no text"):
        TextSource("wiki.train.tokens", val_path="empty.txt").read()


def test_empty_files_and_copies_are_told(files) -> None:
    folder = files({"a.txt": "one", "b.txt": "two", "c.txt": "one", "d.txt": "\n"})
    assert TextSource(str(folder)).read().told() == (
        "read 3 files (a.txt, b.txt, c.txt), 9 characters; 1 of them has the content of another; left out: 1 empty"
    )


def test_splits_beside_a_file_are_pointed_out(files) -> None:
    folder = files(WIKI)
    told = TextSource(str(folder / "wiki.train.tokens")).read().told()
    assert told.endswith(f"; beside it lie wiki.valid.tokens, wiki.test.tokens: data.path={folder} takes them")
    assert "beside" not in TextSource(str(folder / "wiki.valid.tokens")).read().told()


def test_a_folder_that_cannot_be_opened_is_told(files, monkeypatch) -> None:
    folder = files({"a.txt": "a", "closed/b.txt": "b"})
    scan = os.scandir

    def refuse(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be opened: .*Permission denied.*closed"):
        TextSource(str(folder)).check()
