"""Trials of a person's own model, data and task before a run computes; `losslab check` tries more."""
