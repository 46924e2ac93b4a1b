"""BLEU and chrF of texts, by sacrebleu, as counts that add up over texts and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.metric import Metric

_SHOWN = frozenset({"terminal", "events"})


class TextScores:
    """Corpus BLEU (Papineni et al. 2002, with the 13a tokenisation of WMT) and chrF (Popović 2015) with sacrebleu's
    defaults (Post 2018, arXiv:1804.08771), of texts as they are read: not tokenised or lower-cased.

    Raises:
        UserError: where sacrebleu is not installed.
    """

    def __init__(self) -> None:
        try:
            from sacrebleu.metrics.bleu import BLEU
            from sacrebleu.metrics.chrf import CHRF
        except ImportError:
            raise UserError(
                "BLEU and chrF need the package sacrebleu: pip install 'losslab[mt]', or give task.beams=0, for "
                "a run that writes no texts"
            ) from None
        self._bleu: Any = BLEU(force=True)  # no warning of texts that end in " .", which are scored as they are
        self._chrf: Any = CHRF()

    def counts(self, written: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
        """Counts of each text, float64 [N, S], which add up: 1, then the statistics of BLEU and of chrF.

        Args:
            written: N texts; an empty one counts as such.
            references: of each text, one or more.

        Raises:
            UserError: for a text without references.
        """
        if any(not each for each in references):
            raise UserError("a text without a reference cannot be judged")
        if not written:
            return torch.zeros(0, self.size, dtype=torch.float64)
        streams = list(zip_longest(*references))
        # the statistics that sacrebleu's own resampling adds up
        found = [metric._extract_corpus_statistics(written, streams) for metric in (self._bleu, self._chrf)]
        parts = [torch.tensor(each, dtype=torch.float64) for each in found]
        return torch.cat([torch.ones(len(written), 1, dtype=torch.float64), *parts], dim=1)

    @property
    def size(self) -> int:
        """S."""
        return 1 + self._of_bleu + int(3 * self._chrf.order)

    @property
    def _of_bleu(self) -> int:
        return int(2 + 2 * self._bleu.max_ngram_order)

    def apart(self, counts: Tensor) -> dict[str, Tensor]:
        """Counts [S, U] → those of each metric, [K, U]."""
        return {"bleu": counts[1 : 1 + self._of_bleu], "chrf": counts[1 + self._of_bleu :]}

    def values(self, sums: Tensor) -> dict[str, float]:
        """BLEU and chrF from 0 to 100, and the length of the texts in BLEU's tokens over that of the references; NaN
        without texts.

        Args:
            sums: [S], of counts.
        """
        texts, *statistics = (round(value) for value in sums.tolist())
        if not texts:
            return dict.fromkeys(("bleu", "chrf", "length_ratio"), math.nan)
        of_bleu, of_chrf = statistics[: self._of_bleu], statistics[self._of_bleu :]
        written, there = of_bleu[:2]
        return {
            "bleu": self._bleu._compute_score_from_stats(of_bleu).score,
            "chrf": self._chrf._compute_score_from_stats(of_chrf).score,
            "length_ratio": written / there if there else math.nan,
        }

    def metrics(self, references: int = 1) -> tuple[Metric, ...]:
        """Declarations, with the signatures of sacrebleu.

        Args:
            references: the number of references of each text; −1: texts differ in it.
        """
        signatures = []
        streams: list[list[str | None]] = [["a", "a"]] * references if references > 0 else [["a", "a"], ["a", None]]
        for metric in (self._bleu, self._chrf):
            metric.corpus_score(["a", "a"], streams)
            signatures.append(metric.get_signature().format())
        of_bleu, of_chrf = signatures
        return (
            Metric("bleu", "BLEU", "", True, 0.2, _SHOWN, of_bleu),
            Metric("chrf", "chrF", "", True, 0.2, _SHOWN, of_chrf),
            Metric("length_ratio", "length of outputs over references", "", None, None, frozenset({"terminal"})),
        )
