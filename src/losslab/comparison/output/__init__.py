"""The comparison as tables, prose, figures, a page and TensorBoard events."""
