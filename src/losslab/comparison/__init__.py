"""The comparison of the losses in a folder of runs. Reads records only; imports no torch."""

from losslab.comparison.analysis import Comparison, analyse
from losslab.comparison.runs.columns import load
from losslab.comparison.runs.load import load_runs

__all__ = ["Comparison", "analyse", "load", "load_runs"]
