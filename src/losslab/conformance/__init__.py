"""The kit that shows the author of a loss its faults."""

from losslab.conformance.kit import check

__all__ = ["check"]
