"""BLEU and chrF as counts, against sacrebleu's own scores of all texts at once."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from losslab.errors import UserError
from losslab.metric import from_info, to_info

WORDS = st.lists(st.sampled_from(["the", "cat", "sat,", "on", "a", "Mat.", "été", "1,000"]), max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=8)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from losslab.metrics.text_scores import TextScores

    for name in ("sacrebleu", "sacrebleu.metrics", "sacrebleu.metrics.bleu", "sacrebleu.metrics.chrf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'losslab\[mt\]'"):
        TextScores()


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(0, 8))
@example([("", ["a cat"])], 0)
@example([("", ["a cat"]), ("the cat sat, on a Mat.", ["the cat sat, on a Mat."])], 1)
@example([("a", [""])], 0)
@example([("the cat", ["a", "the cat", "the"]), ("on", ["on"])], 1)
def test_counts_of_parts_add_up_to_the_scores_of_all_texts(pairs: list[tuple[str, list[str]]], cut: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    from losslab.metrics.text_scores import TextScores

    scores, written, references = TextScores(), [text for text, _ in pairs], [each for _, each in pairs]
    parts = [scores.counts(written[part], references[part]).sum(dim=0) for part in (slice(cut), slice(cut, None))]
    found = scores.values(parts[0] + parts[1])
    most = max(map(len, references))
    streams = [[each[i] if i < len(each) else None for each in references] for i in range(most)]
    bleu, chrf = (metric.corpus_score(written, streams) for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()))
    assert found["bleu"] == bleu.score and found["chrf"] == chrf.score
    assert found["length_ratio"] == bleu.ratio or math.isnan(found["length_ratio"]) or bleu.ref_len == 0


def test_no_text_has_no_score_and_one_without_a_reference_is_refused() -> None:
    pytest.importorskip("sacrebleu")
    from losslab.metrics.text_scores import TextScores

    scores = TextScores()
    assert all(math.isnan(value) for value in scores.values(scores.counts([], []).sum(dim=0)).values())
    with pytest.raises(UserError, match="without a reference"):
        scores.counts(["a"], [[]])


def test_signatures_are_kept_with_the_declaration() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    from losslab.metrics.text_scores import TextScores

    bleu, chrf, ratio = TextScores().metrics()
    assert bleu.signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    assert chrf.signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert TextScores().metrics(references=3)[0].signature.startswith("nrefs:3|")
    assert TextScores().metrics(references=-1)[0].signature.startswith("nrefs:var|")
    info = to_info([bleu, chrf, ratio], "bleu")
    assert from_info(info)["bleu"] == bleu and "signature" not in info["length_ratio"]
