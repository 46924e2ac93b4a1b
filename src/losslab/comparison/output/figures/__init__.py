"""Pictures of a comparison: arrays in, a matplotlib figure out; `style` writes them."""
