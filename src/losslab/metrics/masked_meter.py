"""The meter of hidden tokens."""

from __future__ import annotations

from losslab.metrics.class_meter import ClassMeter


class MaskedMeter(ClassMeter):
    """Metrics of tokens that were hidden, and of no others."""

    def values(self) -> dict[str, float]:
        """Those of classes; exp(nll) under a name that does not promise the perplexity of a text."""
        return {
            "masked_perplexity" if name == "perplexity" else name: value for name, value in super().values().items()
        }
