"""Words of a field for metrics that losslab calls otherwise."""

import pytest

from losslab.config.metric_words import SYNONYMS, nearest_metric
from losslab.metrics.entities import ENTITY_METRICS
from losslab.metrics.sequence_meter import EXACT_MATCH
from losslab.metrics.table import BY_CLASS, LABEL_METRICS, MASKED_METRICS, METRICS
from losslab.metrics.value_meter import value_metrics

CLASSES = ["test/top1", "test/top5", "test/macro_f1", "test/nll", "val/top1", "val/macro_f1", "test/balanced_accuracy"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("accuracy", "'test/top1'"),
        ("acc", "'test/top1'"),
        ("Accuracy", "'test/top1'"),
        ("test/accuracy", "'test/top1'"),
        ("val_acc", "'val/top1'"),
        ("validation/f1", "'val/macro_f1'"),
        ("f1", "'test/macro_f1'"),
        ("F1-score", "'test/macro_f1'"),
        ("acc@5", "'test/top5'"),
        ("top1", "'test/top1'"),
        ("macro-f1", "'test/macro_f1'"),
        ("loss", "'test/nll'"),
        ("test/mcro_f1", "'test/macro_f1'"),
    ],
)
def test_the_metric_of_a_word_is_suggested(typed: str, meant: str) -> None:
    assert nearest_metric(typed, CLASSES) == f"did you mean {meant}?"


def test_a_word_of_several_metrics_suggests_all_that_there_are() -> None:
    assert (
        nearest_metric("f1", ["test/micro_f1", "test/macro_f1"]) == "did you mean 'test/micro_f1' or 'test/macro_f1'?"
    )
    assert nearest_metric("ppl", ["test/perplexity"]) == "did you mean 'test/perplexity'?"
    assert nearest_metric("ppl", ["test/rmse"]) == "there are test/rmse"


def test_every_word_stands_for_a_metric_that_there_is() -> None:
    declared = [*METRICS, *BY_CLASS, *LABEL_METRICS, *MASKED_METRICS, *ENTITY_METRICS, EXACT_MATCH, *value_metrics("")]
    names = {metric.name for metric in declared}
    assert {name for own in SYNONYMS.values() for name in own} <= names
    assert names & SYNONYMS.keys() == {"perplexity"}, "of hidden tokens it is masked_perplexity"


def test_a_suggestion_is_near_without_the_split() -> None:
    known = ["test/ece", "test/nll", "test/nll_scaled", "test/top1"]
    assert nearest_metric("test/nonsense", known) == f"there are {', '.join(known)}"
    assert nearest_metric("test/nll_scald", known) == "did you mean 'test/nll_scaled'?"
    assert nearest_metric("nll_scald", known) == "did you mean 'test/nll_scaled'?"
