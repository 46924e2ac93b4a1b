"""The kit that tells the author of a loss what is wrong with it."""

from losslab.conformance.kit import check

__all__ = ["check"]
