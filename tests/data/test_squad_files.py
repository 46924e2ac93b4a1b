"""Windows of questions: where answers stand in them, what splits share, and the tokens of any tokenizer."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from atlas import atlas, write_atlas
from losslab.contracts import Share
from losslab.data.offsets import covering, located
from losslab.data.question_store import QuestionReading, SplitBy
from losslab.data.question_windows import NO_SPAN, QuestionSamples, WindowRule, is_unreached
from losslab.data.squad import Squad
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer, Tokenizer
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.tasks.qa import QuestionAnswering

ODD = "  Ünder «日本語» naïve—\t\n🙂 co-op  end "


def trained() -> Tokenizer:
    return FileTokenizer.train([ODD, "under the naïve co-op"] * 4, 300)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), trained()], ids=["bytes", "bpe"])
def test_offsets_are_characters_and_cover_what_is_asked_for(tokenizer: Tokenizer) -> None:
    (found,) = located([ODD], tokenizer)
    assert len(found.ids) == len(found.offsets)
    pieces = [ODD[begin:end] for begin, end in found.offsets.tolist()]
    assert all(piece == piece.strip() for piece in pieces)
    seen = {place for begin, end in found.offsets.tolist() for place in range(begin, end)}
    assert seen == {i for i, character in enumerate(ODD) if not character.isspace()}
    for begin in range(len(ODD)):
        for end in range(begin + 1, len(ODD) + 1):
            span = covering(found.offsets, begin, end)
            asked = {*range(begin, end)} & seen
            if span is None:
                assert not asked
                continue
            first, last = int(found.offsets[span[0], 0]), int(found.offsets[span[1], 1])
            assert asked <= {*range(first, last)}
            for narrower in ((span[0] + 1, span[1]), (span[0], span[1] - 1)):
                held = {p for b, e in found.offsets[narrower[0] : narrower[1] + 1].tolist() for p in range(b, e)}
                assert not asked <= held or len(asked & held) < len(asked) or tokenizer.vocab_size != 300


def test_windows_reach_every_token_and_mark_whole_answers_alone() -> None:
    rule = WindowRule(context=16, max_question=4, stride=3)
    parts = rule.parts(question=9, text=20)
    assert parts == [(0, 9), (3, 12), (6, 15), (9, 18), (11, 20)]
    assert rule.parts(question=2, text=5) == [(0, 5)]
    (text,) = located(["abcdefghijklmnopqrst"], ByteTokenizer())
    ids = np.arange(9, dtype=np.int32)
    found = [rule.example(ids, text, part, span=(8, 10), number=3, tokenizer=ByteTokenizer()) for part in parts]
    assert [example["span"] for example in found] == [NO_SPAN, (5, 7), (2, 4), NO_SPAN, NO_SPAN]
    assert found[1]["text"].tolist() == [256, 0, 1, 2, 3, 256]
    assert found[1]["text_pair"].tolist() == [*b"defghijkl", 256]
    assert found[1]["offsets"].tolist() == [[i, i + 1] for i in range(3, 12)]
    assert is_unreached([(0, 4), (4, 8)], (3, 4)) and not is_unreached([(0, 4)], NO_SPAN)


def test_a_window_begins_with_the_token_before_texts() -> None:
    backend = Backend(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "a": 2, "b": 3}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = [("[CLS]", 0), ("[SEP]", 1)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    for begins, first in ((True, 0), (False, 1)):
        tokenizer = FileTokenizer(backend.to_str(), "own", begins=begins)
        question, text = located(["b a", "a b b"], tokenizer)
        options = {"span": NO_SPAN, "number": 0, "tokenizer": tokenizer}
        found = WindowRule(context=16).example(question.ids, text, (0, 3), **options)
        assert (found["text"].tolist(), found["text_pair"].tolist()) == ([first, 3, 2, 1], [2, 3, 3, 1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"context": 8, "max_question": 5}, "data.context=8 has no room for a question of data.max_question=5 tokens"),
        ({"context": 16, "max_question": 4, "stride": 10}, "a window of data.context=16 has 9 of the text"),
        ({"context": 16, "stride": 0}, "data.stride must be 1 or above"),
        ({"context": 16, "path": None}, "data.path is missing"),
        ({"context": 16, "path": "missing.json"}, "data.path=missing.json does not exist"),
        ({"context": 16, "path": "."}, "is a folder: name the file"),
        ({"context": 16, "val_fraction": 1.5}, "data.val_fraction must be above 0 and below 1"),
        ({"context": 16, "val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"context": 16, "val_path": "train.json", "val_fraction": 0.5}, "val has questions of its own"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_atlas(tmp_path / "train.json", 4)
    with pytest.raises(UserError, match=told):
        Squad(**({"path": "train.json"} | options))


def prepared(folder: Path, **options: Any) -> Squad:
    data = Squad(**({"path": str(folder / "train.json"), "context": 36, "tokenizer": "bytes"} | options))
    data.info = data.prepare(folder / "cache", QuestionAnswering())
    return data


def test_an_answer_stands_at_its_characters_in_each_window(tmp_path: Path) -> None:
    """Bytes in short windows, so that texts have several."""
    write_atlas(tmp_path / "train.json", 12)
    data = prepared(tmp_path, split_by="context")
    assert data.info.passages is not None
    whole: dict[int, set[tuple[int, int]]] = defaultdict(set)
    tokens: dict[int, set[int]] = defaultdict(set)
    for split in ("val", "test"):
        for batch in data.eval_batches(split, Share()):
            assert batch.inputs["tokens"].shape[1] <= 36
            for i, question in enumerate(batch.extras["question"].tolist()):
                offsets, target = batch.extras["offsets"][i], batch.target[i].tolist()
                tokens[question] |= {int(begin) for begin in offsets[batch.extras["places"][i]][1:, 0]}
                assert batch.extras["places"][i, 0] and bool(batch.extras["places"][i][target].all())
                if target[0]:
                    whole[question].add((int(offsets[target[0], 0]), int(offsets[target[1], 1])))
    for question, starts in tokens.items():
        text, answers = data.info.passages(question)
        assert starts >= {i for i, character in enumerate(text) if not character.isspace()}
        assert len(whole[question]) == bool(answers), "an answer has one place"
        assert all(text[begin:end] in answers for begin, end in whole[question])
    assert any(whole.values()) and len(tokens) == sum(len(data.store.numbers(split)) for split in ("val", "test"))


@pytest.mark.parametrize("split_by", ["article", "context"])
def test_no_article_or_no_text_is_in_two_splits(tmp_path: Path, split_by: SplitBy) -> None:
    write_atlas(path := tmp_path / "train.json", 60)
    questions, splits, _ = QuestionReading(split_by=split_by).read({"train": path})
    assert len(questions) == 180 and Counter(splits).keys() == {"train", "val", "test"}
    assert min(Counter(splits).values()) >= 45, "a quarter"
    seen: dict[str, set[str]] = defaultdict(set)
    for question, split in zip(questions, splits, strict=True):
        seen[question.context if split_by == "context" else str(question.article)].add(split)
    assert all(len(found) == 1 for found in seen.values())


def test_too_few_articles_are_refused_with_a_cure(tmp_path: Path) -> None:
    write_atlas(path := tmp_path / "train.json", 4)
    with pytest.raises(UserError, match=r"train split has 0 of them.*; data\.split_by=context splits articles"):
        QuestionReading().read({"train": path})
    assert len(QuestionReading(split_by="context").read({"train": path})[0]) == 12


def test_ids_stand_once(tmp_path: Path) -> None:
    write_atlas(tmp_path / "train.json", 8)
    write_atlas(tmp_path / "dev.json", 8)
    with pytest.raises(UserError, match=r"the question 0-0-0 stands in .*train.json and in .*dev.json"):
        prepared(tmp_path, val_path=str(tmp_path / "dev.json"), split_by="context")
    twice = atlas(8)
    twice["data"][0]["paragraphs"][0]["qas"] *= 2
    (tmp_path / "train.json").write_text(json.dumps(twice))
    with pytest.raises(UserError, match=r"the question 0-0-0 stands twice in"):
        prepared(tmp_path, split_by="context")
    with pytest.raises(UserError, match=r"dev.json cannot serve as val and as test.*leave data.test_path out"):
        prepared(tmp_path, val_path=str(tmp_path / "dev.json"), test_path=str(tmp_path / "dev.json"))
    (tmp_path / "train.json").write_text('{"data": []}')
    with pytest.raises(UserError, match=r"too few questions: the train split has 0 of them, and needs at least 1$"):
        prepared(tmp_path)


def test_the_windows_of_a_question_stay_together() -> None:
    question = np.array([0, 0, 1, 2, 2, 2, 3])
    samples = QuestionSamples(question, np.array([7, 1, 9, 3], dtype=np.uint64), np.array([0, 0, 1, 1]))
    assert samples.fit.tolist() == [1, 1, 1, 0, 0, 0, 0], "the order of questions is 1, 3, 0, 2"
    assert samples.units.tolist() == [0, 0, 0, 1, 1, 1, 1] and samples.num_units == 2
    assert samples.choose(None).tolist() == [*range(7)]
    assert samples.choose(2).tolist() == [2, 6] and samples.choose(1).tolist() == [2, 6]
    assert samples.choose(3).tolist() == [2, 6] and samples.choose(4).tolist() == [0, 1, 2, 6]
    assert samples.choose(None, fit=True).tolist() == [0, 1, 2] and samples.choose(1, fit=True).tolist() == [2]


def test_other_tasks_and_other_data_are_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path / "train.json", 8)
    with pytest.raises(UserError, match="task=classification reads none: task=qa does"):
        Squad(path=str(tmp_path / "train.json"), context=32).check_task(Classification())
