"""Numbers of yesterday: tiny runs give the batches, weights and metrics of commit 187bb58, before the contracts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.records import read
from runs import find_runs

BACKBONE = "efd41d9fccbad18a"
HASHES = {"batches": "42df0af71485519a", "tokenizer": "fd4eb72606d9cfaf"}
METRICS = ("val/nll_scaled", "test/nll", "test/ece", "test/nll_linked", "test/mrr", "test/word_perplexity")
PINNED = {
    "cross_entropy": (
        "0049300a4252c20c570628ab",
        (3.4133312, 5.1615416, 0.054376386, 5.1615416, 0.22206620, 4103659450398.0),
    ),
    "focal": ("b74ea74b443b15a20c8f8d3b", (3.4178614, 5.1617051, 0.054366012, 5.1730301, 0.22211378, 4107438554426.1)),
    "square": ("f960146af71b9fa531a9e491", (3.8332312, 3.8270428, 0.18788029, 3.2759512, 0.22003616, 2249466503.8)),
}
"""Loss → identity, and METRICS at the best checkpoint. Processors round differently: seven digits."""


@pytest.mark.parametrize("loss", PINNED)
def test_a_run_gives_the_numbers_of_before(loss: str, run_tiny: Callable[..., int]) -> None:
    identity, values = PINNED[loss]
    assert run_tiny(f"loss={loss}", "model.dropout=0.1", "name=pinned") == 0
    (run,) = find_runs(Path("outputs/pinned"))
    record = read(run)
    assert record.identity.startswith(identity)
    assert all(record.hashes[name].startswith(digest) for name, digest in HASHES.items())
    found = [record.metrics["best"][name] for name in METRICS]
    assert found == pytest.approx(values, rel=1e-6)
    assert record.hashes["backbone_init"].startswith(BACKBONE)
