"""Everything that a run writes: checkpoints, events, logs, messages and provenance."""
