"""Loggers of a run beside metrics.csv. Each is a Lightning Logger; docs/loggers.md says what they receive."""
