"""Members of `scripts/benchmark many`, alone and as one batched model, and the ways to put them on a device."""
