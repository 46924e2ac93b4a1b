"""Changes to the rows of train: functions of seed and place, on train alone, and refusals."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.choices import conf_dir
from losslab.config.identity import ADDED_LATER
from losslab.contracts import Batch, Share, padded
from losslab.data.augmentation import _OF_FRAMES, Augmentation
from losslab.data.bpe_dropout import BpeDropout
from losslab.data.label_noise import noisy_labels
from losslab.data.row_changes import RowChanges
from losslab.data.rows import RowsDataModule
from losslab.data.tokenizer import ByteTokenizer, FileTokenizer
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.training.limits import batches_of_passes

ROWS = 400
END = 256


class Tags(Classification):
    def __init__(self) -> None:
        super().__init__()
        self.columns = {"words": "words", "tags": "tags"}

    def collate(self, examples: Sequence[Any]) -> Batch:
        words, mask = padded([example["words"] for example in examples])
        tags, _ = padded([example["tags"] for example in examples])
        return Batch({"tokens": words, "mask": mask}, tags, mask.float(), {})


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("augmented")
    rows = (
        {
            "text": f"row {i} is number {i % 4} of four, and longer {'x' * (i % 9)}",
            "label": i % 4,
            "words": [f"w{i}", *(f"v{j}" for j in range(i % 5))],
            "tags": ["N", *(f"T{j}" for j in range(i % 5))],
        }
        for i in range(ROWS)
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def prepare(table: Path, augment: Any = None, *, seed: int = 3, task: Any = None, **more: Any) -> RowsDataModule:
    keys = {"context": 64, "batch_size": 12, "val_batch_size": 100, "augment": augment} | more
    data = RowsDataModule(path=str(table / "rows.jsonl"), **keys)
    task = task or Classification()
    data.check_task(task)
    data.seed = seed
    data.info = data.prepare(table / "cache", task)
    return data


def same(left: Batch, right: Batch) -> bool:
    tensors = [(left.inputs[name], right.inputs[name]) for name in left.inputs] + [(left.target, right.target)]
    return all(torch.equal(a, b) for a, b in tensors)


def test_label_noise_flips_its_share_once_and_for_all(table) -> None:
    clean, noisy = prepare(table), prepare(table, {"label_noise": 0.4})
    assert noisy.train.labels is not None
    true = np.asarray(clean.store.columns["train"]["label"].values)
    flipped = noisy.train.labels != true
    assert abs(flipped.mean() - 0.4) < 3 * np.sqrt(0.24 / len(true))
    assert set(((noisy.train.labels - true) % 4)[flipped]) == {1, 2, 3}
    steps = -(-2 * len(true) // 12)  # two passes: each row has the same label in both
    for step in range(steps):
        place = range(step * 12, step * 12 + 12)
        rows = noisy.train.order.rows(place)
        assert noisy.train_batch(step, Share()).target.tolist() == noisy.train.labels[rows].tolist()
    summary = noisy.summary()["augment"]
    assert summary == {"label_noise": 0.4, "flipped": flipped.sum(), "flipped_share": flipped.mean()}
    assert any(f"{flipped.sum()} of {len(true)} labels" in line for line, _ in noisy.introduction(0))
    assert noisy.info.class_counts is not None
    assert noisy.info.class_counts.tolist() == np.bincount(noisy.train.labels, minlength=4).tolist()


def test_splits_to_evaluate_on_stay_as_they_are(table) -> None:
    clean, changed = prepare(table), prepare(table, {"label_noise": 1.0, "deletion": 0.5})
    for split in ("val", "test"):
        found = zip(clean.eval_batches(split, Share()), changed.eval_batches(split, Share()), strict=True)
        assert all(same(a, b) for a, b in found)
    assert not same(clean.train_batch(0, Share()), changed.train_batch(0, Share()))


def test_the_noise_follows_its_own_seed_where_it_has_one(table) -> None:
    def labels(seed: int, noise_seed: int | None) -> list[int]:
        found = prepare(table, {"label_noise": 0.4, "label_noise_seed": noise_seed}, seed=seed).train.labels
        assert found is not None
        return found.tolist()

    assert labels(1, None) != labels(2, None)
    assert labels(1, 7) == labels(2, 7) != labels(1, 8)


def test_pair_noise_goes_to_the_next_class(table) -> None:
    data = prepare(table, {"label_noise": 0.5, "label_noise_kind": "pair"})
    assert data.train.labels is not None
    shift = (data.train.labels - np.asarray(data.store.columns["train"]["label"].values)) % 4
    assert set(shift.tolist()) == {0, 1}


@given(st.integers(2, 200), st.sampled_from(["uniform", "pair"]), st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_a_flipped_label_is_always_another_class(classes, kind, seed) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, 500, dtype=np.uint64)
    labels = np.arange(500) % classes
    found = noisy_labels(labels, hashes, classes, share=1.0, kind=kind, seed=seed)
    assert (found != labels).all()
    assert ((found >= 0) & (found < classes)).all()
    order = np.random.default_rng(0).permutation(500)  # a row's label depends on no other row
    again = noisy_labels(labels[order], hashes[order], classes, share=1.0, kind=kind, seed=seed)
    assert (again == found[order]).all()


def test_uniform_noise_reaches_each_other_class_as_often() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 60_000, dtype=np.uint64)
    found = noisy_labels(np.zeros(60_000, np.int64), hashes, 7, share=0.6, kind="uniform", seed=1)
    counts = np.bincount(found, minlength=7)
    wanted = np.array([0.4, *[0.1] * 6]) * 60_000
    assert (((counts - wanted) ** 2 / wanted).sum()) < 22.5  # the 99.9th percentile of chi-square with 6 degrees


def test_deletion_leaves_out_its_share_and_keeps_order_and_end() -> None:
    changes = RowChanges(Augmentation(deletion=0.3), {"text": "text"}, ByteTokenizer(), 5, context=999)
    tokens = torch.cat([torch.arange(200), torch.tensor([END])])
    found = [changes({"text": tokens}, place)["text"] for place in range(100)]
    assert all(part[-1] == END and bool((part[1:] > part[:-1]).all()) for part in found)
    kept = sum(len(part) - 1 for part in found) / 20_000
    assert abs(kept - 0.7) < 4 * np.sqrt(0.21 / 20_000)
    assert len({tuple(part.tolist()) for part in found}) == 100
    assert torch.equal(found[7], changes({"text": tokens}, 7)["text"])


def test_one_token_stays_whatever_the_probability() -> None:
    changes = RowChanges(Augmentation(deletion=1.0), {"text": "text"}, ByteTokenizer(), 5, context=999)
    for tokens in ([1, 2, 3, END], [1, 2, 3], [4, END], [4]):
        found = changes({"text": torch.tensor(tokens)}, 0)["text"].tolist()
        assert len([token for token in found if token != END]) == 1
        assert (found[-1] == END) == (tokens[-1] == END)
    assert changes({"text": torch.tensor([END])}, 0)["text"].tolist() == [END]


def words_of(tokens: torch.Tensor) -> list[str]:
    return bytes(token for token in tokens.tolist() if token < END).decode().split()


def test_words_are_left_out_whole() -> None:
    text = "the cat sat on the mat, and 23 dogs stood by"
    tokens = torch.tensor([*text.encode(), END])
    changes = RowChanges(Augmentation(word_deletion=0.4), {"text": "text"}, ByteTokenizer(), 5, context=999)
    whole = {"the", "cat", "sat", "on", "mat", ",", "and", "23", "dogs", "stood", "by"}
    found = [changes({"text": tokens}, place)["text"] for place in range(200)]
    assert all(set(" ".join(words_of(part)).replace(",", " , ").split()) <= whole for part in found)
    assert all(part[-1] == END for part in found)
    kept = sum(len(" ".join(words_of(part)).replace(",", " , ").split()) for part in found) / (200 * 12)
    assert abs(kept - 0.6) < 4 * np.sqrt(0.24 / 2400)
    alone = RowChanges(Augmentation(word_deletion=1.0), {"text": "text"}, ByteTokenizer(), 5, context=999)
    assert len(words_of(alone({"text": tokens}, 0)["text"])) == 1


@pytest.mark.parametrize(("share", "swaps"), [(0.01, 1), (0.1, 1), (0.3, 3)])
def test_words_change_places_and_none_is_lost(share, swaps) -> None:
    text = " ".join(f"w{chr(97 + i)}" for i in range(10))
    tokens = torch.tensor([*f" {text}".encode(), END])
    changes = RowChanges(Augmentation(word_swap=share), {"text": "text"}, ByteTokenizer(), 5, context=999)
    for place in range(50):
        found = words_of(changes({"text": tokens}, place)["text"])
        assert sorted(found) == sorted(text.split())
        moved = sum(a != b for a, b in zip(found, text.split(), strict=True))
        assert moved <= 2 * swaps
        assert moved == 2 or swaps > 1
    one = torch.tensor([*b"one", END])
    assert torch.equal(changes({"text": one}, 0)["text"], one)


def test_masking_hides_its_share_behind_the_mask_token(table) -> None:
    data, plain = prepare(table, {"masking": 0.3}), prepare(table)
    assert (data.info.mask, data.info.vocab_size) == (257, 258)
    assert plain.info.mask is None
    hidden, seen = 0, 0
    for step in range(20):
        changed_rows, whole_rows = _rows(data.train_batch(step, Share())), _rows(plain.train_batch(step, Share()))
        for changed, whole in zip(changed_rows, whole_rows, strict=True):
            assert len(changed) == len(whole)
            assert changed[-1] == END
            assert all(a in (b, 257) for a, b in zip(changed, whole, strict=True))
            hidden, seen = hidden + changed.count(257), seen + len(whole) - 1
    assert abs(hidden / seen - 0.3) < 4 * np.sqrt(0.21 / seen)
    words = prepare(table, {"masking": 1.0}, task=Tags()).train_batch(0, Share())
    assert set(words.inputs["tokens"].flatten().tolist()) == {0}


def _rows(batch: Batch) -> list[list[int]]:
    return [row[mask].tolist() for row, mask in zip(*_tokens(batch), strict=True)]


@pytest.mark.parametrize("augment", [{"deletion": 0.4}, {"word_swap": 0.5, "word_deletion": 0.3}])
def test_a_tag_goes_where_its_word_goes(table, augment) -> None:
    data = prepare(table, augment, task=Tags())
    words = json.loads(data.info.artifacts["words.json"])
    tags = json.loads(data.info.artifacts["labels.json"])["tags"]
    batch = data.train_batch(0, Share())
    for row, mask, target in zip(batch.inputs["tokens"], batch.inputs["mask"], batch.target, strict=True):
        for word, tag in zip(row[mask].tolist(), target[mask].tolist(), strict=True):
            assert tags[tag] == ("N" if words[word - 1].startswith("w") else f"T{words[word - 1][1:]}")


@pytest.mark.parametrize(
    "augment",
    [{"deletion": 0.3, "label_noise": 0.2}, {"word_swap": 0.2, "word_deletion": 0.2, "deletion": 0.1, "masking": 0.2}],
)
def test_changes_are_the_same_on_any_ranks_and_in_any_order(table, augment) -> None:
    data = prepare(table, augment)
    whole = [data.train_batch(step, Share()) for step in (5, 60)]
    other = prepare(table, augment)
    for step, batch in zip((60, 5), reversed(whole), strict=True):
        parts = [other.train_batch(step, Share(rank, 2, micro, 2)) for micro in range(2) for rank in range(2)]
        assert batch.target.tolist() == [t for part in parts for t in part.target.tolist()]
        assert _rows(batch) == [row for part in parts for row in _rows(part)]
    assert data.hash_batches(4) == other.hash_batches(4)
    assert data.hash_batches(4) != prepare(table, augment, seed=4).hash_batches(4)
    assert data.hash_batches(4) != prepare(table).hash_batches(4)


def _tokens(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.inputs["tokens"], batch.inputs["mask"]


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"deletion": 1.5}, r"data\.augment\.deletion must be a probability from 0 to 1, not 1\.5"),
        ({"label_noise": "much"}, r"data\.augment\.label_noise must be a probability from 0 to 1, not 'much'"),
        ({"label_noise": True}, "must be a probability"),
        ({"label_noise": 0.1, "label_noise_kind": "mean"}, "must be uniform or pair, not 'mean'"),
        ({"label_noise": 0.1, "label_noise_seed": -1}, "must be a whole number from 0 on, not -1"),
        ({"label_noise_seed": 3}, r"label_noise_seed goes with data\.augment\.label_noise, which is 0"),
        ({"delete": 0.1}, r"there is no key 'data\.augment\.delete': the keys are deletion, "),
        (3, "data.augment must be keys with values"),
    ],
)
def test_a_bad_value_is_one_sentence(table, augment, words) -> None:
    with pytest.raises(UserError, match=words):
        prepare(table, augment)


class Texts(Tags):
    def __init__(self) -> None:
        self.columns = {"text": "text"}


def test_texts_that_are_targets_are_not_masked(table) -> None:
    with pytest.raises(UserError, match="the texts of task=Texts are its targets as well"):
        prepare(table, {"masking": 0.1}, task=Texts())


class Running(Texts):
    joined = ("text",)
    cut = "left"


def test_a_running_text_takes_no_bpe_dropout(table) -> None:
    with pytest.raises(UserError, match="those of task=Running are one running text"):
        prepare(table, {"bpe_dropout": 0.1}, task=Running(), tokenizer="bpe")


def test_a_task_without_a_label_takes_no_label_noise(table) -> None:
    with pytest.raises(UserError, match="the target of task=Tags is none"):
        prepare(table, {"label_noise": 0.4}, task=Tags())


@pytest.mark.parametrize("keys", [{"batch_tokens": 300, "batch_size": 24}, {"balance": 1.0}])
def test_batches_are_the_same_on_any_ranks(table, keys) -> None:
    data, other = prepare(table, {"deletion": 0.2}, **keys), prepare(table, {"deletion": 0.2}, **keys)
    for step in (40, 2):
        whole = data.train_batch(step, Share())
        assert len(whole.weight) == len(data.places(step, Share()))
        for ranks, micros in ((1, 1), (2, 1), (2, 6)):
            shares = [Share(rank, ranks, micro, micros) for micro in range(micros) for rank in range(ranks)]
            parts = [other.train_batch(step, share) for share in shares]
            assert all(
                len(part.weight) == len(other.places(step, share)) for part, share in zip(parts, shares, strict=True)
            )
            kept = [part.target[part.weight != 0] for part in parts]
            assert torch.cat(kept).tolist() == whole.target.tolist()
            assert sum(float(part.weight.sum()) for part in parts) == float(whole.weight.sum())
    assert data.hash_batches(6) == other.hash_batches(6)


def test_a_share_without_a_row_gets_one_of_no_weight(table) -> None:
    data = prepare(table, batch_tokens=64)  # as long as the longest row: steps of one or two rows
    step = next(step for step in range(100) if len(data.places(step, Share())) == 1)
    parts = [data.train_batch(step, Share(rank, 2)) for rank in range(2)]
    assert [float(part.weight.sum()) for part in parts] == [0.0, 1.0]


def test_steps_of_a_budget_say_how_long_a_pass_is(table) -> None:
    data = prepare(table, batch_tokens=400, batch_size=1000)
    count = data.store.count("train")
    steps = data.summary()["batch_tokens"]
    assert batches_of_passes(data.info, data)["train"] == pytest.approx(steps["steps_in_a_pass"])
    assert data.samples_per_step == count / steps["steps_in_a_pass"]
    assert 0 < steps["padding"] < steps["padding_at_random"] < 1
    assert any(f"{steps['steps_in_a_pass']} a pass" in line for line, _ in data.introduction(0))
    assert batches_of_passes(data.info, prepare(table))["train"] == count / 12


@pytest.mark.parametrize(
    ("keys", "task", "words"),
    [
        ({"batch_tokens": 0}, None, r"data\.batch_tokens must be above 0, or null, not 0"),
        ({"batch_tokens": 20}, None, r"fewer than the \d+ tokens of the longest row of train: give at least"),
        ({"balance": 2.0}, None, r"data\.balance must be from 0 \(rows as they are\) to 1 .*, not 2\.0"),
        ({"balance": 0.5, "batch_tokens": 300}, None, "do not go together"),
        ({"balance": 0.5}, Tags(), "the target of task=Tags is none"),
    ],
)
def test_bad_keys_of_a_sampler_are_one_sentence(table, keys, task, words) -> None:
    with pytest.raises(UserError, match=words):
        prepare(table, task=task, **keys)


@pytest.fixture(scope="module")
def bpe() -> FileTokenizer:
    return FileTokenizer.train([f"the lower the newer, widest {i} x" for i in range(300)] * 3, 320)


TEXTS = st.text(alphabet="the lowrnwids,0123é\n ", min_size=1, max_size=60)


@given(TEXTS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_bpe_dropout_cuts_the_same_text(bpe, text, seed) -> None:
    ((tokens, _),) = bpe.encode([text])
    recut = BpeDropout(bpe)
    assert recut(tokens, 0.0, random.Random(seed)) == tokens
    found = recut(tokens, 0.3, random.Random(seed))
    assert bpe.decode(found) == text
    assert found == recut(tokens, 0.3, random.Random(seed))
    assert len(recut(tokens, 1.0, random.Random(seed))) == len(text.encode())


def test_bpe_dropout_leaves_out_each_merge_as_often() -> None:
    """Two bytes and one merge: they are merged unless it is left out."""
    pair = FileTokenizer.train(["ab"] * 9, 258)
    ((tokens, _),) = pair.encode(["ab"])
    assert len(tokens) == 1
    recut, draws = BpeDropout(pair), random.Random(0)
    merged = sum(len(recut(tokens, 0.2, draws)) == 1 for _ in range(4000)) / 4000
    assert abs(merged - 0.8) < 4 * np.sqrt(0.16 / 4000)


def test_a_text_cut_through_a_character_stays_as_it_is(bpe) -> None:
    ((tokens, _),) = bpe.encode(["the é"])
    assert BpeDropout(bpe)(tokens[:-1], 0.9, random.Random(1)) == tokens[:-1]


def test_rows_of_other_cuts_fit_the_context(bpe) -> None:
    columns: dict[str, Any] = {"text": "text", "text_pair": "text"}
    asked = Augmentation(bpe_dropout=0.5)
    changes = RowChanges(asked, columns, bpe, 1, context=16, joined=("text", "text_pair"))
    end = torch.tensor([bpe.end])
    ids = [torch.tensor(tokens) for tokens, _ in bpe.encode(["the lower the newer", "widest"])]
    row = dict(zip(columns, (torch.cat([part, end]) for part in ids), strict=True))
    found = [changes(row, place) for place in range(20)]
    assert all(len(each["text"]) + len(each["text_pair"]) <= 16 for each in found)
    assert all(each[name][-1] == bpe.end for each in found for name in columns)
    assert len({tuple(each["text"].tolist()) for each in found}) > 5
    alone = RowChanges(asked, {"text": "text"}, bpe, 1, context=8)
    assert all(len(alone({"text": row["text"]}, place)["text"]) <= 8 for place in range(20))


@pytest.mark.parametrize(
    ("tokenizer", "task", "words"),
    [("bytes", None, "leaves out merges of a byte-level BPE"), ("bpe", Tags(), "task=Tags reads none")],
)
def test_bpe_dropout_needs_a_bpe_and_text(table, tokenizer, task, words) -> None:
    with pytest.raises(UserError, match=words):
        prepare(table, {"bpe_dropout": 0.1}, tokenizer=tokenizer, task=task)


def test_texts_are_replaced_by_their_paraphrases(table, tmp_path) -> None:
    plain = prepare(table)
    texts = [bytes(t for t in plain.store.row("train", i)["text"].tolist() if t < END).decode() for i in range(50)]
    path = tmp_path / "others.csv"
    path.write_text("text,paraphrase\n" + "".join(f'"{text}",say {k} {text[4:7]}\n' for text in texts for k in "ab"))
    data = prepare(table, {"paraphrases": str(path), "paraphrasing": 0.5})
    chosen = {"as it is": 0, "a": 0, "b": 0}
    for place in range(40 * data.store.count("train")):
        (row,) = data.train.order.rows(range(place, place + 1))
        found = bytes(t for t in data.train.example(row, place)["text"].tolist() if t < END).decode()
        if row >= len(texts):
            assert found.startswith("row")
            continue
        chosen["as it is" if found == texts[row] else found[4]] += 1
    total = sum(chosen.values())
    assert total == 2000
    for name, share in (("as it is", 0.5), ("a", 0.25), ("b", 0.25)):
        assert abs(chosen[name] / total - share) < 4 * np.sqrt(share * (1 - share) / total)
    assert data.summary()["augment"]["reworded"] == 50
    assert any("50 of" in line and "paraphrases" in line for line, _ in data.introduction(0))
    before = data.content_hashes(data.task)["data.augment.paraphrases"]
    path.write_text(path.read_text() + f'"{texts[0]}",another\n')
    assert data.content_hashes(data.task)["data.augment.paraphrases"] != before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,other\na,b\n", "has no column 'paraphrase', but 'text', 'other'"),
        ("text,paraphrase\na,\n", r"of others\.csv \(data\.augment\.paraphrases\) has no text in 'paraphrase'"),
        ("text,paraphrase\na,b\n", "has other words for no text of train: its column 'text'"),
        (None, r"data\.augment\.paraphrases=.*others\.csv does not exist"),
    ],
)
def test_bad_paraphrases_are_one_sentence(table, tmp_path, content, words) -> None:
    path = tmp_path / "others.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        prepare(table, {"paraphrases": str(path)})


def test_every_table_has_the_same_keys() -> None:
    """Those of tokens, or those of frames."""
    files = [path for path in (conf_dir() / "data").glob("*.yaml") if RowsDataModule.__name__ in path.read_text()]
    found = [yaml.safe_load(path.read_text())["augment"] for path in files]
    assert len(found) >= 4
    whole, of_frames = Augmentation().__dict__, {key for pair in _OF_FRAMES.items() for key in pair}
    kinds = [{key: value for key, value in whole.items() if (key in of_frames) is on} for on in (False, True)]
    assert all(block in kinds for block in found) and all(kind in found for kind in kinds)
    assert {f"data.augment.{key}": value for key, value in whole.items()}.items() <= ADDED_LATER.items()
