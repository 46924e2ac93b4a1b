"""Functions for programs and notebooks. No torch here: it is imported where weights are."""
