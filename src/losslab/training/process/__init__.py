"""The processes of a run: claiming it, starting its ranks, and what a rank does first and last."""
