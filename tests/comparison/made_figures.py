"""A noise figure of a preset, for tests."""

from losslab.comparison.noise_figures import Figure

NANO = Figure(
    preset="nano",
    words=["experiment=quickstart"],
    loss="focal",
    baseline="cross_entropy",
    metric="test/nll_scaled",
    unit="nats per token",
    margin=0.01,
    seeds=24,
    std=0.018,
    df=23,
    unpaired_std=0.06,
    seconds_a_run=30.0,
    at_once=2,
    machine="2 cores",
    written="2026-11-28",
)
