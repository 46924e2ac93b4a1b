"""Trained weights: loaded, scored, exported, taught from."""
