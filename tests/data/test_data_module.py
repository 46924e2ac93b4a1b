"""The LightningDataModule: refuses before it reads, prepares once, and hands out what the windows promise."""

import itertools
from pathlib import Path

import pytest
import torch

from losslab.contracts import Share, SplitInfo
from losslab.data.module import TextDataModule
from losslab.data.python_docs import read_texts, source_files
from losslab.data.sources import TextSource
from losslab.data.tokenizer import FileTokenizer
from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling

TASK = LanguageModeling()


@pytest.fixture(scope="module")
def text_file(tmp_path_factory, documents) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def make(text_file):
    def make_module(**changes) -> TextDataModule:
        return TextDataModule(
            **{"path": str(text_file), "tokenizer": "bytes", "context": 32, "batch_size": 4} | changes
        )

    return make_module


@pytest.fixture(scope="module")
def prepared(make, tmp_path_factory) -> TextDataModule:
    module = make()
    module.info = module.prepare(tmp_path_factory.mktemp("cache"), TASK)
    return module


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": None}, "data.path is missing"),
        ({"corpus": "python_docs"}, "not both"),
        ({"path": "/no/such/file"}, "data.path=/no/such/file does not exist"),
        ({"tokenizer": "/no/such/tokenizer.json"}, "data.tokenizer=/no/such/tokenizer.json is neither"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "data.vocab_size must be at least 257"),
        ({"batch_size": 0}, "data.batch_size must be above 0, not 0"),
        ({"val_batch_size": -1}, "data.val_batch_size must be above 0, not -1"),
        ({"context": 0}, "data.context must be above 0, not 0"),
        ({"num_workers": -1}, "data.num_workers must be 0 or above, not -1"),
        ({"val_path": "/no/such/file"}, "data.val_path=/no/such/file does not exist"),
        ({"separator": "re:("}, "data.separator=re:( is no regular expression"),
        ({"path": None, "corpus": "python_docs", "separator": "x"}, "data.separator goes with data.path"),
        ({"path": None, "corpus": "python_docs", "val_fraction": 0.1}, "data.val_fraction goes with data.path"),
    ],
)
def test_bad_settings_are_refused_before_any_text_is_read(changes, reason: str, make, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.sources.read_file", lambda path, _: pytest.fail(f"{path} was read"))
    with pytest.raises(UserError) as caught:
        make(**changes)
    assert reason in str(caught.value)


@pytest.mark.parametrize("length", [1, 40, 400])
def test_a_text_that_is_too_short_is_refused(length: int, make, tmp_path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(f"w{i}" for i in range(length)))
    with pytest.raises(UserError, match="the text is too short"):
        make(path=str(path), context=1024).prepare(tmp_path / "cache", TASK)


def folder_of(module: TextDataModule, root: Path) -> Path:
    module.info = module.prepare(root, TASK)
    return module.cache.folder


def test_preparing_again_opens_what_is_there(make, tmp_path) -> None:
    folder = folder_of(make(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = make(batch_size=8, val_batch_size=2, num_workers=1, context=16, vocab_size=999)
    assert folder_of(again, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_text_tokenizer_or_vocabulary_is_prepared_apart(make, text_file, tokenizer_json, tmp_path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text(encoding="utf-8") + "\n\nand more", encoding="utf-8")
    lowering = str(tokenizer_json("lowering"))
    settings = [
        {},
        {"path": str(other)},
        {"documents": "block"},
        {"tokenizer": "bpe", "vocab_size": 280},
        {"tokenizer": "bpe", "vocab_size": 290},
        {"tokenizer": lowering},
    ]
    found = {folder_of(make(**changes), tmp_path / "cache") for changes in settings}
    assert len(found) == len(settings)


def test_content_decides_and_not_its_path(make, text_file, tokenizer_json, tmp_path) -> None:
    copies = {"path": tmp_path / "copy.md", "tokenizer": tmp_path / "copied.json"}
    originals = {"path": text_file, "tokenizer": tokenizer_json("lowering")}
    for key, path in copies.items():
        path.write_bytes(originals[key].read_bytes())
    one, two = (make(**{key: str(path) for key, path in paths.items()}) for paths in (originals, copies))
    assert one.content_hashes(TASK) == two.content_hashes(TASK)
    assert folder_of(one, tmp_path / "cache") == folder_of(two, tmp_path / "cache")


def test_each_input_path_has_its_content_in_the_identity(make, tokenizer_json) -> None:
    lowering = tokenizer_json("lowering")
    assert set(make().content_hashes(TASK)) == {"data.path"}
    assert set(make(tokenizer=str(lowering)).content_hashes(TASK)) == {"data.path", "data.tokenizer"}
    hashes = make(tokenizer=str(lowering)).content_hashes(TASK)
    assert hashes["data.tokenizer"] == FileTokenizer.read(str(lowering)).digest()
    built_in = make(path=None, corpus="python_docs").content_hashes(TASK)
    assert set(built_in) == {"data.corpus"}
    assert built_in["data.corpus"] != make().content_hashes(TASK)["data.path"]


def test_batches_of_training_are_those_that_were_hashed(prepared) -> None:
    prepared.seed = 7
    order = prepared.order()
    expected = [order.starts(k * 4, 4).tolist() for k in range(5, 8)]
    tokens = prepared.cache.splits["train"].tokens
    prepared.start_at(step=5, accumulate=2, rank=0, ranks=1)
    batches = list(itertools.islice(prepared.train_dataloader(), 6))
    for k, starts in enumerate(expected):
        rows = torch.cat([batch.inputs["tokens"] for batch in batches[2 * k : 2 * k + 2]])
        assert rows.tolist() == [tokens[start : start + 32].tolist() for start in starts]
    hashed = prepared.hash_batches()
    assert hashed == prepared.hash_batches()
    prepared.seed = 8
    assert prepared.hash_batches() != hashed


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_predicts_the_split_and_counts_its_bytes(split: str, prepared) -> None:
    batches = [b for rank in range(2) for b in prepared.eval_batches(split, Share(rank, 2))]
    kept = [batch.weight != 0 for batch in batches]
    arrays = prepared.cache.splits[split]
    assert sum(int(k.sum()) for k in kept) == len(arrays.tokens) - 1 == prepared.info.splits[split].positions
    counted = sum(float(b.extras["bytes"][k].sum()) for b, k in zip(batches, kept, strict=True))
    assert counted == arrays.bytes[1:].sum()
    whole = [b.target[b.weight != 0] for b in prepared.eval_batches(split, Share())]
    assert torch.cat(whole).tolist() == arrays.tokens[1:].tolist()


@pytest.mark.parametrize(("paragraphs", "by_window"), [(60, True), (900, False)])
def test_val_is_halved_by_document_or_by_window(paragraphs: int, by_window: bool, make, tmp_path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"paragraph {i} " + "word " * 40 for i in range(paragraphs)))
    module = make(path=str(path))
    module.info = module.prepare(tmp_path, TASK)
    assert (module.cache.meta["documents"]["val"] < 20) == by_window
    rows = [
        (f[w != 0], w)
        for b in module.eval_batches("val", Share())
        for f, w in zip(b.extras["fit"], b.weight, strict=True)
    ]
    fit = torch.cat([f for f, _ in rows])
    assert 0 < int(fit.sum()) < len(fit)
    mixed = sum(0 < int(f.sum()) < len(f) for f, _ in rows)
    assert (mixed == 0) == by_window
    assert all((b.extras["fit"] * b.weight).sum() > 0 for b in module.eval_batches("val", Share(), "fit", 500))


@pytest.mark.parametrize("context", [300, 1000, 2000, 4000])
def test_a_short_val_has_both_halves_or_is_refused(context: int, make, tmp_path) -> None:
    module = make(context=context)
    try:
        module.info = module.prepare(tmp_path, TASK)
    except UserError:
        return
    fit = torch.cat([batch.extras["fit"][batch.weight != 0] for batch in module.eval_batches("val", Share())])
    assert 0 < int(fit.sum()) < len(fit)


def test_the_vocabulary_is_what_the_tokenizer_has(make, tmp_path) -> None:
    module = make(tokenizer="bpe", vocab_size=50_000)
    module.info = module.prepare(tmp_path, TASK)
    assert module.info.vocab_size == len(module.train_counts) < 50_000
    assert module.train_counts.sum() == len(module.cache.splits["train"].tokens)


def test_the_built_in_corpus_is_prose_without_tests() -> None:
    texts = read_texts()
    assert sum(len(text.encode()) for text in texts) > 500_000
    assert len(texts) > 200
    assert all(text.strip() for text in texts)
    files = source_files()
    assert not [path for path in files if {"test", "tests", "idle_test", "site-packages"} & set(path.parts)]
    assert any(path.name == "argparse.py" for path in files)
    assert not [text for text in texts if text.startswith(("Test suite for", "Tests for"))][:3]


def test_a_python_without_sources_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("losslab.data.python_docs.sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr("losslab.data.python_docs._topics", list)
    with pytest.raises(UserError, match="this Python came without its library's sources"):
        read_texts()


def test_each_rule_of_documents_and_splits_is_prepared_apart(make, tmp_path) -> None:
    settings = [{}, {"rules": 2}, {"separator": "re:$"}, {"val_fraction": 0.1}, {"test_fraction": 0.1}]
    assert len({folder_of(make(**changes), tmp_path / "cache") for changes in settings}) == len(settings)


def test_paths_of_splits_have_their_content_in_the_identity(make, text_file, documents, tmp_path) -> None:
    val, moved = tmp_path / "v.txt", tmp_path / "moved.txt"
    for path in (val, moved):
        path.write_text("\n\n".join(documents[:30]).upper(), encoding="utf-8")
    hashes = make(val_path=str(val)).content_hashes(TASK)
    assert set(hashes) == {"data.path", "data.val_path"}
    assert hashes == make(val_path=str(moved)).content_hashes(TASK)
    assert hashes["data.path"] != make().content_hashes(TASK)["data.path"]
    assert hashes["data.path"] == make(val_path=str(val)).source_hash()
    assert hashes != make(val_path=str(val), test_path=str(moved)).content_hashes(TASK)


@pytest.mark.parametrize(("name", "lossless"), [("bytes", True), ("lowering", False)])
def test_a_split_is_measured_beyond_its_tokens(name: str, lossless: bool, make, tokenizer_json, tmp_path) -> None:
    module = make(tokenizer=name if lossless else str(tokenizer_json(name)))
    module.info = module.prepare(tmp_path, TASK)
    summary = module.summary()
    for split in ("val", "test"):
        found = module.info.splits[split]
        assert found.positions == len(module.cache.splits[split].tokens) - 1
        assert module.round_trip.lossless == summary["tokenizer_lossless"] == lossless
        assert found.words == (summary["words"][split] if lossless else None)
        assert module.count_words(split) == summary["words"][split]
    again = make(tokenizer=name if lossless else str(tokenizer_json(name)))
    again.info = again.prepare(tmp_path, TASK)
    assert again.summary() == summary
    assert str(summary["files"]).startswith("read 1 file (text.txt)")


def test_another_text_is_measured_as_well(make, tmp_path) -> None:
    module = make()
    module.info = module.prepare(tmp_path, TASK)
    folder = tmp_path / "wiki"
    folder.mkdir()
    for name in ("train", "valid"):
        (folder / f"{name}.txt").write_text("".join(f" = {name} {i} = \n some words \n" for i in range(30)))
    other = make(path=str(folder), rules=2)
    whole = other.open_text(LanguageModeling(), module.tokenizer(), None)
    assert whole.splits["text"].words == other.count_words("text") == 2 * 30 * 8
    part = other.open_text(LanguageModeling(), module.tokenizer(), "val")
    assert part.splits["text"].words == 30 * 8
    counted = sum(int((batch.weight != 0).sum()) for batch in other.eval_batches("text", Share()))
    assert part.splits["text"].positions == counted == other.num_positions("text")
    assert other.references("text", None) == {}


@pytest.mark.parametrize("own_splits", [False, True])
def test_a_warm_cache_reads_no_text(own_splits: bool, text_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.stamps._SETTLED", 0)
    paths = {"path": str(text_file)}
    if own_splits:
        (tmp_path / "val.txt").write_text("a text of its own\n\n" * 40)
        paths["val_path"] = str(tmp_path / "val.txt")
    cache = tmp_path / "cache"
    cache.mkdir()

    def work() -> tuple[dict[str, str], str | None, dict[str, SplitInfo], str]:
        module = TextDataModule(**paths, tokenizer="bytes", context=32, batch_size=4, rules=2)
        module.memory = cache
        hashes, told = module.content_hashes(TASK), module.told()
        info = module.prepare(cache, TASK)
        return hashes, told, info.splits, module.hash_batches(5)

    first = work()
    assert first[1] is not None and first[1].startswith("read ")
    monkeypatch.setattr(TextSource, "read", None)
    assert work() == first


def test_a_text_that_was_changed_is_read_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.data.stamps._SETTLED", 0)
    text = tmp_path / "text.txt"
    text.write_text("one text\n\n" * 100)
    found = []
    for letter in "one":
        text.write_text(f"{letter}ne text\n\n" * 100)
        module = TextDataModule(path=str(text), tokenizer="bytes", context=32)
        module.memory = tmp_path
        found.append(module.source_hash())
    assert len(set(found)) == 3
