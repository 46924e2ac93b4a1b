"""Parts that several kinds use: options, the shape of a run, turns, busy cores, and the loops of peers."""
