"""data=pairs: two files line by line or a table, what is left out, refused and cut, one vocabulary or two."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losslab.contracts import Batch, DataInfo, Share
from losslab.data.pairs import PairsDataModule
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError
from losslab.tasks.translation import Translation

END = 256
PAIRS = [("ein Haus", "a house"), ("der Hund\x85", "the dog")]
PAIRS += [("", "nothing"), ("Baum", "  "), ("zwei Katzen", "two cats")]


def write(folder: Path, pairs: list[tuple[str, str]] = PAIRS, name: str = "train", end: str = "\n") -> dict[str, str]:
    """Both files of a split, the first of them packed; the last line of the other has no end."""
    with gzip.open(folder / f"{name}.de.gz", "wt", encoding="utf-8", newline="") as file:
        file.write("".join(one + end for one, _ in pairs))
    (folder / f"{name}.en").write_text(end.join(other for _, other in pairs), newline="")
    prefix = "" if name == "train" else f"{name}_"
    return {f"{prefix}source": str(folder / f"{name}.de.gz"), f"{prefix}target": str(folder / f"{name}.en")}


def prepared(folder: Path, **keys: Any) -> PairsDataModule:
    data = PairsDataModule(**({"context": 12, "tokenizer": "bytes", "batch_size": 4, "val_batch_size": 4} | keys))
    data.check_task(Translation(beams=0))
    data.info = data.prepare(folder / "cache", Translation(beams=0))
    return data


def spelt(batch: Batch) -> list[tuple[str, str, str]]:
    """The source, the target so far, and what is predicted, of each pair; $ is the end of text."""
    rows = []
    for i in range(len(batch.weight)):
        kept = batch.inputs["mask"][i]
        assert torch.equal(kept, batch.weight[i] != 0)
        parts = (batch.inputs["source"][i][batch.inputs["source_mask"][i]], batch.inputs["tokens"][i][kept])
        parts = (*parts, batch.target[i][kept])
        rows.append(tuple(
            b"".join(b"$" if t == END else bytes([t]) for t in part.tolist()).decode() for part in parts
        ))  # fmt: skip
    return rows


def test_the_share_of_the_context_that_pairs_fill_is_that_of_their_two_sequences(tmp_path: Path) -> None:
    files = write(tmp_path, name="val") | write(tmp_path, name="test")
    data = prepared(tmp_path, **files, **write(tmp_path, [("ab", "abcd"), ("a", "abc")]))
    lengths = [len("ab$") + len("$abcd$"), len("a$") + len("$abc$")]
    assert data.info.mean_share == sum(lengths) / len(lengths) / (2 * 12)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_n_goes_with_line_n_and_empty_ones_are_counted(end: str, tmp_path: Path) -> None:
    files = write(tmp_path, end=end) | write(tmp_path, name="val", end=end) | write(tmp_path, name="test", end=end)
    data = prepared(tmp_path, **files)
    (batch,) = data.eval_batches("test", Share())
    assert spelt(batch) == [
        ("ein Haus$", "$a house", "a house$"),
        ("der Hund\x85$", "$the dog", "the dog$"),
        ("zwei Katzen$", "$two cats", "two cats$"),
    ]
    assert data.store.meta["skipped"] == {"rows with an empty text": 6}
    assert data.texts("test", "target") == [["a house"], ["the dog"], ["two cats"]]
    assert batch.extras["id"][:, 0].tolist() == [0, 1, 2]
    counts = data.info.class_counts
    assert counts is not None and counts[END] == 3 and counts[ord("o")] == 3 and counts.sum() == 8 + 8 + 9
    assert list(data.content_hashes(Translation(beams=0))) == [f"data.{key}" for key in files]
    lines = [line for line, _ in data.introduction(0)]
    assert any("left out: 6 rows with an empty text" in line for line in lines)


def test_a_table_holds_the_same_pairs(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("de\ten\nein Haus\ta house\n\tnothing\nzwei Katzen\ttwo cats\n")
    data = prepared(tmp_path, path=str(tmp_path), columns={"source": "de", "target": "en"})
    (batch,) = data.eval_batches("val", Share())
    assert [row[0] for row in spelt(batch)] == ["ein Haus$", "zwei Katzen$"]


def test_what_is_longer_than_the_context_is_cut_and_counted_or_refused(tmp_path: Path) -> None:
    files = write(tmp_path, name="val") | write(tmp_path, name="test") | write(tmp_path)
    data = prepared(tmp_path, **files, context=8)
    (batch,) = data.eval_batches("test", Share())
    assert spelt(batch)[0] == ("ein Haus", "$a house", "a house$")
    assert spelt(batch)[2] == ("zwei Kat", "$two cat", "two cats")
    assert data.store.meta["truncated"] == {"train": 4, "val": 4, "test": 4}
    with pytest.raises(UserError) as error:
        prepared(tmp_path, **files, context=8, longer="refuse")
    assert "train.de.gz and train.en: line 1: its source has 9 tokens, its end among them" in str(error.value)
    assert "(12 texts are)" in str(error.value)
    prepared(tmp_path, **files, longer="refuse")


def test_one_vocabulary_or_two(tmp_path: Path) -> None:
    files = write(tmp_path, name="val") | write(tmp_path, name="test") | write(tmp_path)
    one = prepared(tmp_path, **files, tokenizer="bpe", vocab_size=300)
    two = prepared(tmp_path, **files, tokenizer="bpe", vocab_size=300, joint=False)
    assert one.info.source_vocab_size is None and two.info.source_vocab_size is not None
    assert {**two.info.stored()}["source_vocab_size"] == type(two.info).restored(two.info.stored()).source_vocab_size
    for data in (one, two):
        (batch,) = data.eval_batches("test", Share())
        source, target = source_tokenizer_of(data.info.artifacts), tokenizer_of(data.info.artifacts)
        assert source is not None and target is not None and (source.content == target.content) == (data is one)
        row = batch.inputs["source"][0][batch.inputs["source_mask"][0]].tolist()
        assert source.decode(row[:-1]) == "ein Haus" and row[-1] == source.end
        assert target.decode(batch.target[0][batch.inputs["mask"][0]].tolist()[:-1]) == "a house"
    with pytest.raises(UserError, match=r"data\.tokenizer=bytes is one for both"):
        prepared(tmp_path, **files, joint=False)


def test_steps_have_at_most_so_many_tokens_of_both_sides(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    pairs = [("a" * int(draws.integers(1, 10)), "b" * int(draws.integers(1, 10))) for _ in range(200)]
    files = write(tmp_path, pairs) | write(tmp_path, name="val") | write(tmp_path, name="test")
    data = prepared(tmp_path, **files, batch_tokens=80, batch_size=64)
    data.seed = 1
    steps = data.train.order.steps
    sizes, rows = [], 0
    for step in range(steps):
        batch = data.train_batch(step, Share())
        sizes.append(batch.inputs["source"].numel() + batch.inputs["tokens"].numel())
        rows += len(batch.weight)
    assert max(sizes) <= 80 and rows == 200
    assert sum(sizes) / steps > 50
    assert data.hash_batches(5) == data.hash_batches(5)


def test_translations_of_one_source_stay_in_one_split(tmp_path: Path) -> None:
    pairs = [(f"s{i // 4}", f"t{i}") for i in range(80)]
    data = prepared(tmp_path, **write(tmp_path, pairs), val_fraction=0.2, test_fraction=0.2)
    assert all(count == 0 for count in data.store.meta["copies"].values())
    assert [len(data.texts(split, "target")) for split in ("val", "test")] == [16, 16]


def test_changes_touch_sources_alone(tmp_path: Path) -> None:
    files = write(tmp_path, name="val") | write(tmp_path, name="test") | write(tmp_path)
    plain, changed = (prepared(tmp_path, **files, augment={"deletion": p}) for p in (0.0, 0.9))
    one, other = plain.train_batch(0, Share()), changed.train_batch(0, Share())
    assert torch.equal(one.target, other.target) and torch.equal(one.inputs["tokens"], other.inputs["tokens"])
    assert other.inputs["source_mask"].sum() < one.inputs["source_mask"].sum()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, r"data\.source and data\.target are missing: data=pairs data\.source=train\.de"),
        ({"source": "a.de"}, r"data\.target is missing: data\.source is one of two files"),
        ({"source": "no.de", "target": "no.en"}, r"data\.source=no\.de does not exist"),
        ({"val_source": "a.de", "val_target": "a.de"}, r"data\.val_source is not what a model is trained on"),
        ({"source": "a.de", "target": "a.de", "path": "p.tsv"}, r"give data\.source or data\.path, not both"),
        ({"source": "a.de", "target": "a.de"}, r"data\.source and data\.target name the same file, a\.de"),
        ({"source": ["a.de", "b.en"], "target": "b.en"}, r"data\.source names 2 files and data\.target 1"),
        ({"source": "a.de", "target": "b.en", "columns": {"source": "x"}}, r"data\.columns names columns of a table"),
        ({"source": "a.de", "target": "."}, r"data\.target=\. is no file"),
        ({"source": "a.de", "target": "empty"}, "empty is empty"),
        (
            {"source": "a.de", "target": "b.en", "val_source": "a.de", "val_target": "b.en"},
            r"b\.en has 5 lines and a\.de has 3: line 4 of b\.en has no counterpart",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    keys: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.de").write_text("1\n2\n3\n")
    Path("b.en").write_text("1\n2\n3\n4\n5\n")
    Path("empty").touch()
    with pytest.raises(UserError, match=sentence) as error:
        prepared(tmp_path, **keys)
    assert "\n" not in str(error.value)


def test_further_translations_stand_behind_the_target_and_in_the_signature_alone(tmp_path: Path) -> None:
    files = write(tmp_path) | write(tmp_path, name="val") | write(tmp_path, name="test")
    for name, lines in (("2", ["the house", "a dog", "x", "y", "cats"]), ("3", ["home", " ", "x", "y", "two cats!"])):
        (tmp_path / f"test.en{name}").write_text("\n".join(lines))
    data = prepared(tmp_path, **files, test_references=[str(tmp_path / "test.en2"), str(tmp_path / "test.en3")])
    assert data.texts("test", "target") == [["a house", "the house", "home"], ["the dog", "a dog"],
                                            ["two cats", "cats", "two cats!"]]  # fmt: skip
    assert data.texts("val", "target") == [["a house"], ["the dog"], ["two cats"]]
    assert data.info.references == -1 and DataInfo.restored(data.info.stored()).references == -1
    task = Translation(beams=0)
    alone = prepared(tmp_path, **files)
    assert alone.info.references == 1 and "references" not in alone.info.stored()
    with_one = prepared(tmp_path, **files, test_references=[str(tmp_path / "test.en2")])
    assert with_one.info.references == 2
    hashes = [each.content_hashes(task).get("data.test_references") for each in (alone, with_one, data)]
    assert hashes[0] is None and len(set(hashes)) == 3
    assert [spelt(b) for b in data.eval_batches("test", Share())] == [
        spelt(b) for b in alone.eval_batches("test", Share())
    ]


def test_columns_of_tables_hold_further_translations(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        rows = [("ein Haus", "a house", "home"), ("", "x", "y"), ("ein Hund", "a dog", ""), ("Tee", "tea", "the tea")]
        more = (
            [["source", "target", "other"], *rows]
            if name != "train"
            else [["source", "target"], *(r[:2] for r in rows)]
        )
        (tmp_path / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in more))
    tables = {f"{key}path": str(tmp_path / f"{name}.tsv") for key, name in (("", "train"), ("val_", "val"))}
    tables |= {"test_path": str(tmp_path / "test.tsv")}
    data = prepared(tmp_path, **tables, references=["other"])
    assert data.texts("test", "target") == [["a house", "home"], ["a dog"], ["tea", "the tea"]]
    for keys, sentence in (
        ({**tables, "references": ["none"]}, "has no column 'none', but 'source', 'target', 'other'"),
        ({"path": tables["path"], "references": ["other"]}, "give data.val_path and data.test_path"),
        ({**tables, "test_references": ["x"]}, "columns of a table: data.references"),
        ({**write(tmp_path), "references": ["x"]}, "data.references names columns of a table"),
        ({**write(tmp_path), "test_references": ["x"]}, "goes with data.test_source and data.test_target"),
    ):
        with pytest.raises(UserError, match=sentence):
            prepared(tmp_path, **keys)


def test_a_line_that_further_translations_lack_is_named(tmp_path: Path) -> None:
    files = write(tmp_path) | write(tmp_path, name="val") | write(tmp_path, name="test")
    (tmp_path / "short.en").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"test.de.gz has 5 lines and .*short.en has 2: line 3 of test.de.gz has no"):
        prepared(tmp_path, **files, test_references=[str(tmp_path / "short.en")])
    with pytest.raises(UserError, match="is 2 files, and there are 1 of sources"):
        prepared(tmp_path, **files, test_references=[str(tmp_path / "t*.en")])
