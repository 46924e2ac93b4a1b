"""The kits that show authors of losses, models, data and tasks their faults."""

from losslab.conformance.kit import check, check_part

__all__ = ["check", "check_part"]
