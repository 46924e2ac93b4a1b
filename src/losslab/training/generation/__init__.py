"""Text out of a trained language model."""
