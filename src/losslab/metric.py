"""Declaration of one metric: its name, its words, its unit, its better side."""

from typing import NamedTuple


class Metric(NamedTuple):
    """One metric, as a task declares it (`task.metrics`) and as the record keeps it (`metrics_info`)."""

    name: str
    """Key in metrics.jsonl and run.json, without its split: `nll_scaled` of `test/nll_scaled`."""
    label: str
    """Words for tables, figures and sentences: `scaled NLL`."""
    unit: str
    """Unit of the values, `nats/token` or `cm`; empty where the label says everything."""
    higher_is_better: bool | None
    """Better side. None declares a diagnosis: neither side is better, and no verdict is given."""
    margin: float | None
    """Difference, in the unit of the values, below which two values are customarily taken as equal. None: no custom."""
    shown: frozenset[str]
    """Places that show the metric, by tag."""
