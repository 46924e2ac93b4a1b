"""Text and token ids: nothing is lost on the way there and back, and every byte is counted once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.data.tokenizer import (
    END_OF_TEXT,
    MASK,
    ByteTokenizer,
    FileTokenizer,
    artifacts_of,
    load_tokenizer,
    make_tokenizer,
    tokenizer_of,
)
from losslab.data.tokenizer_choice import check_choice
from losslab.data.tokenizer_json import as_json
from losslab.errors import UserError

TEXTS = [
    "",
    " ",
    "plain words\n\twith  white   space\r\n",
    "naïve café, İstanbul, ﬁ ﷺ",
    "模型的损失是多少？",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 flags 🇺🇳",
    "the Loss of THE model",
    "a\x00b\u2028c\ufeff",
    "e\u0301 decomposed",
]
any_text = st.text(max_size=80)


@pytest.fixture(scope="module")
def bpe(documents) -> FileTokenizer:
    return FileTokenizer.train(documents, 300)


@pytest.fixture(params=["bpe", "bytes", "lowering", "dropping", "prefixing"], scope="module")
def tokenizer(request, documents, tokenizer_json):
    choice = request.param if request.param in ("bpe", "bytes") else str(tokenizer_json(request.param))
    return make_tokenizer(choice, 300, documents)


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_tokens_add_up_to_those_of_the_document(text: str, tokenizer) -> None:
    ((ids, sizes),) = tokenizer.encode([text])
    assert len(ids) == len(sizes)
    assert all(size >= 0 for size in sizes)
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    if ids:
        assert sum(sizes) == len(text.encode())


@settings(deadline=None, max_examples=100)
@given(any_text)
def test_the_bytes_of_any_document_add_up(tokenizer, text: str) -> None:
    test_the_bytes_of_tokens_add_up_to_those_of_the_document(text, tokenizer)


@settings(deadline=None, max_examples=100)
@given(any_text)
def test_bpe_and_bytes_give_any_text_back(bpe, text: str) -> None:
    for tokenizer in (bpe, ByteTokenizer()):
        ((ids, _),) = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text


def test_a_text_that_spells_the_end_out_does_not_end(bpe) -> None:
    ((ids, _),) = bpe.encode(["before <|endoftext|> after"])
    assert bpe.end not in ids
    assert bpe.decode(ids) == "before <|endoftext|> after"


def test_a_bpe_token_has_the_bytes_that_it_decodes_to(bpe) -> None:
    text = "the loss of a model is what it pays"
    ((ids, sizes),) = bpe.encode([text])
    assert len(ids) < len(text)
    assert sizes == [len(bpe.decode([token]).encode()) for token in ids]


def test_a_token_never_gets_bytes_of_its_neighbours_words(tokenizer_json) -> None:
    lowering = FileTokenizer.read(str(tokenizer_json("lowering")))
    ((ids, sizes),) = lowering.encode(["The  MODEL öö, loss \n"])
    assert ids == [1, 3, 0, 0, 2]
    assert sizes == [3, 7, 5, 1, 7], "white space belongs to the token after it, and at the end to the last"


def test_many_documents_are_encoded_in_their_order(tokenizer, documents) -> None:
    many = [f"the {i} {text}" for i in range(10) for text in documents]
    assert len(many) > 512
    together = list(tokenizer.encode(many))
    assert together == [next(iter(tokenizer.encode([text]))) for text in many]


def test_training_is_deterministic_and_keeps_to_its_size(documents, bpe) -> None:
    again = FileTokenizer.train(documents, 300)
    assert again.digest() == bpe.digest()
    assert bpe.vocab_size == 300
    assert FileTokenizer.train(documents, 280).digest() != bpe.digest()
    assert FileTokenizer.train(documents[:3], 300).digest() != bpe.digest()
    assert FileTokenizer.train(["ab ab"], 4096).vocab_size < 300, "a short text has few pairs to merge"


def test_the_end_of_text_has_an_id_outside_ordinary_text(bpe, tokenizer_json) -> None:
    assert bpe.decode([bpe.end]) in ("", END_OF_TEXT)
    assert all(bpe.end not in ids for ids, _ in bpe.encode(TEXTS))
    assert ByteTokenizer().end == 256
    assert FileTokenizer.read(str(tokenizer_json("dropping"))).end == 4
    assert FileTokenizer.read(str(tokenizer_json("lowering"))).end is None


def test_padding_truncation_and_added_tokens_of_a_file_are_left_out(tmp_path, bpe) -> None:
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(bpe.content)
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, bpe.end)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = FileTokenizer.read(str(tmp_path / "tokenizer.json"))
    assert list(loaded.encode(TEXTS)) == list(bpe.encode(TEXTS))


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.digest() == tokenizer.digest()
    assert list(loaded.encode(TEXTS)) == list(tokenizer.encode(TEXTS))


@pytest.mark.parametrize("choice", ["bpe", "bytes", "lowering", "dropping", "prefixing"])
def test_a_mask_token_is_one_more_id_that_no_text_is_encoded_to(choice, documents, tokenizer_json, tmp_path) -> None:
    choice = choice if choice in ("bpe", "bytes") else str(tokenizer_json(choice))
    plain = make_tokenizer(choice, 300, documents)
    masked = make_tokenizer(choice, 300, documents, masks=True)
    assert plain.mask is None
    assert masked.mask == plain.vocab_size == masked.vocab_size - 1
    assert masked.end == plain.end
    assert masked.digest() != plain.digest()
    texts = [*TEXTS, f"a {MASK} b"]
    assert list(masked.encode(texts)) == list(plain.encode(texts))
    assert masked.decode([masked.mask]) == ""
    masked.save(tmp_path)
    kept = tokenizer_of(artifacts_of(masked))
    assert kept is not None
    for found in (load_tokenizer(tmp_path), kept):
        assert (found.mask, found.vocab_size, found.digest()) == (masked.mask, masked.vocab_size, masked.digest())
    assert FileTokenizer(as_json(masked), "written").mask == masked.mask


def test_a_files_own_mask_token_is_used(bpe, tmp_path) -> None:
    from tokenizers import Tokenizer, models

    own = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "loss": 2}, unk_token="[UNK]"))
    own.save(str(tmp_path / "own.json"))
    found = make_tokenizer(str(tmp_path / "own.json"), 1, [], masks=True)
    assert (found.mask, found.vocab_size) == (1, 3)
    assert found.content == FileTokenizer.read(str(tmp_path / "own.json")).content
    Tokenizer(models.WordLevel({"[UNK]": 0, "loss": 2}, unk_token="[UNK]")).save(str(tmp_path / "gaps.json"))
    with pytest.raises(UserError, match=r"gaps\.json has gaps in its ids"):
        make_tokenizer(str(tmp_path / "gaps.json"), 1, [], masks=True)


def test_bytes_that_are_no_text_still_decode() -> None:
    assert ByteTokenizer().decode([0xFF, 0x41, 256, 0x42]) == "\ufffdAB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "neither bpe, bytes nor a readable tokenizer.json"),
        (b"{}", "is not a tokenizer.json"),
        (b"not json", "is not a tokenizer.json"),
        (b"\xff\xfe", "neither bpe, bytes nor a readable tokenizer.json"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_its_path(content: bytes | None, reason: str, tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_choice(str(path), 4096)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vocab_size", [-1, 0, 1, 256])
def test_a_vocabulary_smaller_than_the_bytes_is_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match=f"at least 257 .* not {vocab_size}"):
        check_choice("bpe", vocab_size)


def test_the_smallest_vocabulary_works(documents) -> None:
    check_choice("bpe", 257)
    check_choice("bytes", 1)
    smallest = FileTokenizer.train(documents, 257)
    assert smallest.vocab_size == 257
    ((ids, sizes),) = smallest.encode(["naïve 🙂"])
    assert len(ids) == len("naïve 🙂".encode()) == sum(sizes)
    assert smallest.decode(ids) == "naïve 🙂"


def test_a_bpe_of_lower_case_carries_its_normalizer(documents, tmp_path) -> None:
    made = make_tokenizer("bpe", 300, documents, lowercase=True)
    made.save(tmp_path)
    for tokenizer in (made, load_tokenizer(tmp_path)):
        (upper, sizes), (lower, _) = tokenizer.encode(["THE Loss of İ", "the loss of i̇"])
        assert upper == lower and sum(sizes) == len("THE Loss of İ".encode())
    assert made.digest() != make_tokenizer("bpe", 300, documents).digest()
    assert tokenizer.decode(upper) == "the loss of i̇"


@pytest.mark.parametrize("choice", ["bytes", "some.json"])
def test_lower_case_goes_with_a_trained_bpe(choice: str) -> None:
    with pytest.raises(UserError, match=r"data\.lowercase=true goes with data\.tokenizer=bpe.*, not with"):
        check_choice(choice, 300, lowercase=True)
