"""The kinds of scripts/benchmark, a file each, with what belongs to one kind beside it."""
